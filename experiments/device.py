"""The first minute on a GPU: does the fast tier do what the reference does, how fast is it, and what can a chain do?

    python -m experiments.device --data-dir cifar-10-batches-bin --minutes 9
    python -m experiments.device --rehearse

A GPU that is lent by the minute is no place to find a mistake, and it may have nothing but PyTorch, NumPy, SciPy and
safetensors: this script needs nothing else. Its parts, in this order:

tier      the Triton tier takes the reference's steps, and keeps the exact law of a Gaussian (rows of `certify`)
waits     how often the host waits for the device in a step, as the profiler counts it
step, train, chains, predict   the benchmarks of those names, in ratio to fused AdamW, SGD and plain passes
cifar10   ResNet-20 in a dense chain, in the chain at 90 and 95 %, and SGD under gradual magnitude pruning at the same
          budget; the epochs are those that fit `--training-minutes` at the measured speed

Each part is a cell, in a process of its own: what is finished is kept in `--out`, and the next call goes on with the
rest. After `--minutes` the script stops itself; the training saves a checkpoint and goes on in the next call. It writes
device.json and device.md there. With `--rehearse` everything runs once at a tiny size on a CPU, the Triton tier in
Triton's interpreter where Triton is installed, and else the compiled tier in its place, which the table says.
"""

import argparse
import os
import signal
import sys
import threading
import time
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from experiments import shared
from experiments.literature import precision
from experiments.ours import cifar10_resnet20
from sgmcmc_prune import bench, cells
from sgmcmc_prune.bench import chains as bench_chains
from sgmcmc_prune.bench import predict as bench_predict
from sgmcmc_prune.bench import train as bench_train
from sgmcmc_prune.bench.loop import random_pictures
from sgmcmc_prune.cells import Cell, Files
from sgmcmc_prune.certify.suite import certified, tier_suite
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.choices import make
from sgmcmc_prune.errors import Interrupted
from sgmcmc_prune.machine import timing
from sgmcmc_prune.machine.progress import Silent
from sgmcmc_prune.run.checks import check_device
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.directory import load_config
from sgmcmc_prune.run.evaluate import tables
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.stages import measurable_chain, take_chain
from sgmcmc_prune.run.tables import metrics_table
from sgmcmc_prune.samplers.tiers import why_not_triton
from sgmcmc_prune.settings import replace, require, to_json
from sgmcmc_prune.store.files import write_json
from sgmcmc_prune.store.places import RunPlaces
from sgmcmc_prune.text_table import format_rows

Record = dict[str, Any]
SEED = 0
#: What chooses Triton's interpreter, from the import of Triton on.
INTERPRET = "TRITON_INTERPRET"
#: Interleaved repeats of a benchmark, and of one that is rehearsed.
ROUNDS, REHEARSED = 11, 6
#: Replicates of a case, and in the interpreter, whose time is that of its programs.
REPLICATES, FEW = 4096, 256
#: Steps that are profiled; the loss is looked at before them (`chains.chain.LOSS_CHECK_EVERY`) and not in them.
BEFORE, PROFILED = 52, 40
#: Of the profiler: calls in which the host waits, a number that it reads, and copies, which wait unless they are told.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
EVENTS = (*WAITS, "aten::_local_scalar_dense", "cudaMemcpyAsync")
#: Steps by which the speed of a training is measured, after some that do not count.
MEASURED, WARM_UP = 40, 10
#: What the training leaves for the evaluation and for saving.
SHARE = 0.85
#: A rehearsed training: images of noise, epochs, and what is smaller.
IMAGES, EPOCHS = (64, 50), 6.0
TINY: Record = {"data.batch_size": 16, "schedule.draws": 2, "prune.draws": 2, "prior.spike_variance": 0.005}


