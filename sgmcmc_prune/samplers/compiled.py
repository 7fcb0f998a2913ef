"""The compiled tier: a step of SGHMC or SGLD for all tensors of a parameter group in one pass over memory, on a CPU.

The rules are `sghmc.sghmc` and `sgld.sgld`, with the prior's force, the mass matrix, the mask and the noise fused in.
They agree with the reference to rounding, from the same random words. What the kernels cannot express (a prior without
a fused form, a mass matrix that is still adapting) torch computes first, and hands over as the gradient.
"""

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sgmcmc_prune import native
from sgmcmc_prune.noise import Stream, rademacher, standard_normal
from sgmcmc_prune.priors.base import FusedForm

if TYPE_CHECKING:
    from sgmcmc_prune.samplers.base import Sampler

FLAT = FusedForm("flat", {})


def noise(group: dict[str, Any], stream: Stream, offset: int, count: int, device: torch.device) -> Tensor:
    """Noise of a group's step for parameters offset, ..., offset + count - 1; momenta are Gaussian always."""
    key = (group["seed"], group["chain"], group["step"], offset, count, stream, device)
    if group["noise"] == "rademacher" and stream == Stream.LANGEVIN:
        return rademacher(*key)
    return native.standard_normal(*key) if group["implementation"] == "compiled" else standard_normal(*key)


def all_finite(sampler: "Sampler", group: dict[str, Any]) -> bool:
    """Whether every gradient of a group is finite, in one pass over them."""
    table, _, parameters = _live(sampler, group)
    table.point(weight=parameters, gradient=_laid_out([p.grad for p in parameters], parameters))
    return native.all_finite(table)


def step_group(sampler: "Sampler", group: dict[str, Any]) -> None:
    """One step of a parameter group of an `SGHMC` or an `SGLD`, after `all_finite` has looked at it."""
    table, names, parameters = _live(sampler, group)
    _set_forces(sampler, group, table, names, parameters)
    states = [sampler.state[p] for p in parameters]
    table.point(mass=_laid_out([s.get("mass") for s in states], parameters), mask=[s.get("mask") for s in states])
    lr, temperature, num_data = group["lr"], group["temperature"], group["num_data"]
    kind = group["noise"] if temperature > 0 else "none"
    if kind != "none" and not all(p.is_contiguous() for p in parameters):
        ordered = _ordered_noise(group, parameters, table.rows["offset"].tolist())
        table.point(noise=_laid_out(ordered, parameters))
    scalars = {key: group[key] for key in ("seed", "chain", "step")}
    scalars |= {"stream": int(Stream.LANGEVIN), "noise": kind, "lr": lr, "num_data": num_data}
    if "momentum" in group:
        beta = group["momentum"]
        buffers, rescale = sampler.buffers(parameters, group)  # type: ignore[attr-defined]
        table.point(buffer=buffers)
        scale = math.sqrt(2 * (1 - beta) * temperature / (num_data * lr))
        native.sghmc_step(table, native.settings(**scalars, momentum=beta, rescale=rescale, noise_scale=scale))
    else:
        native.sgld_step(table, native.settings(**scalars, noise_scale=math.sqrt(2 * lr * temperature / num_data)))


def _live(sampler: "Sampler", group: dict[str, Any]) -> tuple[native.TensorTable, list[str], list[Tensor]]:
    """The parameters of a group that move, and their table, made once: only its pointers change from step to step."""
    names, parameters = group["param_names"], group["params"]
    live = [i for i, p in enumerate(parameters) if p.grad is not None]
    in_order = all(p.is_contiguous() for p in parameters)
    key = (group["offset"], in_order, *live)
    if len(live) < len(parameters):
        names, parameters = [names[i] for i in live], [parameters[i] for i in live]
    if key not in sampler.tables:
        ends = list(accumulate((p.numel() for p in group["params"]), initial=group["offset"]))
        sampler.tables[key] = native.TensorTable(parameters, [ends[i] for i in live])
    return sampler.tables[key], names, parameters


def _set_forces(
    sampler: "Sampler", group: dict[str, Any], table: native.TensorTable, names: list[str], parameters: list[Tensor]
) -> None:
    """Leave the prior to the kernel where it has a form; else torch computes the force, which replaces the gradient."""
    adapting = group["adapting"] and sampler.preconditioner.adapts
    forces: dict[int, Tensor] = {}
    held: dict[int, Tensor] = {}
    for row, (name, p) in enumerate(zip(names, parameters, strict=True)):
        form = sampler.prior.fused_form(name) if sampler.prior is not None else FLAT
        if form is None or adapting:
            force, form = sampler.force(name, p, group["num_data"]), FLAT
            if adapting:
                sampler.preconditioner.observe(sampler.state[p], force)
            forces[row] = force
        table.set_prior(row, form.kind, form.numbers)
        if form.held is not None:
            held[row] = form.held
    if held:
        table.point(held=_laid_out([held.get(row) for row in range(len(parameters))], parameters))
    if forces:
        gradients = [forces.get(row, p.grad) for row, p in enumerate(parameters)]
        table.point(gradient=_laid_out(gradients, parameters))


def _ordered_noise(group: dict[str, Any], parameters: list[Tensor], offsets: list[int]) -> list[Tensor | None]:
    """Noise for weights that lie in memory in another order than their indices; None leaves it to the kernel."""
    return [
        None if p.is_contiguous() else noise(group, Stream.LANGEVIN, start, p.numel(), p.device).view_as(p)
        for p, start in zip(parameters, offsets, strict=True)
    ]


def _laid_out(tensors: list[Any], parameters: list[Tensor]) -> list[Any]:
    """Each tensor in the shape and memory order of its parameter: the kernels walk along memory."""
    return [
        x
        if x is None
        or (x.is_contiguous() and p.is_contiguous() and x.numel() == p.numel())
        or (x.shape == p.shape and x.stride() == p.stride())
        else torch.empty_like(p, dtype=x.dtype).copy_(x)
        for x, p in zip(tensors, parameters, strict=True)
    ]
