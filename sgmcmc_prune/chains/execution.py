"""How many chains are taken at once: in a loop, batched, or each in a process of its own; chosen by measuring.

Which is fastest depends on the network and the machine. On a CPU a loop leaves cores idle when the network is small;
batching pays for small multilayer perceptrons and costs for convolutions; processes use all cores, but each imports and
loads for itself. So a few steps of each are taken on chains that are thrown away.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sgmcmc_prune.chains import memory
from sgmcmc_prune.chains.batched import BatchedChains, obstacle
from sgmcmc_prune.chains.chain import Chain

Mode = Literal["loop", "batched", "processes"]
WARM_UP, STEPS = 2, 5
#: What a process needs to import torch and to load a data set, in seconds.
START_SECONDS = 5.0
#: How much slower processes are side by side than one alone, since they share caches and memory bandwidth: on two cores
#: 1.1 for an MLP and 1.3 for LeNet (`bench chains`), and this lies between.
CONTENTION = 1.18


@dataclass(frozen=True)
class Choice:
    """A mode of execution, and why.

    Attributes
    ----------
    mode : {"loop", "batched", "processes"}
    predicted_seconds : dict of str to float
        Of all steps of all chains, by mode; a mode that cannot run is missing.
    """

    mode: Mode
    predicted_seconds: dict[str, float]


def choose(make: Callable[[int], Chain], chains: int, steps: int, workers: int) -> Choice:
    """The mode that takes all chains to their end soonest.

    Parameters
    ----------
    make : callable
        A chain's number to a new chain.
    chains : int
    steps : int
        Of each chain.
    workers : int
        Processes that may run at once.
    """
    seconds = {mode: steps * each for mode, each in seconds_per_step(make, chains, workers).items()}
    if "processes" in seconds:
        seconds["processes"] += START_SECONDS * math.ceil(chains / workers)
    modes: tuple[Mode, ...] = ("loop", "processes", "batched")  # where two tie, the simpler
    return Choice(min((mode for mode in modes if mode in seconds), key=seconds.__getitem__), seconds)


def seconds_per_step(make: Callable[[int], Chain], chains: int, workers: int) -> dict[str, float]:
    """Seconds that one step of all chains takes, by mode. A GPU is not shared between processes.

    Parameters
    ----------
    make : callable
        A chain's number to a new chain.
    chains : int
    workers : int
        Processes that may run at once; each gets its share of this process's threads.
    """
    first = make(0)
    found = {"loop": chains * _seconds(first.advance)}
    if obstacle(first) is None and chains > 1 and memory.fits(first, chains):
        found["batched"] = _seconds(BatchedChains([make(index) for index in range(chains)]).advance)
    on_cpu = next(iter(first.parameters.values())).device.type == "cpu"
    if on_cpu and workers > 1 and memory.fits(first, workers):
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(max(1, threads // workers))
            found["processes"] = CONTENTION * math.ceil(chains / workers) * _seconds(make(0).advance)
        finally:
            torch.set_num_threads(threads)
    return found


def _seconds(step: Callable[[], Any]) -> float:
    """Median time of a call."""
    times = []
    for _ in range(WARM_UP + STEPS):
        began = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:])
