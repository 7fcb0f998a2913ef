"""`bench loop`: the whole loop of a run against an SGD loop written by hand in plain torch, in one go.

Ours is a chain as a run takes it: minibatches, augmentation, prior, noise, EM, the training trace, and in a fork the
growing mask. Theirs is one-cycle SGD, and SGD under gradual magnitude pruning, with the field's usual augmentation. On
a CPU the time is that of the processor, which what else runs on the machine hardly touches. What a run does seldom (a
draw, a checkpoint, the evaluation of one network with its BatchNorm statistics) is timed in steps of plain SGD.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmcmc_prune.chains.loop import Stage
from sgmcmc_prune.data.image_data import Dataset, Images
from sgmcmc_prune.machine import timing
from sgmcmc_prune.machine.progress import bar as progress_bar
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.pruning.masked import put_on
from sgmcmc_prune.pruning.prunable import prunable
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.data import Data, split_data
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.stages import open_stage
from sgmcmc_prune.settings import replace
from sgmcmc_prune.text_table import format_rows

#: Image, augmentation and the steps in one measurement of each network.
NETWORKS = {"lenet": ((1, 28, 28), "none", 20), "resnet20": ((3, 32, 32), "crop_flip", 20)}
TRAIN, TEST = 10_000, 1000
#: The loops of ours and what each is measured against.
PAIRS = {"chain, dense": "SGD, one cycle", "chain, pruned on the way": "SGD, gradual magnitude"}
#: What happens seldom.
SELDOM = ("draw", "checkpoint", "BatchNorm statistics", "1,000 examples predicted")


def bench_loop(
    networks: tuple[str, ...] = ("lenet", "resnet20"),
    rounds: int = 6,
    batch_size: int = 128,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure every network.

    Returns
    -------
    dict
        `machine`, `clock` and `rows`, one per network and method: seconds of a step, and the ratio of ours to theirs
        with its 95 % interval; of what is seldom, `steps_of_sgd`.
    """
    rows = []
    for network in networks:
        with tempfile.TemporaryDirectory() as folder:
            rows += _measured(network, rounds, batch_size, device, Path(folder), progress)
    clock = "processor" if device == "cpu" else "wall"
    about = {"machine": timing.machine(), "clock": clock, "batch_size": batch_size, "rounds": rounds}
    return {"bench": "loop", **about, "rows": rows}


def _measured(
    network: str, rounds: int, batch_size: int, device: str, folder: Path, progress: bool
) -> list[dict[str, Any]]:
    """The rows of one network."""
    block = NETWORKS[network][2]
    config = _config(network, (rounds + 2) * block, batch_size, device)
    run = Run(config, folder, random_pictures(NETWORKS[network][0], config, TRAIN, TEST))
    dense, seldom = _dense(run)
    loops = {"SGD, one cycle": plain(run, 0.0), "chain, dense": dense}
    loops |= {"SGD, gradual magnitude": plain(run, 0.9), "chain, pruned on the way": _fork(run)}
    candidates = {name: timing.block(step, block) for name, step in loops.items()} | seldom
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds = timing.interleaved(candidates, rounds, 1, f"bench loop {network}", progress, clock)
    step = statistics.median(seconds["SGD, one cycle"]) / block
    rows: list[dict[str, Any]] = [
        {"network": network, "method": name, "seconds": statistics.median(seconds[name]) / block} for name in loops
    ]
    for row in rows:
        if row["method"] in PAIRS:
            row["ratio"] = vars(timing.paired_ratio(seconds[row["method"]], seconds[PAIRS[row["method"]]]))
    for name in seldom:
        each = statistics.median(seconds[name])
        rows.append({"network": network, "method": name, "seconds": each, "steps_of_sgd": each / step})
    return rows


def _config(network: str, steps: int, batch_size: int, device: str) -> RunConfig:
    """A run that is long enough: a burn-in, and a fork in whose exploration the mask grows all the time."""
    epochs = 1 + steps * batch_size / TRAIN
    changes: dict[str, Any] = {
        "data.validation": 0,
        "data.batch_size": batch_size,
        "data.augmentation": NETWORKS[network][1],
        "model.name": network,
        "sampler.preconditioner": "identity",
        "sampler.lr": 0.01,
        "sampler.lr_explore": 0.01,
        "sampler.lr_min": 0.005,
        "prior.spike_variance": 1e-3,
        "schedule.burn_in": epochs,
        "schedule.cycles": 1,
        "prune.targets": (0.9,),
        "prune.in_chain": ("root_mean_square",),
        "prune.explore": epochs,
        "prune.growth": 1.0,
        "chains": 1,
        "device": device,
    }
    made: RunConfig = replace(RunConfig(), **changes)
    return made


