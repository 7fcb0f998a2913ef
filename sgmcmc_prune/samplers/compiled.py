"""The compiled tier: a step of SGHMC or SGLD for all tensors of a parameter group in one pass over memory, on a CPU.

The kernels are in `native`; what they are told is in `fused`. They agree with the reference to rounding, from the same
random words.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sgmcmc_prune import native
from sgmcmc_prune import noise as reference_noise
from sgmcmc_prune.noise import Stream
from sgmcmc_prune.samplers import fused

if TYPE_CHECKING:
    from sgmcmc_prune.samplers.base import Sampler


def noise(group: dict[str, Any], stream: Stream, offset: int, count: int, device: torch.device) -> Tensor:
    """Noise of a group's step for parameters offset, ..., offset + count - 1; momenta are Gaussian always."""
    key = (group["seed"], group["chain"], group["step"], offset, count, stream, device)
    maker = native if group["implementation"] == "compiled" else reference_noise
    if group["noise"] == "rademacher" and stream == Stream.LANGEVIN:
        return maker.rademacher(*key)
    return maker.standard_normal(*key)


def all_finite(sampler: "Sampler", group: dict[str, Any]) -> bool:
    """Whether every gradient of a group is finite, in one pass over them."""
    return native.all_finite(fused.point_at_gradients(sampler, group))


def step_group(sampler: "Sampler", group: dict[str, Any]) -> None:
    """One step of a parameter group of an `SGHMC` or an `SGLD`, after `follow_memory` and `all_finite`."""
    table, scalars, parameters = fused.describe(sampler, group)
    if group["temperature"] > 0 and not table.contiguous:
        table.point(noise=_ordered_noise(group, parameters, table.rows["offset"].tolist()))
    kernel = native.sghmc_step if "momentum" in group else native.sgld_step
    kernel(table, scalars)
    table.release()


def _ordered_noise(group: dict[str, Any], parameters: list[Tensor], offsets: list[int]) -> list[Tensor | None]:
    """Noise for weights that lie in memory in another order than their indices; None leaves it to the kernel."""
    return [
        None if p.is_contiguous() else noise(group, Stream.LANGEVIN, start, p.numel(), p.device).view_as(p)
        for p, start in zip(parameters, offsets, strict=True)
    ]
