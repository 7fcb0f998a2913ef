"""`bench chains`: K chains in a loop, batched, and in processes; and what `auto` would choose.

Every mode takes the same chains through the same steps. Processes are started once and kept, so their time is that of a
long run; a measurement is a block of steps of all chains. The chains are those of `bench train`.
"""

import math
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

from sgmcmc_prune.bench import train
from sgmcmc_prune.chains import execution
from sgmcmc_prune.chains.batched import BatchedChains
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.processes import num_workers
from sgmcmc_prune.machine import timing
from sgmcmc_prune.text_table import format_rows

#: Steps of every chain in one measurement.
BLOCK = {"mlp": 20, "lenet": 4}
#: Of the long run for which `auto` chooses.
STEPS = 10**6
_CHAINS: dict[tuple[str, int, int], Chain] = {}


def bench_chains(
    networks: tuple[str, ...] = ("mlp", "lenet"),
    chains: int = 8,
    rounds: int = 15,
    batch_size: int = 128,
    progress: bool = True,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure every network; processes on a CPU alone, for they would share a GPU.

    Returns
    -------
    dict
        `machine`, `chains` and `rows`: network, what `auto` chooses for a long run, chain steps a second by mode as it
        predicted and as measured, and the ratio of its time to that of each mode with its 95 % interval.
    """
    workers = num_workers(chains) if device == "cpu" else 1
    # All choices come first: the processes of a benchmark that has just ended would disturb them.
    choices = {
        network: execution.choose(
            partial(make, network, batch_size=batch_size, device=device),
            chains,
            STEPS,
            measured(network, batch_size, workers) if device == "cpu" else [],
        )
        for network in networks
    }
    rows = []
    for network, choice in choices.items():
        candidates = modes(network, chains, batch_size, device)
        if device == "cpu":
            candidates["processes"] = processes(network, chains, batch_size, workers)
        seconds = timing.interleaved(candidates, rounds, 2, f"bench chains {network}", progress)
        done = BLOCK[network] * chains
        rows.append(
            {
                "network": network,
                "auto": choice.mode,
                "predicted_chain_steps_per_second": {
                    mode: STEPS * chains / s for mode, s in choice.predicted_seconds.items()
                },
                "chain_steps_per_second": {mode: done / sorted(s)[rounds // 2] for mode, s in seconds.items()},
                "ratio_of_auto": {
                    mode: vars(timing.paired_ratio(seconds[choice.mode], other)) for mode, other in seconds.items()
                },
            }
        )
    found = {"bench": "chains", "machine": timing.machine(), "chains": chains, "batch_size": batch_size}
    return {**found, "rounds": rounds, "rows": rows}


def make(network: str, index: int, batch_size: int, device: str = "cpu") -> Chain:
    """One chain of `bench train`."""
    return train.chain(network, train.NETWORKS[network][0], batch_size, device, index)


def measured(network: str, batch_size: int, workers: int) -> list[list[str]]:
    """Command lines of processes that `auto` measures, each with a chain of its own: this file."""
    threads = str(max(1, torch.get_num_threads() // workers))
    common = [sys.executable, "-m", __name__, network, str(batch_size), threads]
    return [[*common, str(index)] for index in range(workers)]


def modes(network: str, chains: int, batch_size: int, device: str) -> dict[str, Callable[[], Any]]:
    """A block of steps of all chains in this process."""
    block = BLOCK[network]
    alone = [make(network, k, batch_size, device) for k in range(chains)]
    together = BatchedChains([make(network, k, batch_size, device) for k in range(chains)])

    def loop() -> None:
        for chain in alone:
            timing.block(chain.advance, block)()

    return {"loop": loop, "batched": timing.block(together.advance, block)}


def processes(network: str, chains: int, batch_size: int, workers: int) -> Callable[[], Any]:
    """The same in processes."""
    threads = max(1, torch.get_num_threads() // workers)
    # One pool for each worker: a chain stays where it is.
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) for _ in range(workers)]

    def work() -> None:
        waiting = [pools[k % workers].submit(take, network, k, batch_size, BLOCK[network]) for k in range(chains)]
        for future in waiting:
            future.result()

    return work


def take(network: str, index: int, batch_size: int, steps: int) -> None:
    """Take some steps of a chain in this process, which keeps it."""
    key = network, index, batch_size
    if key not in _CHAINS:
        _CHAINS[key] = make(*key)
    timing.block(_CHAINS[key].advance, steps)()


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    header = ("network", "mode", "predicted chain steps/s", "measured", "", "time of auto / mode [95 %]")
    rows = [
        [
            row["network"],
            mode,
            f"{row['predicted_chain_steps_per_second'].get(mode, math.nan):,.0f}",
            f"{speed:,.0f}",
            "auto" if mode == row["auto"] else "",
            str(timing.Ratio(**row["ratio_of_auto"][mode])),
        ]
        for row in result["rows"]
        for mode, speed in row["chain_steps_per_second"].items()
    ]
    return format_rows(header, rows)


if __name__ == "__main__":
    network, batch_size, threads, index = sys.argv[1:]
    torch.set_num_threads(int(threads))
    execution.be_measured(make(network, int(index), int(batch_size)).advance)
