"""A rehearsal of a user's own prior at the start of a chain: what would go wrong in silence is refused."""

import copy
import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from sgmcmc_prune.priors.base import Prior

#: How far the point is from the start of the chain, where biases are zero; the step of the central difference; and how
#: far the slope may be from the force.
SHIFT, STEP, TOLERANCE = 0.1, 1e-4, 0.05


def rehearse_prior(prior: Prior, params: Mapping[str, Tensor], masked: Collection[str]) -> None:
    """See that a prior has a force like each weight, the slope of its log density, and leaves the weights alone.

    Parameters
    ----------
    prior : Prior
        Its latent variables stay as they are.
    params : mapping of str to Tensor
    masked : collection of str
        Those that masks will hold at zero; the density of the others must be finite then.

    Raises
    ------
    ValueError
        If a force has another shape or is not finite, the log density is no finite number, they do not agree (by a
        central difference along the force, within 5 %), or a weight was changed.
    """
    point = {name: p.detach().double() + SHIFT for name, p in params.items()}
    before = {name: w.clone() for name, w in point.items()}
    copy.deepcopy(prior).sample_latent(point, 0)
    _density(prior, point)
    forces = _forces(prior, point)
    if length := math.sqrt(sum(float(force.double().square().sum()) for force in forces.values())):
        _check_slope(prior, point, {name: force.double() / length for name, force in forces.items()}, length)
    if changed := [name for name, w in point.items() if not torch.equal(w, before[name])]:
        raise ValueError(f"it changes the weights {changed[0]!r} that it is given; work on copies (w * 2, not w *= 2)")
    if masked:
        trial, zeros = copy.deepcopy(prior), {name: torch.zeros_like(point[name]) for name in masked}
        trial.set_mask({name: w.bool() for name, w in zeros.items()})
        _density(trial, point | zeros, " where masks hold weights at zero")


def _forces(prior: Prior, point: Mapping[str, Tensor]) -> dict[str, Tensor]:
    forces = {name: prior.potential_gradient(name, w) for name, w in point.items()}
    for name, force in forces.items():
        if not isinstance(force, Tensor) or force.shape != point[name].shape or not bool(force.isfinite().all()):
            raise ValueError(
                f"potential_gradient({name!r}, w) must give a finite tensor of the shape of w, "
                f"{tuple(point[name].shape)}"
            )
    return forces


def _density(prior: Prior, point: Mapping[str, Tensor], where: str = "") -> float:
    value = prior.log_density(point)
    if not isinstance(value, Tensor) or value.ndim or not bool(value.isfinite()):
        raise ValueError(f"log_density(params) must give a finite 0-d tensor{where}")
    return float(value)


def _check_slope(prior: Prior, point: Mapping[str, Tensor], direction: Mapping[str, Tensor], length: float) -> None:
    """Refuse a force that is not the slope of -log p, along the force."""

    def density(h: float) -> float:
        return _density(prior, {name: w - h * direction[name] for name, w in point.items()})

    slope = (density(STEP) - density(-STEP)) / (2 * STEP)
    if abs(slope - length) > TOLERANCE * length:
        raise ValueError(
            "potential_gradient is not the slope of -log_density: along the force, for a unit of length, the density "
            f"changes by {slope:.4g}, and the force is {length:.4g}"
        )
