"""What a sampler refuses: settings out of range, gradients it cannot use, a saved state that is another sampler's."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.errors import RunError

#: Settings of a parameter group that make its chain another chain when they change.
IDENTITY = ("sampler", "form", "preconditioner", "noise", "num_data", "seed", "chain")


def check_settings(group: Mapping[str, Any]) -> None:
    """One line for a setting out of range (NaN included)."""
    if not (group["lr"] > 0 and math.isfinite(group["lr"])):
        raise ValueError(f"lr is {group['lr']}; a sampler needs a finite step size > 0")
    if not (group["temperature"] >= 0 and math.isfinite(group["temperature"])):
        raise ValueError(f"temperature is {group['temperature']}; it must be finite and >= 0 (1 is the posterior)")
    if not 0 <= group.get("momentum", 0.0) < 1:
        raise ValueError(f"momentum is {group['momentum']}; it must be in [0, 1)")


def check_num_data(num_data: object) -> None:
    """Refuse anything but a count of examples."""
    if isinstance(num_data, bool) or not isinstance(num_data, int):
        raise TypeError(f"num_data is {num_data!r}; it must be an integer, the number of training examples")
    if num_data <= 0:
        raise ValueError(f"num_data is {num_data}; it must be the number of training examples, at least 1")


def check_gradients(parameters: Iterable[tuple[str, Tensor]], step: int) -> None:
    """Refuse a step whose gradients are missing or sparse, before anything moves.

    Raises
    ------
    ValueError, TypeError
        A parameter that requires a gradient and has none; a sparse gradient.
    """
    for name, p in parameters:
        if p.grad is None:
            if p.requires_grad:
                raise ValueError(
                    f"parameter {name!r} has no gradient at step {step}; call backward() before step(), or set its "
                    "requires_grad to False if it is to rest"
                )
        elif p.grad.is_sparse:
            raise TypeError(f"the gradient of {name!r} is sparse; samplers need dense gradients")


def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Whether every gradient is finite.

    A sum is finite only if all of its terms are, so the sum of everything goes to the host, and nothing else does; a
    sum that overflows is looked into.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    sums = [g.sum(dtype=torch.float32) for g in gradients]
    total = float(torch.stack([s.to(sums[0].device) for s in sums]).sum()) if sums else 0.0
    return math.isfinite(total) or all(bool(g.isfinite().all()) for g in gradients)


def not_finite(parameters: Iterable[tuple[str, Tensor]], step: int) -> RunError:
    """What is raised for a gradient that is infinite or NaN: the chain has diverged."""
    bad = next(name for name, p in parameters if p.grad is not None and not bool(p.grad.isfinite().all()))
    return RunError(
        f"the gradient of {bad!r} is not finite at step {step}; no parameter was moved. Lower the step size, "
        "or look for infinite or missing values in the data"
    )


def check_places(parameters: Sequence[tuple[str, Tensor]], places: Sequence[tuple[torch.device, torch.dtype]]) -> None:
    """Refuse parameters that changed device or type after the sampler was made; its state stayed behind."""
    for (name, p), (device, dtype) in zip(parameters, places, strict=True):
        if p.device != device or p.dtype != dtype:
            raise ValueError(
                f"parameter {name!r} is {p.dtype} on {p.device}, but was {dtype} on {device} when the sampler was "
                "made; move the model first, then make the sampler"
            )


def check_same_chain(saved: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse the saved parameter groups of another chain; ValueError names the setting that differs."""
    for old, group in zip(saved, groups, strict=False):
        for field in IDENTITY:
            if old.get(field) != group.get(field):
                raise ValueError(
                    f"the saved sampler has {field} {old.get(field)!r}, this one {group.get(field)!r}; a resumed chain "
                    "must have the same (lr, momentum and temperature may change)"
                )


def check_parameter(name: str, p: Tensor) -> None:
    """Refuse a parameter that is complex or sparse."""
    if p.is_complex() or p.is_sparse:
        raise TypeError(f"parameter {name!r} is complex or sparse; samplers need dense real parameters")
