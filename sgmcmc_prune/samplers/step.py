"""What a tier is told of one step of a parameter group. A tier is a function of a `Step`, and knows no optimiser.

The optimiser collects: the tensors that move, their gradients, what it keeps of each, and the prior's force where a
kernel has no form of it. `begin` points a table of memory at the gradients, so that all groups can be looked at before
one of them moves; `complete` adds the rest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, compress
from typing import Any, NamedTuple

from torch import Tensor

from sgmcmc_prune.native import TensorTable, settings
from sgmcmc_prune.noise import Stream
from sgmcmc_prune.priors.base import FusedForm
from sgmcmc_prune.samplers.checks import moving


@dataclass
class Memory:
    """What tiers keep from step to step.

    Attributes
    ----------
    tables : dict
        Tables by the names of the tensors in them; only their pointers change between steps.
    flag : Tensor or None
        On a GPU: 0, or one more than the first step with a gradient that was not finite.
    """

    tables: dict[tuple[str, ...], TensorTable] = field(default_factory=dict)
    flag: Tensor | None = None


class NoisePlaces(NamedTuple):
    """Which numbers of a group's noise its weights take, of the first `span`."""

    numbers: Tensor
    span: int


@dataclass
class Step:
    """One step of the parameters of a group that move.

    Attributes
    ----------
    group : mapping
        The settings of the group: lr, temperature, num_data, seed, chain, step, noise, implementation, momentum.
    names, parameters : list
        Of what moves.
    table : TensorTable
        Where its tensors lie.
    memory : Memory
    scalars : bytes
        The settings as kernels read them; empty until `complete`.
    """

    group: Mapping[str, Any]
    names: list[str]
    parameters: list[Tensor]
    table: TensorTable
    memory: Memory
    scalars: bytes = b""


def begin(group: Mapping[str, Any], memory: Memory) -> Step:
    """The step of a group, with its table pointed at the gradients."""
    names, parameters = group["param_names"], group["params"]
    live = moving(parameters)
    if not all(live):
        names, parameters = list(compress(names, live)), list(compress(parameters, live))
    key = tuple(names)
    if key not in memory.tables:
        ends = accumulate((p.numel() for p in group["params"]), initial=group["offset"])
        memory.tables[key] = TensorTable(parameters, list(compress(ends, live)))
    table = memory.tables[key]
    table.point(gradient=[p.grad for p in parameters])
    return Step(group, names, parameters, table, memory)


def complete(
    step: Step,
    forms: Sequence[FusedForm],
    forces: Mapping[int, Tensor],
    states: Sequence[Mapping[str, Any]],
    momentum: tuple[list[Tensor], float] | None,
) -> None:
    """Add everything but noise that is given: then a tier can take the step.

    Parameters
    ----------
    step : Step
    forms : sequence of FusedForm
        The prior of each tensor.
    forces : mapping of int to Tensor
        Gradient and prior together, by the number of the tensor, where the kernel has no form of the prior.
    states : sequence of mapping
        `mass` and `mask` of each tensor, where there are any.
    momentum : (list of Tensor, float) or None
        The buffers, and the factor that puts them in the units of this step; None for an overdamped sampler.
    """
    table, group = step.table, step.group
    for row, form in enumerate(forms):
        table.set_prior(row, form.kind, form.numbers)
    if any(form.held is not None for form in forms):
        table.point(held=[form.held for form in forms])
    if forces:
        table.point(gradient=[forces.get(row, p.grad) for row, p in enumerate(step.parameters)])
    table.point(mass=[s.get("mass") for s in states], mask=[s.get("mask") for s in states])
    lr, temperature, num_data = group["lr"], group["temperature"], group["num_data"]
    scalars = {key: group[key] for key in ("seed", "chain", "step", "lr", "num_data")}
    scalars |= {"stream": int(Stream.LANGEVIN), "noise": group["noise"] if temperature > 0 else "none"}
    if momentum is not None:
        beta = group["momentum"]
        buffers, rescale = momentum
        table.point(buffer=buffers)
        scale = math.sqrt(2 * (1 - beta) * temperature / (num_data * lr))
        scalars |= {"momentum": beta, "rescale": rescale, "noise_scale": scale}
    else:
        scalars["noise_scale"] = math.sqrt(2 * lr * temperature / num_data)
    step.scalars = settings(**scalars)
