"""The compiled tier: a step of SGHMC or SGLD for all tensors of a parameter group in one pass over memory, on a CPU.

The kernels are in `native`; what they are told is a `step.Step`. They agree with the reference to rounding, from the
same random words.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune import native
from sgmcmc_prune import noise as reference_noise
from sgmcmc_prune.noise import Stream
from sgmcmc_prune.samplers.step import Step


def noise(group: Mapping[str, Any], stream: Stream, offset: int, count: int, device: torch.device) -> Tensor:
    """Noise of a group's step for parameters offset, ..., offset + count - 1; momenta are Gaussian always."""
    key = (group["seed"], group["chain"], group["step"], offset, count, stream, device)
    maker = native if group["implementation"] == "compiled" else reference_noise
    if group["noise"] == "rademacher" and stream == Stream.LANGEVIN:
        return maker.rademacher(*key)
    return maker.standard_normal(*key)


def noise_of_parameters(group: Mapping[str, Any], stream: Stream) -> list[Tensor]:
    """Noise of a group's step for each of its parameters: one flat draw, viewed per tensor.

    Where the group has `places` (`Sampler.take_noise_of`), each weight gets the number of its place.
    """
    params, places = group["params"], group.get("places")
    sizes = [p.numel() for p in params]
    count = sum(sizes) if places is None else places.span
    flat = noise(group, stream, group["offset"], count, params[0].device)
    flat = flat if places is None else flat[places.numbers]
    return [z.view_as(p) for z, p in zip(flat.split(sizes), params, strict=True)]


def all_finite(step: Step) -> bool:
    """Whether every gradient of a step is finite, in one pass over them."""
    return native.all_finite(step.table)


def take(step: Step) -> None:
    """One step of SGHMC, or without momentum of SGLD."""
    table, group = step.table, step.group
    if group["temperature"] > 0 and ("places" in group or not table.contiguous):
        table.point(noise=_ordered_noise(step))
    kernel = native.sghmc_step if "momentum" in group else native.sgld_step
    kernel(table, step.scalars)
    table.release()


def _ordered_noise(step: Step) -> list[Tensor | None]:
    """Noise for weights that lie in memory in another order than their indices; None leaves it to the kernel.

    If the group has places the kernel does not know them, and all is made here.
    """
    if "places" in step.group:
        found = dict(zip(step.group["param_names"], noise_of_parameters(step.group, Stream.LANGEVIN), strict=True))
        return [found[name] for name in step.names]
    return [
        None if p.is_contiguous() else noise(step.group, Stream.LANGEVIN, start, p.numel(), p.device).view_as(p)
        for p, start in zip(step.parameters, step.table.rows["offset"].tolist(), strict=True)
    ]
