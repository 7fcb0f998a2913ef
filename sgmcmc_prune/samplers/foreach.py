"""The foreach tier: a step of SGHMC or SGLD for all tensors of a parameter group, one torch call an operation.

The rules are `sghmc.sghmc` and `sgld.sgld`, operation by operation, so the steps are those of the reference to the bit,
on any device and for any type; what is saved is a call of the interpreter, and a launch on a GPU, for every tensor.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sgmcmc_prune.noise import Stream

if TYPE_CHECKING:
    from sgmcmc_prune.samplers.base import Sampler


def step_group(sampler: "Sampler", group: dict[str, Any]) -> None:
    """One step of a parameter group of an `SGHMC` or an `SGLD`."""
    live = [i for i, p in enumerate(group["params"]) if p.grad is not None]
    if not live:
        return
    parameters = [group["params"][i] for i in live]
    forces = _forces(sampler, group, [group["param_names"][i] for i in live], parameters)
    noise = None
    if group["temperature"] > 0:
        drawn = sampler._noise(group, Stream.LANGEVIN)
        noise = [drawn[i] for i in live]
    states = [sampler.state[p] for p in parameters]
    if "momentum" in group:
        buffers, rescale = sampler.buffers(parameters, group)  # type: ignore[attr-defined]
        if rescale != 1:
            torch._foreach_mul_(buffers, rescale)
        sghmc(parameters, forces, noise, buffers, states, group)
    else:
        sgld(parameters, forces, noise, states, group)


def sghmc(
    parameters: list[Tensor],
    forces: list[Tensor],
    noise: list[Tensor] | None,
    buffers: list[Tensor],
    states: Sequence[dict[str, Any]],
    group: dict[str, Any],
) -> None:
    """`sghmc.sghmc` for many tensors, in place."""
    lr, momentum = group["lr"], group["momentum"]
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, forces)
    if noise is not None:
        scale = math.sqrt(2 * (1 - momentum) * group["temperature"] / (group["num_data"] * lr))
        torch._foreach_add_(buffers, _by_mass(torch._foreach_mul, noise, states, torch._foreach_sqrt), alpha=-scale)
    _mask(buffers, states)
    torch._foreach_add_(parameters, _by_mass(torch._foreach_div, buffers, states), alpha=-lr)


def sgld(
    parameters: list[Tensor],
    forces: list[Tensor],
    noise: list[Tensor] | None,
    states: Sequence[dict[str, Any]],
    group: dict[str, Any],
) -> None:
    """`sgld.sgld` for many tensors, in place, with a mass that does not depend on the position."""
    lr = group["lr"]
    torch._foreach_add_(parameters, _by_mass(torch._foreach_div, forces, states), alpha=-lr)
    if noise is not None:
        scale = math.sqrt(2 * lr * group["temperature"] / group["num_data"])
        torch._foreach_add_(parameters, _by_mass(torch._foreach_mul, noise, states, torch._foreach_rsqrt), alpha=scale)
    _mask(parameters, states)


def _forces(sampler: "Sampler", group: dict[str, Any], names: list[str], parameters: list[Tensor]) -> list[Tensor]:
    """The gradients plus the prior's share; a mass that is still adapting sees them."""
    forces: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
    if sampler.prior is not None:
        pulls = [sampler.prior.potential_gradient(name, p) for name, p in zip(names, parameters, strict=True)]
        forces = list(torch._foreach_add(forces, pulls, alpha=1 / group["num_data"]))
    if group["adapting"] and sampler.preconditioner.adapts:
        for p, force in zip(parameters, forces, strict=True):
            sampler.preconditioner.observe(sampler.state[p], force)
    return forces


def _by_mass(
    operation: Any, tensors: list[Tensor], states: Sequence[dict[str, Any]], power: Any = None
) -> list[Tensor]:
    """The tensors, those with a mass M multiplied or divided by M or a power of it."""
    rows = [i for i, state in enumerate(states) if state.get("mass") is not None]
    if not rows:
        return tensors
    masses = [states[i]["mass"] for i in rows]
    found = operation([tensors[i] for i in rows], power(masses) if power else masses)
    result = list(tensors)
    for i, x in zip(rows, found, strict=True):
        result[i] = x
    return result


def _mask(tensors: list[Tensor], states: Sequence[dict[str, Any]]) -> None:
    """Zero what is masked, in place."""
    rows = [i for i, state in enumerate(states) if "mask" in state]
    if rows:
        torch._foreach_mul_([tensors[i] for i in rows], [states[i]["mask"] for i in rows])
