"""The compiled tier: a step of SGHMC or SGLD for all tensors of a parameter group in one pass over memory, on a CPU.

The rules are `sghmc.sghmc` and `sgld.sgld`, with the prior's force, the mass matrix, the mask and the noise fused in.
They agree with the reference to rounding, from the same random words. What the kernels cannot express (a prior without
a fused form, a mass matrix that is still adapting) torch computes first, and hands over as the gradient.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sgmcmc_prune import native
from sgmcmc_prune.noise import Stream, rademacher, standard_normal

if TYPE_CHECKING:
    from sgmcmc_prune.samplers.base import Sampler


def noise(group: dict[str, Any], stream: Stream, offset: int, count: int, device: torch.device) -> Tensor:
    """Noise of a group's step for parameters offset, ..., offset + count - 1; momenta are Gaussian always."""
    key = (group["seed"], group["chain"], group["step"], offset, count, stream, device)
    if group["noise"] == "rademacher" and stream == Stream.LANGEVIN:
        return rademacher(*key)
    return native.standard_normal(*key) if group["implementation"] == "compiled" else standard_normal(*key)


def step_group(sampler: "Sampler", group: dict[str, Any]) -> None:
    """One step of a parameter group of an `SGHMC` or an `SGLD`."""
    rows, offset = [], group["offset"]
    for name, p in zip(group["param_names"], group["params"], strict=True):
        if p.grad is not None:
            rows.append((name, p, offset))
        offset += p.numel()
    if not rows:
        return
    parameters = [p for _, p, _ in rows]
    states = [sampler.state[p] for p in parameters]
    table = native.TensorTable(parameters, [start for _, _, start in rows])
    table.point(gradient=[_gradient(sampler, table, row, name, p, group) for row, (name, p, _) in enumerate(rows)])
    table.point(mass=[_laid_out(s.get("mass"), p) for s, p in zip(states, parameters, strict=True)])
    table.point(mask=[s.get("mask") for s in states])
    lr, temperature, num_data = group["lr"], group["temperature"], group["num_data"]
    kind = group["noise"] if temperature > 0 else "none"
    if kind != "none":
        table.point(noise=[_ordered_noise(p, start, group) for _, p, start in rows])
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


def _gradient(
    sampler: "Sampler", table: native.TensorTable, row: int, name: str, p: Tensor, group: dict[str, Any]
) -> Tensor:
    """The gradient, with the prior left to the kernel; or the force, where torch must compute it."""
    adapting = group["adapting"] and sampler.preconditioner.adapts
    form = sampler.prior.fused_form(name) if sampler.prior is not None else ("flat", {})
    if form is None or adapting:
        force = sampler.force(name, p, group["num_data"])
        if adapting:
            sampler.preconditioner.observe(sampler.state[p], force)
        return _laid_out(force, p)
    table.set_prior(row, form[0], **form[1])
    return _laid_out(p.grad, p)


def _ordered_noise(p: Tensor, offset: int, group: dict[str, Any]) -> Tensor | None:
    """Noise for a weight that lies in memory in another order than its indices; None leaves it to the kernel."""
    if p.is_contiguous():
        return None
    return _laid_out(noise(group, Stream.LANGEVIN, offset, p.numel(), p.device).view_as(p), p)


def _laid_out(x: Any, p: Tensor) -> Any:
    """`x` in the shape and memory order of `p`: the kernels walk along memory."""
    if x is None or (x.shape == p.shape and x.stride() == p.stride()):
        return x
    return torch.empty_like(p, dtype=x.dtype).copy_(x)
