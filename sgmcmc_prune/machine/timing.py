"""Timing on shared, noisy machines: interleaved repeats, paired ratios, and an interval that assumes nothing.

All candidates run once in every round, in an order that rotates or is drawn anew, so that a slow moment of the machine
hits all of them.
The ratio of two candidates is the median over rounds of their paired ratios, with a distribution-free 95 % interval.
"""

import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.machine.progress import counted


@dataclass(frozen=True)
class Ratio:
    """A median of paired ratios, with the two ends of its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interleaved(
    candidates: Mapping[str, Callable[[], Any]],
    rounds: int,
    warm_up: int = 2,
    title: str = "",
    progress: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    order: random.Random | None = None,
) -> dict[str, list[float]]:
    """Seconds of every candidate in every round.

    Parameters
    ----------
    candidates : mapping of str to callable
        Each call is one measurement; on CUDA it is followed by a synchronisation.
    rounds : int
    warm_up : int
        Rounds that are not counted.
    title : str
        Shown by the progress bar.
    clock : callable
        Gives seconds: wall time, or with `time.process_time` that of the processor.
    order : random.Random, optional
        Draws the order of every round; else it rotates.

    Returns
    -------
    dict of str to list of float, one per round
    """
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for r in counted(range(warm_up + rounds), title, "round", progress):
        turns = names[r % len(names) :] + names[: r % len(names)] if order is None else order.sample(names, len(names))
        for name in turns:
            began = clock()
            candidates[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if r >= warm_up:
                seconds[name].append(clock() - began)
    return seconds


def block(step: Callable[[], Any], steps: int) -> Callable[[], None]:
    """Several steps as one measurement."""

    def work() -> None:
        for _ in range(steps):
            step()

    return work


def paired_ratio(numerator: list[float], denominator: list[float]) -> Ratio:
    r"""Median of the paired ratios with a distribution-free interval of at least 95 %.

    Between the order statistics k and n - k + 1 lies the median with probability 1 - 2 P(Binomial(n, 1/2) < k).

    Raises
    ------
    ValueError
        With fewer than six rounds: no such interval exists.
    """
    ratios = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
    n = len(ratios)
    if n < 6:
        raise ValueError(f"{n} rounds cannot give a 95 % interval for a median; measure at least 6")
    tail, k = 0.0, 0
    while tail + math.comb(n, k) / 2**n <= 0.025:
        tail += math.comb(n, k) / 2**n
        k += 1
    return Ratio(statistics.median(ratios), ratios[k - 1], ratios[n - k])


def copy_bandwidth(device: str = "cpu", size: int = 2**26, rounds: int = 7) -> float:
    """Bytes per second that a copy of a large tensor moves on this device (reads plus writes), the best of `rounds`."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return target.copy_(source)

    return 2 * size / min(interleaved({"copy": copy}, rounds, progress=False)["copy"])


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, threads, versions."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
