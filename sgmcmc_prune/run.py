"""The main job: sample, learn the sparsity, prune post hoc and in the chain, evaluate, leave a run directory.

`run` starts a directory and `resume` continues one; both go through the same stages, each of which skips what is done:

    dense chains  ->  one fork per in-chain criterion  ->  metrics.json and the table.

Under `torchrun` every process calls the same function. The first writes and evaluates; the others take their part in
the chains (`distributed`), and return an empty dict when those are finished.
"""

import os
import platform
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sgmcmc_prune import __version__, build, distributed
from sgmcmc_prune.chains.batched import require_batchable
from sgmcmc_prune.chains.execution import Mode, choose
from sgmcmc_prune.chains.loop import interruptible
from sgmcmc_prune.chains.memory import require_memory
from sgmcmc_prune.chains.processes import num_workers, run_in_processes, worker_commands
from sgmcmc_prune.config import RunConfig, to_json
from sgmcmc_prune.distributed import Ranks
from sgmcmc_prune.errors import Interrupted
from sgmcmc_prune.evaluate import evaluate, foreign_inputs
from sgmcmc_prune.files import finite_or_null, locked, read_json, write_json
from sgmcmc_prune.samplers import tiers
from sgmcmc_prune.stages import (
    departures,
    evaluation_settings,
    keep_averages,
    load_config,
    measurable_chain,
    num_steps,
    open_stage,
    rehearsed,
    stage_directory,
    stage_schedule,
    stages,
    take_batched,
    take_chain,
)

#: Whoever works in a run directory holds this file.
LOCK = ".lock"


def run(config: RunConfig, out: Path, overwrite: bool = False, progress: bool = True) -> dict[str, Any]:
    """Run a configuration into a new directory.

    Parameters
    ----------
    config : RunConfig
    out : Path
        Must not exist, or be empty, unless `overwrite`. When `torchrun` starts this anew after a failure, it goes on
        with what is there.
    overwrite : bool
        Delete an earlier *run* in `out` first.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        The content of `metrics.json`; empty on all ranks but the first.

    Raises
    ------
    ValueError
        For bad input, before anything is computed or deleted.
    RunError
        If a chain diverged; draws stored before are kept.
    Interrupted
        After SIGINT or SIGTERM; `resume` continues.
    """
    with distributed.world() as world, ExitStack() as held:
        data = world.first_only(lambda: _prepare(config, out, overwrite, world, held))
        return _work(config, data or build.load_data(config), out, progress, world)


def resume(out: Path, progress: bool = True) -> dict[str, Any]:
    """Continue a run that was killed or interrupted; a finished run is evaluated again.

    The number of processes may be another than before: the chains then go on equal to rounding, and `run.json` says so.

    Raises
    ------
    ValueError
        If `out` is not a run directory.
    """
    with distributed.world() as world, ExitStack() as held:
        world.first_only(lambda: _take_up(out, world, held))
        config = load_config(out)
        if not config.keep_weight_draws and _finished(out):
            if not world.first:
                return {}
            return _stored(config, out)
        return _work(config, build.load_data(config), out, progress, world)


def _stored(config: RunConfig, out: Path) -> dict[str, Any]:
    """The table of a finished run whose draws are gone; ValueError if another evaluation is asked for."""
    metrics: dict[str, Any] = read_json(out / "metrics.json", checksum=True)
    asked, done = evaluation_settings(config), metrics["evaluation"]
    if changed := [name for name in done if asked[name] != done[name]]:
        raise ValueError(
            f"{out} cannot be evaluated with another {', '.join(changed)}: its draws are gone; a run keeps them with "
            "--keep-weight-draws"
        )
    _clean(config, out)
    return metrics


def _clean(config: RunConfig, out: Path) -> None:
    """Leave of a finished run what is read again."""
    keep_averages(config, out)
    if not config.keep_weight_draws:
        for criterion in stages(config):
            shutil.rmtree(stage_directory(out, criterion) / "draws", ignore_errors=True)


def _take_up(out: Path, world: Ranks, held: ExitStack) -> None:
    """Check that a directory can be continued, and keep others out of it."""
    _check_processes(load_config(out), world)
    held.enter_context(locked(out / LOCK))


