"""How many chains are taken at once: in a loop, batched, or each in a process of its own; chosen by measuring.

Which is fastest depends on the network and the machine. On a CPU a loop leaves cores idle when the network is small;
batching pays for small multilayer perceptrons and costs for convolutions; processes use all cores, but each imports and
loads for itself, and they share caches and memory bandwidth. So a few steps of each are taken on chains that are thrown
away. The processes are measured as they would run, side by side, where the run is long enough to pay for starting them.
"""

import math
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sgmcmc_prune.chains import memory
from sgmcmc_prune.chains.batched import BatchedChains, obstacle
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.processes import start_worker
from sgmcmc_prune.errors import RunError

Mode = Literal["loop", "batched", "processes"]
#: Steps before the first that counts; then so many at least, so many at most, and so many seconds between the two.
WARM_UP, LEAST, MOST, SECONDS = 2, 5, 50, 0.5
#: What a process needs to import torch and to load a small data set, in seconds: processes are not measured for less.
START_SECONDS = 5.0
#: How long processes may take to load and to warm up, in seconds, and how much longer a step may take among others.
START_LIMIT, SLOWDOWN_LIMIT = 120.0, 20.0


@dataclass(frozen=True)
class Choice:
    """A mode of execution, and why.

    Attributes
    ----------
    mode : {"loop", "batched", "processes"}
    predicted_seconds : dict of str to float
        Of all steps of all chains, by mode; a mode that cannot run here, or that could not pay, is missing.
    """

    mode: Mode
    predicted_seconds: dict[str, float]


def choose(make: Callable[[int], Chain], chains: int, steps: int, workers: Sequence[Sequence[str]]) -> Choice:
    """The mode that takes all chains to their end soonest.

    Parameters
    ----------
    make : callable
        A chain's number to a new chain, which can take more steps than are measured.
    chains : int
    steps : int
        Of each chain.
    workers : sequence of command lines
        The processes that may run at once, each of which calls `be_measured`; the last argument but one is its number
        of threads. A GPU is not shared between processes.
    """
    each = seconds_per_step(make, chains)
    found = {mode: steps * seconds for mode, seconds in each.items()}
    if len(workers) > 1 and _could_pay(min(found.values()), chains, len(workers)) and _can_share(make(0), len(workers)):
        limit = START_LIMIT + SLOWDOWN_LIMIT * (SECONDS + (WARM_UP + LEAST) * each["loop"] / chains)
        try:
            start, step = side_by_side(workers, limit)
            found["processes"] = math.ceil(chains / len(workers)) * (start + steps * step)
        except (RunError, ValueError) as error:
            warnings.warn(f"execution 'processes' could not be measured and is not considered: {error}", stacklevel=2)
    modes: tuple[Mode, ...] = ("loop", "processes", "batched")  # where two tie, the simpler
    return Choice(min((mode for mode in modes if mode in found), key=found.__getitem__), found)


def _could_pay(seconds: float, chains: int, workers: int) -> bool:
    """Whether processes that share so many seconds of work evenly would win back their starts, measured and real."""
    return seconds - seconds / workers > START_SECONDS * (1 + math.ceil(chains / workers))


def _can_share(chain: Chain, workers: int) -> bool:
    on_cpu = next(iter(chain.parameters.values())).device.type == "cpu"
    return on_cpu and memory.fits(chain, workers)


def seconds_per_step(make: Callable[[int], Chain], chains: int) -> dict[str, float]:
    """Seconds that one step of all chains takes in this process, in a loop and (where that can be) batched.

    Parameters
    ----------
    make : callable
        As for `choose`.
    chains : int
    """
    first = make(0)
    found = {"loop": chains * _seconds(first.advance)}
    if obstacle(first) is None and chains > 1 and memory.fits(first, chains):
        found["batched"] = _seconds(BatchedChains([make(index) for index in range(chains)]).advance)
    return found


def side_by_side(commands: Sequence[Sequence[str]], limit: float) -> tuple[float, float]:
    """Seconds that processes need to start, and for a step while all of them take steps: those of the slowest.

    Parameters
    ----------
    commands : sequence of command lines
        As for `choose`.
    limit : float
        Seconds until the processes are killed. None of them outlives this function.

    Raises
    ------
    RunError
        If a process fails or is too late.
    """
    began = time.monotonic()
    with ExitStack() as running:
        processes = [running.enter_context(_running(command, limit)) for command in commands]
        for process in processes:
            _listen(process)
        start = time.monotonic() - began
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()  # the word to go
        return start, max(float(_listen(process)) for process in processes)


def be_measured(step: Callable[[], Any]) -> None:
    """What a process does for `side_by_side`: warm up, say so, wait for the others, and print the seconds of a step.

    The word to go is the end of standard input, which also comes when the parent dies.
    """
    output = sys.stdout
    with redirect_stdout(sys.stderr):  # a network may print
        for _ in range(WARM_UP):
            step()
        print("ready", file=output, flush=True)
        sys.stdin.read()
        print(_typical(step), file=output, flush=True)


@contextmanager
def _running(command: Sequence[str], limit: float) -> "Iterator[subprocess.Popen[str]]":
    """Start a process as a run would, and kill it at the end or at the limit."""
    process = start_worker(command)
    alarm = threading.Timer(limit, process.kill)
    alarm.start()
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        alarm.cancel()


def _listen(process: "subprocess.Popen[str]") -> str:
    """The next line that a process says; RunError with its last complaint if it has ended instead."""
    assert process.stdout is not None
    assert process.stderr is not None
    if line := process.stdout.readline():
        return line
    complaints = process.stderr.read().strip().splitlines()
    raise RunError(complaints[-1] if complaints else "a process that was measured ended, or was too late")


def _seconds(step: Callable[[], Any]) -> float:
    """Typical time of a call, after a few that do not count."""
    for _ in range(WARM_UP):
        step()
    return _typical(step)


def _typical(step: Callable[[], Any]) -> float:
    """Median time of a call."""
    times: list[float] = []
    while len(times) < LEAST or (len(times) < MOST and sum(times) < SECONDS):
        began = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
