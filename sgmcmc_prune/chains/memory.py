"""What chains hold in memory, estimated before anything is allocated: states and averages, not activations."""

import math
from pathlib import Path

import torch
from torch import Tensor

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.priors.spike_slab import SpikeSlab

#: float64 sums of an `InclusionAverage`, the prior's held state (float32) and its mark of life (boolean), a group.
BYTES_PER_GROUP = 7 * 8 + 4 + 1
#: Tensors shaped like a prunable parameter that `Moments` keeps.
MOMENTS = 2
#: Bytes a prunable weight that the masks on finished draws take: for the one chain whose averages are read, for each
#: chain the errors of its inclusion (both rounded up from what `benchmarks/evaluation.py` measures for ResNet-18), and
#: for each chain and row of the table a mask.
READ, ERRORS, MASK = 200, 12, 1 / 8


def chain_bytes(chain: Chain) -> int:
    """Bytes that a chain holds once it collects draws.

    Of every parameter the weight, its gradient and the sampler's state (momentum, mass and the average behind it); of
    matrices and kernels the two moments; of every group of a sparse prior its sums.
    """
    sampler = chain.sampler
    copies = 2 + ("momentum" in sampler.defaults) + 2 * sampler.preconditioner.adapts
    total = sum(copies * _bytes(p) for p in chain.parameters.values())
    total += sum(MOMENTS * _bytes(chain.parameters[name]) for name in chain.moments)
    if isinstance(chain.prior, SpikeSlab):
        total += sum(BYTES_PER_GROUP * layer.groups.num_groups for layer in chain.prior.layers.values())
    return total


def _bytes(p: Tensor) -> int:
    return p.numel() * p.element_size()


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def fits(chain: Chain, at_once: int) -> bool:
    """Whether that many chains like this one fit into what is free; yes where the system does not say."""
    free = free_bytes(_device(chain))
    return free is None or at_once * chain_bytes(chain) <= free


def evaluation_bytes(chain: Chain, chains: int, rows: int, processes: int = 1, here: int = 1) -> int:
    """Bytes that the masks of a table take on one machine, with single weights as groups.

    Parameters
    ----------
    chain : Chain
        One of the run.
    chains, rows : int
        Of the run: every row has a mask for each chain.
    processes, here : int
        Ranks that share the rows, and how many of them are on the machine.
    """
    weights = sum(chain.parameters[name].numel() for name in chain.moments)
    each = READ + chains * (ERRORS + math.ceil(rows / processes) * MASK)
    return math.ceil(here * each * weights)


def require_evaluation_memory(chain: Chain, chains: int, rows: int, processes: int = 1, here: int = 1) -> None:
    """Refuse a run whose masks could not be chosen on a CPU's memory; they are chosen when its chains are finished.

    Parameters are those of `evaluation_bytes`.

    Raises
    ------
    ValueError
        If the estimate is more than what is free.
    """
    need, free = evaluation_bytes(chain, chains, rows, processes, here), free_bytes(torch.device("cpu"))
    if free is not None and need > free:
        at_once = f" in {here} processes of one machine" if here > 1 else ""
        raise ValueError(
            f"masks on the finished draws of {chains} chains{at_once} need {need / 1e9:.2f} GB, and {free / 1e9:.2f} "
            f"GB are free; take fewer chains{' or processes' if here > 1 else ''}, a smaller network or a machine with "
            "more, or no prune.post_hoc"
        )


def require_memory(chain: Chain, at_once: int) -> None:
    """Refuse more chains than memory.

    Parameters
    ----------
    chain : Chain
        One of them.
    at_once : int
        How many are in memory at the same time.

    Raises
    ------
    ValueError
        If the estimate is more than what is free.
    """
    if not fits(chain, at_once):
        need, free = at_once * chain_bytes(chain), free_bytes(_device(chain)) or 0
        remedy = "take them with execution 'loop', one at a time" if at_once > 1 else "choose a smaller network"
        raise ValueError(
            f"chains in memory at once: {at_once}, which need {need / 1e9:.2f} GB on {_device(chain)} without "
            f"activations, and {free / 1e9:.2f} GB are free; {remedy}, or a device with more"
        )


def _device(chain: Chain) -> torch.device:
    return next(iter(chain.parameters.values())).device