def _finished(out: Path) -> bool:
    return bool(_earlier(out).get("status") == "finished")


def _earlier(out: Path) -> dict[str, Any]:
    """What `run.json` says of the run so far; empty before it has begun."""
    path = out / "run.json"
    return dict(read_json(path, checksum=True)) if path.is_file() else {}


def _prepare(config: RunConfig, out: Path, overwrite: bool, world: Ranks, held: ExitStack) -> build.Data:
    """Take the directory for oneself, refuse what cannot run, and only then delete or write anything in it."""
    _check_processes(config, world)
    made = _take(out, held)
    try:
        if distributed.restarted() and (out / "config.json").is_file() and load_config(out) == config:
            return build.load_data(config)
        old = [path for path in out.iterdir() if path.name != LOCK]
        if old and not overwrite:
            raise ValueError(
                f"{out} exists and is not empty; choose another --out, continue it with "
                f"`sgmcmc-prune resume {out}`, or replace it with --overwrite"
            )
        if old and not (out / "config.json").is_file():
            raise ValueError(f"{out} is not a run directory, so --overwrite will not delete it; choose another --out")
        data = build.load_data(config)
        _check(config, data, world)
    except BaseException:
        if made:  # a run that is refused leaves nothing
            held.close()
            (out / LOCK).unlink()
            for directory in made:
                directory.rmdir()
        raise
    for path in old:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_json(out / "config.json", to_json(config))
    return data


def _take(out: Path, held: ExitStack) -> list[Path]:
    """Hold the lock of a directory, made if there is none; give the directories that were made, inner ones first."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose another --out")
    made = [directory for directory in (out, *out.parents) if not directory.exists()]
    held.enter_context(locked(out / LOCK))
    return made


def _check_processes(config: RunConfig, world: Ranks) -> None:
    build.check_device(config.device)
    if world.size > 1 and ":" in config.device:
        raise ValueError(f"device is {config.device!r}, for {world.size} processes; give 'cuda': each takes its own")
    _ranks_per_chain(config, world)


def _ranks_per_chain(config: RunConfig, world: Ranks) -> int:
    if world.size == 1:
        return 1
    return distributed.ranks_per_chain(world.size, config.chains, config.data.batch_size, config.ranks_per_chain)


def _check(config: RunConfig, data: build.Data, world: Ranks) -> None:
    """Build one chain and one pruner, so that a bad setting is refused before a directory is made."""
    if config.schedule.cycles < 1:
        raise ValueError(f"schedule.cycles is {config.schedule.cycles}; a run draws in at least one cycle")
    foreign_inputs(config, data)
    build.probes(config, data)
    model = build.build_model(config, data, 0)
    found = rehearsed(config, data, model)
    if (config.prune.in_chain or config.prune.post_hoc) and not build.groups(config, data, model):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.not_prunable.items())
        raise ValueError(f"the network has no weight that may be pruned ({reasons}); run without prune criteria")
    chain = build.build_chain(config, data, 0, stage_schedule(config, data, None))
    for criterion in config.prune.in_chain:
        stage_schedule(config, data, criterion)
        build.build_pruner(config, data, chain.model, criterion, 0, None)
    if config.execution == "batched":
        require_batchable(chain)
    at_once = {"processes": num_workers(config.chains), "batched": config.chains}
    require_memory(chain, at_once.get(config.execution, 1) if world.size == 1 else 1)


def _work(config: RunConfig, data: build.Data, out: Path, progress: bool, world: Ranks) -> dict[str, Any]:
    if not world.first:
        _run_ranks(config, data, out, False, world)
        return {}
    with interruptible():
        return _first_work(config, data, out, progress, world)


def _first_work(config: RunConfig, data: build.Data, out: Path, progress: bool, world: Ranks) -> dict[str, Any]:
    started, sampled = time.time(), _finished(out)
    info = _describe(config, data, out, world)
    if not sampled:
        _write_info(out, {**info, "status": "running"})
    try:
        if not sampled:
            _run_chains(config, data, out, progress, world, info["execution"]["mode"])
        metrics = evaluate(config, data, out, progress)
    except (Exception, Interrupted) as error:  # whatever it is: nobody should wait for a run that has ended
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        if not sampled:  # what was sampled stays so, whatever its evaluation says
            _write_info(out, {**info, **_damaged_checkpoints(out), "status": status, "error": str(error)})
        raise
    write_json(out / "metrics.json", finite_or_null(metrics), checksum=True)
    info["departures"] += metrics["diagnostics"]["temperature"]["findings"]
    seconds = _earlier(out)["seconds"] if sampled else time.time() - started
    info |= {**_damaged_checkpoints(out), "status": "finished", "seconds": seconds}
    _write_info(out, info)
    _clean(config, out)
    return metrics


def _write_info(out: Path, info: dict[str, Any]) -> None:
    write_json(out / "run.json", info, checksum=True)


def _damaged_checkpoints(out: Path) -> dict[str, list[str]]:
    """The checkpoints that were set aside in this run's life."""
    return {"damaged_checkpoints": sorted(str(p.relative_to(out)) for p in out.rglob("checkpoints/*.damaged"))}