def tier(device: str, rehearse: bool) -> Record:
    """Certify the Triton tier by itself; on a CPU in its interpreter, or the compiled tier where Triton is missing."""
    name, note, replicates = "triton", "", REPLICATES
    if device == "cpu":
        note, replicates = "Triton's interpreter on a CPU", FEW
    if reason := why_not_triton([torch.zeros(1, device=device)]):
        require(device == "cpu", f"the Triton tier cannot run: {reason}")
        name, replicates = "compiled", REPLICATES
        note = f"skipped: the Triton tier, for {reason}; the compiled tier ran in its place"
    certificate = certified(tier_suite(name, device, replicates), SEED, 1e-3, rehearse)
    rows = [{**vars(row), "verdict": v} for row, v in zip(certificate.rows, certificate.verdicts, strict=True)]
    text = "\n\n".join(filter(None, [note, certificate.format()]))
    return {"tier": name, "note": note, "passed": certificate.passed, "rows": rows, "text": text}


def waits(device: str, rehearse: bool) -> Record:
    """Count the host's waits in steps of plain SGD, of a chain's burn-in, and of one that draws at every step."""
    network = "lenet" if rehearse else "resnet20"
    arguments = (network, bench_train.NETWORKS[network][0], 128, device)
    drawing = bench_train.chain(*arguments)
    drawing.schedule = Cyclical(1e-3, 1e-3, 1e-4, 0.9, 1.0, burn_in=1, cycles=1, explore=0, sample=10**6, thin=1)
    loops: dict[str, tuple[Callable[[], Any], int]] = {
        "nothing: the profiler's own": (lambda: None, 0),
        "SGD": (bench_train.sgd(*arguments), PROFILED),
        "chain, burn-in with EM": (bench_train.chain(*arguments).advance, PROFILED),
        "chain, every step a draw": (drawing.advance, PROFILED),
    }
    rows = []
    for name, (step, steps) in loops.items():
        timing.block(step, BEFORE if steps else 0)()
        where = _lines(step, PROFILED) if steps and device != "cpu" else {}
        rows.append({"loop": name, "steps": steps, **_counted(step, steps), "lines": where})
    header = ("loop", "steps", *EVENTS)
    text = format_rows(header, [[r["loop"], str(r["steps"]), *(str(r[event]) for event in EVENTS)] for r in rows])
    said = [f"{r['loop']}: {count} x {line}" for r in rows for line, count in r["lines"].items()]
    if device == "cpu":
        said = ["skipped: waits for a GPU, of which a CPU has none; numbers that are read are counted"]
    return {"network": network, "rows": rows, "text": "\n".join([text, *said])}


def _counted(step: Callable[[], Any], steps: int) -> dict[str, int]:
    """How often each event came up in some steps."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        timing.block(step, steps)()
        if on_gpu:
            torch.cuda.synchronize()
    counts = Counter({event.key: event.count for event in profiler.key_averages()})
    return {event: counts[event] for event in EVENTS}


def _lines(step: Callable[[], Any], steps: int) -> dict[str, int]:
    """The lines in which the host waited, and how often."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            timing.block(step, steps)()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return dict(Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught))


def benchmark(name: str, device: str, rehearse: bool) -> Record:
    """One of the benchmarks: step, train, chains or predict."""
    small: dict[str, Any] = {"rounds": REHEARSED, "progress": False}
    if not rehearse:
        found, tables_ = [], []
        for network in {"step": ("resnet18", "lenet"), "train": ("resnet20", "lenet")}.get(name, ("mlp", "lenet")):
            result, text = bench.run(name, network, ROUNDS, device)
            found.append(result)
            tables_.append(text)
        return {"results": found, "text": "\n\n".join(tables_)}
    if name == "step":
        result, text = bench.run(name, "lenet", REHEARSED, device)
    elif name == "train":
        result = bench_train.bench_train(("mlp",), device=device, **small)
        text = bench_train.table(result)
    elif name == "chains":
        result = bench_chains.bench_chains(("mlp",), chains=2, device=device, **small)
        text = bench_chains.table(result)
    else:
        result = bench_predict.bench_predict(("mlp",), draws=4, images=200, device=device, **small)
        text = bench_predict.table(result)
    return {"results": [result], "text": text}


