"""What a sampler refuses: settings and parameters that it cannot use, and gradients, before anything moves."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.errors import RunError
from sgmcmc_prune.noise import check_key
from sgmcmc_prune.preconditioners import Preconditioner
from sgmcmc_prune.settings import check_integer, check_number

#: How far below its floor a mass may be, relative to it.
ROUNDING = 1e-6


def check_known(given: Iterable[str], known: Sequence[str], taker: str) -> None:
    """TypeError for a setting that is not known, with the one that may have been meant."""
    for name in given:
        if name not in known:
            meant = difflib.get_close_matches(name, known, 1)
            guess = f"; did you mean {meant[0]!r}?" if meant else "."
            raise TypeError(f"{taker} takes no setting {name!r}{guess} It takes {', '.join(known)}")


def check_settings(group: Mapping[str, Any]) -> None:
    """One line for a setting out of range (NaN included), or of another type."""
    for name in ("lr", "temperature", "momentum"):
        check_number(name, group.get(name, 0.0))
    check_num_data(group["num_data"])
    check_key(group["seed"], group["chain"])
    if not (group["lr"] > 0 and math.isfinite(group["lr"])):
        raise ValueError(f"lr is {group['lr']}; a sampler needs a finite step size > 0")
    if not (group["temperature"] >= 0 and math.isfinite(group["temperature"])):
        raise ValueError(f"temperature is {group['temperature']}; it must be finite and >= 0 (1 is the posterior)")
    if not 0 <= group.get("momentum", 0.0) < 1:
        raise ValueError(f"momentum is {group['momentum']}; it must be in [0, 1)")


def check_num_data(num_data: int) -> None:
    """Refuse anything but a count of examples."""
    check_integer("num_data", num_data, ", the number of training examples")
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
        gradient = p.grad if p.requires_grad else p
        if gradient is None:
            raise ValueError(
                f"parameter {name!r} has no gradient at step {step}; call backward() before step(), or set its "
                "requires_grad to False if it is to rest"
            )
        if gradient.is_sparse:
            raise TypeError(f"the gradient of {name!r} is sparse; samplers need dense gradients")


def moves(p: Tensor) -> bool:
    """Whether a step moves a parameter. One that requires no gradient rests, whatever is left in its `.grad`."""
    return p.requires_grad and p.grad is not None


def moving(parameters: Sequence[Tensor]) -> list[bool]:
    """Which of some parameters a step moves."""
    return [moves(p) for p in parameters]


def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Whether every gradient is finite.

    A sum is finite only if all of its terms are, so the sum of everything goes to the host, and nothing else does; a
    sum that overflows is looked into.
    """
    gradients = [p.grad for p in parameters if p.grad is not None and moves(p)]
    sums = [g.sum(dtype=torch.float32) for g in gradients]
    total = float(torch.stack([s.to(sums[0].device) for s in sums]).sum()) if sums else 0.0
    return math.isfinite(total) or all(bool(g.isfinite().all()) for g in gradients)


def not_finite(parameters: Iterable[tuple[str, Tensor]], step: int) -> RunError:
    """What is raised for a gradient that is infinite or NaN: the chain has diverged."""
    bad = next(name for name, p in parameters if moves(p) and not bool(p.grad.isfinite().all()))  # type: ignore[union-attr]
    return RunError(
        f"the gradient of {bad!r} is not finite at step {step}; no parameter was moved. Lower the step size, "
        "or look for infinite or missing values in the data"
    )


def check_mass(preconditioner: Preconditioner, name: str, p: Tensor, mass: Tensor) -> None:
    """RunError unless a mass is that of its parameter, and no smaller than its matrix says (to rounding)."""
    kind, floor = type(preconditioner).__name__, preconditioner.min_mass
    if mass.dim() and mass.shape != p.shape:
        raise RunError(
            f"the mass matrix {kind} gives {name!r} a mass of shape {tuple(mass.shape)}; it must be a scalar or of "
            f"shape {tuple(p.shape)}"
        )
    if bool(((mass >= floor * (1 - ROUNDING)) & mass.isfinite()).all()):  # the only wait for a device
        return
    if not bool((mass > 0).all()) or not bool(mass.isfinite().all()):
        raise RunError(f"the mass matrix {kind} gives {name!r} masses that are not positive and finite")
    raise RunError(
        f"the mass matrix {kind} gives {name!r} a mass of {float(mass.min()):.3g}, below its min_mass, {floor:g}, "
        "by which the longest step and the narrowest prior are chosen; declare the smallest mass that it can give"
    )


Place = tuple[torch.Size, torch.dtype, torch.device]


def check_places(parameters: Sequence[tuple[str, Tensor]], places: Sequence[Place]) -> None:
    """Refuse parameters that changed shape, type or device after the sampler was made; its state stayed behind."""
    for (name, p), (shape, dtype, device) in zip(parameters, places, strict=True):
        if (p.shape, p.dtype, p.device) != (shape, dtype, device):
            raise ValueError(
                f"parameter {name!r} is {p.dtype} of shape {tuple(p.shape)} on {p.device}, but was {dtype} of shape "
                f"{tuple(shape)} on {device} when the sampler was made; change the model first, then make the sampler"
            )


def check_parameter(name: str, p: Tensor) -> None:
    """Refuse a parameter that is complex or sparse, or has fewer digits than float32."""
    if p.is_complex() or p.is_sparse:
        raise TypeError(f"parameter {name!r} is complex or sparse; samplers need dense real parameters")
    if not p.is_floating_point() or torch.finfo(p.dtype).bits < 32:
        raise TypeError(
            f"parameter {name!r} is {p.dtype}, in which most of a sampler's small steps round to nothing; keep weights "
            "in float32 and run the network under torch.autocast"
        )


def check_distinct(named: Iterable[tuple[str, Tensor]], earlier: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse two parameters of one name, which masks, priors and states could not tell apart, and one of two names."""
    owners, by_name = {id(p): name for name, p in earlier}, {name for name, _ in earlier}
    for name, p in named:
        if id(p) in owners:
            raise ValueError(f"{owners[id(p)]!r} and {name!r} are one parameter; give it once")
        if name in by_name:
            raise ValueError(f"two parameters are named {name!r}; give all the named parameters of one module")
        owners[id(p)] = name
        by_name.add(name)