def _run_chains(config: RunConfig, data: build.Data, out: Path, progress: bool, world: Ranks, mode: Mode) -> None:
    """The dense chains (burn-in with EM, then draws at fixed hyperparameters), and the fork of every criterion."""
    for criterion in stages(config):
        open_stage(config, data, out, criterion, _ranks_per_chain(config, world), progress)
    total = config.chains * num_steps(config, data)
    if mode == "loop":
        _run_ranks(config, data, out, progress, world)
    elif mode == "processes":
        run_in_processes(out, config.chains, total, progress)
    else:
        with _bar(total, progress) as bar:
            take_batched(config, data, out, bar)


def _execution(config: RunConfig, data: build.Data, out: Path, world: Ranks) -> dict[str, Any]:
    """How the chains are taken, and if that was measured, what each way was predicted to cost; a resume keeps it."""
    if world.size > 1 or config.chains == 1:
        return {"mode": "loop"}
    if config.execution != "auto":
        return {"mode": config.execution}
    if before := _earlier(out).get("execution"):
        return dict(before)
    choice = choose(
        lambda index: measurable_chain(config, data, index),
        config.chains,
        num_steps(config, data),
        worker_commands("measure", out, config.chains)[: num_workers(config.chains)],
    )
    return {"mode": choice.mode, "predicted_seconds": choice.predicted_seconds}


def _bar(total: int, progress: bool) -> tqdm:
    return tqdm(total=total, unit="step", disable=not progress, dynamic_ncols=True, mininterval=0.5)


def _run_ranks(config: RunConfig, data: build.Data, out: Path, progress: bool, world: Ranks) -> None:
    """Take this process's part: all chains in a loop, or its part in the chains of its group of ranks."""
    ranks, chains = distributed.divide(world, config.chains, _ranks_per_chain(config, world), config.rank_timeout)
    world.wait()  # the stores exist
    total = len(chains) * num_steps(config, data)
    with _bar(total, progress) as bar:
        for index in chains:
            take_chain(config, data, out, index, bar, ranks)
    world.wait()  # all chains of all groups are finished


def _describe(config: RunConfig, data: build.Data, out: Path, world: Ranks) -> dict[str, Any]:
    model = build.build_model(config, data, 0)
    parameters = list(model.parameters())
    return {
        "library": {"name": "sgmcmc_prune", "version": __version__},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "threads": torch.get_num_threads()},
        "data": {
            **data.dataset.provenance,
            "train": len(data.train[1]),
            "validation": len(data.validation[1]),
            "test": len(data.test[1]),
        },
        "implementation": {
            "tier": tiers.choose(config.sampler.implementation, parameters),
            "obstacle": tiers.why_not_compiled(parameters),
        },
        "execution": _execution(config, data, out, world),
        "processes": _history(out, {"processes": world.size, "ranks_per_chain": _ranks_per_chain(config, world)}),
        "departures": departures(config, data, model, _ranks_per_chain(config, world)),
    }


def _history(out: Path, now: dict[str, int]) -> list[dict[str, int]]:
    """How many processes took the run, one after the other: where `ranks_per_chain` changes, rounding does."""
    before: list[dict[str, int]] = _earlier(out).get("processes", [])
    return before if before[-1:] == [now] else [*before, now]