class Unstored:
    """Takes the place of a run's Zarr store: of a draw only its weights are kept, which have files of their own."""

    def append(self, group: str, chain: int, slot: int, values: Any) -> None:
        """Forget it."""

    def truncate(self, group: str, chain: int, length: int) -> None:
        """There is nothing to cut."""

    def flush(self) -> None:
        """There is nothing to write."""

    def written(self, group: str, chain: int, name: str) -> np.ndarray:
        """No draws."""
        return np.zeros((0, 1, 1))


def cifar10(device: str, rehearse: bool, out: str, data_dir: str | None, minutes: float) -> Record:
    """Train, from the newest checkpoint if there is one, and make the table on the test images."""
    folder = Path(out) / "cifar10"
    if RunPlaces(folder).config.is_file():
        run = _run(load_config(folder), folder, rehearse)
    else:
        run = _planned(device, rehearse, folder, data_dir, minutes)
        write_json(run.places.config, to_json(run.config))
    store: Any = Unstored()
    take_chain(run, 0, _Said(run.num_steps), store=store)
    found = tables(run, progress=False)
    epochs = run.config.schedule.burn_in + run.config.schedule.sample
    text = f"{epochs:g} epochs dense, {epochs - 1:g} at each target, seed {SEED}\n\n{metrics_table(found)}"
    return {"epochs": epochs, "config": to_json(run.config), "metrics": found, "text": text}


def _run(config: RunConfig, folder: Path, rehearse: bool) -> Run:
    """The run; a rehearsal's images are noise."""
    return Run(config, folder, random_pictures((3, 32, 32), config, *IMAGES) if rehearse else None)


