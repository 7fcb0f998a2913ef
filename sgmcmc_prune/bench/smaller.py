"""`bench smaller`: the steps of a chain on a cut network beside those of the masked chain that it continues.

Both take the same steps, with minibatches, prior, noise and EM: one carries the zeros of the nodes that a mask emptied
along, the other does not. Times are those of the processor, so that other work on the machine counts less.
"""

import time
from typing import Any

from sgmcmc_prune.bench import train
from sgmcmc_prune.bench.latency import random_nodes
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.chains.smaller import cut
from sgmcmc_prune.machine import timing
from sgmcmc_prune.models import num_parameters
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.samplers.tiers import Noise
from sgmcmc_prune.text_table import format_rows

#: Shares of the nodes of every layer but the last that the mask empties.
SHARES = (0.25, 0.5, 0.75, 0.9)


def bench_smaller(
    networks: tuple[str, ...] = ("mlp", "lenet"), rounds: int = 31, batch_size: int = 128, progress: bool = True
) -> dict[str, Any]:
    """Measure every network at every share, on a CPU.

    Returns
    -------
    dict
        `machine` and `rows`: network, noise, share, parameters and multiply_adds of the cut network, milliseconds of a
        step of the masked and of the cut chain, and the ratio of the masked chain's time to the cut chain's with its
        95 % interval: the speed-up.
    """
    rows = []
    for network in networks:
        candidates, sizes = _chains(network, batch_size)
        block = train.NETWORKS[network][1]
        steps = {name: timing.block(chain.advance, block) for name, chain in candidates.items()}
        seconds = timing.interleaved(steps, rounds, 2, f"bench smaller {network}", progress, clock=time.process_time)
        for (share, noise), size in sizes.items():
            masked, small = seconds[f"masked {share} {noise}"], seconds[f"cut {share} {noise}"]
            typical = (1e3 * sorted(each)[rounds // 2] / block for each in (masked, small))
            times = dict(zip(("masked_milliseconds", "cut_milliseconds"), typical, strict=True))
            labels = {"network": network, "noise": noise, "share": share}
            rows.append({**labels, **size, **times, "speed_up": vars(timing.paired_ratio(masked, small))})
    return {
        "bench": "smaller",
        "machine": timing.machine(),
        "clock": "processor",
        "batch_size": batch_size,
        "rounds": rounds,
        "rows": rows,
    }


def _chains(network: str, batch_size: int) -> tuple[dict[str, Chain], dict[tuple[float, Noise], dict[str, Any]]]:
    """The masked and the cut chain at every share and with either noise, and the size of the cut network."""
    candidates: dict[str, Chain] = {}
    sizes: dict[tuple[float, Noise], dict[str, Any]] = {}
    noises: tuple[Noise, ...] = ("gaussian", "rademacher")
    for share in SHARES:
        for noise in noises:
            masked, large = (_masked(network, share, noise, batch_size) for _ in range(2))
            small = cut(large)
            masked.set_mask(large.mask)
            candidates |= {f"masked {share} {noise}": masked, f"cut {share} {noise}": small}
            example = large.stream.batch(0)[0][:1]
            computed = {"multiply_adds": multiply_adds(small.model, example)}
            sizes[share, noise] = {"parameters": num_parameters(small.model), **computed}
    return candidates, sizes


def _masked(network: str, share: float, noise: Noise, batch_size: int) -> Chain:
    """A chain that explores, with EM, under a mask of whole nodes."""
    chain = train.chain(network, train.NETWORKS[network][0], batch_size, "cpu", noise=noise)
    chain.schedule = Cyclical(1e-3, 1e-3, 1e-4, 0.9, 1.0, burn_in=0, cycles=1, explore=10**6, sample=1)
    chain.adapt = ("explore",)
    chain.advance()
    chain.set_mask(random_nodes(network, share).mask)
    return chain


def table(result: dict[str, Any]) -> str:
    """The result as aligned text."""
    header = (
        "network",
        "noise",
        "nodes empty",
        "parameters",
        "multiply-adds",
        "ms masked",
        "ms cut",
        "masked / cut [95 %]",
    )
    rows = [
        [
            r["network"],
            r["noise"],
            f"{r['share']:.0%}",
            f"{r['parameters']:,}",
            f"{r['multiply_adds']:,}",
            f"{r['masked_milliseconds']:.3f}",
            f"{r['cut_milliseconds']:.3f}",
            str(timing.Ratio(**r["speed_up"])),
        ]
        for r in result["rows"]
    ]
    return format_rows(header, rows)
