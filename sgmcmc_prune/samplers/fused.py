"""What a fused kernel is told of a step of SGHMC or SGLD: where the tensors of a group lie, their priors, the scalars.

The rules are `sghmc.sghmc` and `sgld.sgld`, with the prior's force, the mass matrix, the mask and the noise fused in.
What kernels cannot express (a prior without a fused form, a mass matrix that is still adapting) torch computes first,
and hands over as the gradient. The kernels are C (`compiled`) or Triton (`triton_tier`).
"""

import math
from itertools import accumulate, compress
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sgmcmc_prune import native
from sgmcmc_prune.noise import Stream
from sgmcmc_prune.priors.base import FusedForm
from sgmcmc_prune.samplers.checks import moving

if TYPE_CHECKING:
    from sgmcmc_prune.samplers.base import Sampler

FLAT = FusedForm("flat", {})


def moving_table(sampler: "Sampler", group: dict[str, Any]) -> tuple[native.TensorTable, list[str], list[Tensor]]:
    """The parameters of a group that move, and their table, made once: only its pointers change from step to step."""
    names, parameters = group["param_names"], group["params"]
    live = moving(parameters)
    if not all(live):
        names, parameters = list(compress(names, live)), list(compress(parameters, live))
    key = tuple(names)
    if key not in sampler.tables:
        ends = accumulate((p.numel() for p in group["params"]), initial=group["offset"])
        sampler.tables[key] = native.TensorTable(parameters, list(compress(ends, live)))
    return sampler.tables[key], names, parameters


def point_at_gradients(sampler: "Sampler", group: dict[str, Any]) -> native.TensorTable:
    """The table of a group, with the gradients of this step; `describe` finds it."""
    table, names, parameters = moving_table(sampler, group)
    table.point(gradient=[p.grad for p in parameters])
    sampler.pointed[group["offset"], len(group["params"])] = table, names, parameters
    return table


def describe(sampler: "Sampler", group: dict[str, Any]) -> tuple[native.TensorTable, bytes, list[Tensor]]:
    """The table of a group, complete but for given noise, the scalars of the step, and the parameters.

    `point_at_gradients` comes first.
    """
    table, names, parameters = sampler.pointed[group["offset"], len(group["params"])]
    _set_forces(sampler, group, table, names, parameters)
    states = [sampler.state[p] for p in parameters]
    table.point(mass=[s.get("mass") for s in states], mask=[s.get("mask") for s in states])
    lr, temperature, num_data = group["lr"], group["temperature"], group["num_data"]
    scalars = {key: group[key] for key in ("seed", "chain", "step", "lr", "num_data")}
    scalars |= {"stream": int(Stream.LANGEVIN), "noise": group["noise"] if temperature > 0 else "none"}
    if "momentum" in group:
        beta = group["momentum"]
        buffers, rescale = sampler.buffers(parameters, group)  # type: ignore[attr-defined]
        table.point(buffer=buffers)
        scale = math.sqrt(2 * (1 - beta) * temperature / (num_data * lr))
        scalars |= {"momentum": beta, "rescale": rescale, "noise_scale": scale}
    else:
        scalars["noise_scale"] = math.sqrt(2 * lr * temperature / num_data)
    return table, native.settings(**scalars), parameters


def _set_forces(
    sampler: "Sampler", group: dict[str, Any], table: native.TensorTable, names: list[str], parameters: list[Tensor]
) -> None:
    """Leave the prior to the kernel where it has a form; else torch computes the force, which replaces the gradient."""
    adapting = group["adapting"] and sampler.preconditioner.adapts
    forces: dict[int, Tensor] = {}
    held: dict[int, Tensor] = {}
    for row, (name, p) in enumerate(zip(names, parameters, strict=True)):
        form = sampler.prior.fused_form(sampler.prior_names[name]) if sampler.prior is not None else FLAT
        if form is None or adapting:
            force, form = sampler.force(name, p, group["num_data"]), FLAT
            if adapting:
                sampler.preconditioner.observe(sampler.state[p], force)
            forces[row] = force
        table.set_prior(row, form.kind, form.numbers)
        if form.held is not None:
            held[row] = form.held
    if held:
        table.point(held=[held.get(row) for row in range(len(parameters))])
    if forces:
        table.point(gradient=[forces.get(row, p.grad) for row, p in enumerate(parameters)])