def _planned(device: str, rehearse: bool, folder: Path, data_dir: str | None, minutes: float) -> Run:
    """The run with as many epochs as the minutes allow at the speed of this machine."""
    epochs = EPOCHS if rehearse else 11.0
    run = _run(_config(device, data_dir, epochs, rehearse), folder, rehearse)
    if rehearse:
        return run
    chain, control = measurable_chain(run, 0), make("control", run.config.control, run, 0)
    seconds = _seconds(chain.advance) + _seconds(control.advance)
    parts = SHARE * 60 * minutes / (seconds * run.steps_per_epoch)  # epochs of a chain, which its control repeats
    epochs = max(2.0, (parts + 2) // 3)
    print(f"cifar10: {1000 * seconds:.1f} ms a step of chain and control: {epochs:g} epochs", flush=True)
    return _run(_config(device, data_dir, epochs, rehearse), folder, rehearse)


def _seconds(step: Callable[[], Any]) -> float:
    timing.block(step, WARM_UP)()
    return timing.interleaved({"": timing.block(step, MEASURED)}, 1, 0, progress=False)[""][0] / MEASURED


def _config(device: str, data_dir: str | None, epochs: float, rehearse: bool) -> RunConfig:
    """The cell of `ours/cifar10_resnet20` with a spike-and-slab chain, and its SGD as a control."""
    a = Namespace(epochs=epochs, evaluate="test", data_dir=None if data_dir is None else Path(data_dir), device=device)
    chosen = precision("auto", "desk", device)
    config = cifar10_resnet20.config_of("spike and slab", SEED, a, chosen)
    changes = {"control": "sgd", "keep_weight_draws": True, "checkpoint_seconds": 60.0, **(TINY if rehearse else {})}
    made: RunConfig = replace(config, **changes)
    return made


class _Said(Silent):
    """Says now and then how far the training is."""

    def __init__(self, total: int) -> None:
        self.total, self.stage, self.text, self.shown = total, "", "", time.monotonic()

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Remember the stage."""
        self.stage = desc or ""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Remember what was said."""
        self.text = s

    def skip(self, steps: int) -> None:
        """Count what an earlier call did."""
        self.n += steps

    def update(self, n: int = 1) -> None:
        """Count, and say so every 20 seconds."""
        self.n += n
        if time.monotonic() - self.shown > 20:
            self.shown = time.monotonic()
            self.write(f"cifar10: {self.n} of {self.total} steps, {self.stage} {self.text}")

    def write(self, message: str) -> None:
        """Print a line, not where a worker reports its result."""
        print(message, file=sys.stderr, flush=True)


PARTS: dict[str, Callable[..., Record]] = {
    "tier": tier,
    "waits": waits,
    **{name: benchmark for name in ("step", "train", "chains", "predict")},
    "cifar10": cifar10,
}


def part(name: str, device: str, rehearse: bool, **places: Any) -> Record:
    """One part, and the seconds of its last call."""
    began = time.perf_counter()
    if name != "tier":
        os.environ.pop(INTERPRET, None)  # or the benchmarks would take Triton's interpreter for a tier
    settings = {"name": name} if PARTS[name] is benchmark else places if name == "cifar10" else {}
    found = PARTS[name](device=device, rehearse=rehearse, **settings)
    about = {"name": name, "device": device, "rehearse": rehearse, "machine": timing.machine()}
    return {**about, "seconds": time.perf_counter() - began, **found}


def grid(a: Namespace) -> Files:
    """The parts as cells, each with a file."""
    places = {"out": str(a.out), "data_dir": str(a.data_dir) if a.data_dir else None, "minutes": a.training_minutes}
    made = []
    for name in PARTS:
        if name == "cifar10" and a.data_dir is None and not a.rehearse:
            continue
        settings = {"name": name, "device": a.device, "rehearse": a.rehearse}
        made.append(Cell(name, part, settings, places))
    return Files(made, lambda cell: a.out / f"{cell.name}.json", a.out / ".claims")


def write(a: Namespace, parts: Files) -> None:
    """Write what is finished, as JSON and as a Markdown page."""
    found = {cell.name: result for cell in parts.cells if (result := parts.find(cell)) is not None}
    lines = ["# The first minute on a GPU", "", f"`python -m experiments.device`, on {a.device}"]
    if a.rehearse:
        lines += ["", "A rehearsal at a tiny size: it shows that every part runs, and nothing else."]
    machines = [result["machine"] for result in found.values()]
    if machines:
        m = machines[-1]
        lines += ["", f"{m.get('cuda', m['processor'])}, torch {m['torch']}, Python {m['python']}"]
    for name in PARTS:
        lines += ["", f"## {name}", ""]
        if name in found:
            lines += ["```", found[name]["text"], "```", "", f"{found[name]['seconds']:.0f} s"]
        elif name not in {cell.name for cell in parts.cells}:
            lines.append("Skipped: --data-dir was not given.")
        else:
            lines.append("Not finished; the same command goes on.")
    write_json(a.out / "device.json", found)
    (a.out / "device.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(found)} of {len(PARTS)} parts are in {a.out / 'device.md'}")


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """Stop this process as a scheduler would, after so many minutes."""
    alarm = threading.Timer(60 * minutes, partial(os.kill, os.getpid(), signal.SIGTERM))
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def main(argv: list[str] | None = None) -> None:
    """Compute the parts that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", help="by default cuda, and of a rehearsal the CPU")
    parser.add_argument("--rehearse", action="store_true", help="everything once, at a tiny size")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call, by default %(default)g")
    parser.add_argument("--training-minutes", type=float, default=9.0, help="in all calls, by default %(default)g")
    parser.add_argument("--data-dir", type=Path, help="folder of CIFAR-10's binary files")
    parser.add_argument("--out", type=Path, help="by default runs/device, and of a rehearsal runs/device-rehearsed")
    a = parser.parse_args(argv)
    a.device = a.device or ("cpu" if a.rehearse else "cuda")
    a.out = a.out or shared.ROOT / "runs" / ("device-rehearsed" if a.rehearse else "device")
    with shared.in_words():
        check_device(a.device)
        require(a.minutes > 0 and a.training_minutes > 0, "--minutes and --training-minutes must be above 0")
        require(a.rehearse or a.device != "cpu", "on a CPU there is only a rehearsal; give --rehearse")
        if a.device == "cpu":
            os.environ[INTERPRET] = "1"
        parts = grid(a)
        try:
            with time_limit(a.minutes):
                cells.complete(parts, progress=False, show=lambda cell, r: f"{cell.name}: {r['seconds']:.0f} s")
        except Interrupted:
            write(a, parts)
            raise
        write(a, parts)


if __name__ == "__main__":
    main()