def random_pictures(shape: tuple[int, ...], config: RunConfig, train: int, test: int) -> Data:
    """So many training and test images of noise."""
    g = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        pixels = torch.randint(256, (count, *shape), generator=g, dtype=torch.uint8)
        return Images(pixels, torch.randint(10, (count,), generator=g))

    halves = (0.5,) * shape[0]
    return split_data(Dataset("random", images(train), images(test), 10, halves, halves, {"official": False}), config)


def _dense(run: Run) -> tuple[Callable[[], Any], dict[str, Callable[[], Any]]]:
    """A step of the dense chain as a run takes it, and what its run does seldom."""
    chain, stage = run.chain(0, run.schedule(None)), open_stage(run, None)
    bar = progress_bar(1, "step", disable=True)
    state = network_state(chain.model)
    network = run.model(0)
    batches = run.statistics_batches()
    plan = run.schedule(None)(run.schedule(None).num_steps - 1)

    def draw() -> None:
        stage.recorder.draw(chain, plan)
        stage.weights.save(0, 0, state)

    def predicted() -> None:
        with torch.inference_mode():
            network.eval()(run.data.test[0])

    seldom = (draw, partial(stage.save, chain), partial(put_on, network, state, {}, batches), predicted)
    return partial(_taken, chain, stage, bar), dict(zip(SELDOM, seldom, strict=True))


def _fork(run: Run) -> Callable[[], Any]:
    """A step of a chain whose mask grows, as a run takes it."""
    criterion = run.config.prune.in_chain[0]
    chain, stage = run.chain(0, run.schedule(criterion), criterion), open_stage(run, criterion)
    return partial(_taken, chain, stage, progress_bar(1, "step", disable=True))


def _taken(chain: Any, stage: Stage, bar: Any) -> None:
    stage.write(chain, chain.advance(), bar)


def plain(run: Run, sparsity: float, steps: int = 10_000, every: int = 100) -> Callable[[], Any]:
    """One step of what one writes by hand: one-cycle SGD; with a sparsity, gradual magnitude pruning on the way."""
    (inputs, labels), config = run.data.train[:2], run.config
    model = run.model(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    augmented = config.data.augmentation != "none"
    weights = list(prunable(model).values())
    masks = [torch.ones_like(w) for w in weights]
    order, count = torch.randperm(len(labels)), 0

    def step() -> None:
        nonlocal order, count
        first = count * config.data.batch_size % (len(labels) - config.data.batch_size)
        if first < config.data.batch_size:
            order = torch.randperm(len(labels))
        rows = order[first : first + config.data.batch_size]
        x = crop_and_flip(inputs[rows]) if augmented else inputs[rows]
        loss = F.cross_entropy(model.train()(x), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if sparsity:
            if count % every == 0:
                share = sparsity * (1 - (1 - count / steps) ** 3)
                masks[:] = magnitude_masks(weights, share)
            with torch.no_grad():
                for w, mask in zip(weights, masks, strict=True):
                    w.mul_(mask)
        loss.item()
        count += 1

    return step


def magnitude_masks(weights: list[nn.Parameter], sparsity: float) -> list[Tensor]:
    """Masks of the largest weights of all tensors together."""
    sizes = torch.cat([w.detach().abs().flatten() for w in weights])
    masked = round(sparsity * len(sizes))
    threshold = sizes.kthvalue(masked).values if masked else sizes.new_tensor(-1.0)
    return [(w.detach().abs() > threshold).to(w.dtype) for w in weights]


def crop_and_flip(x: Tensor) -> Tensor:
    """Pad by four, crop at random and mirror half of the images."""
    n, side = len(x), x.shape[-1]
    padded = F.pad(x, (4,) * 4)
    at, example = torch.arange(side, device=x.device), torch.arange(n, device=x.device)[:, None, None]
    rows, columns = (torch.randint(9, (n, 1), device=x.device) + at for _ in range(2))
    columns = torch.where(torch.rand(n, 1, device=x.device) < 0.5, columns.flip(1), columns)
    return padded.permute(0, 2, 3, 1)[example, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    rows = [
        [
            r["network"],
            r["method"],
            f"{1000 * r['seconds']:,.1f}",
            str(timing.Ratio(**r["ratio"])) if "ratio" in r else "",
            f"{r['steps_of_sgd']:.1f}" if "steps_of_sgd" in r else "",
        ]
        for r in result["rows"]
    ]
    return format_rows(("network", "what", "ms", "time / SGD [95 %]", "steps of SGD"), rows)
