"""A rehearsal of a user's own prior at the start of a chain: what would go wrong in silence is refused."""

import copy
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
        central difference along the force on each parameter, within 5 %), or a weight was changed.
    """
    point = {name: p.detach().double() + SHIFT for name, p in params.items()}
    before = {name: w.clone() for name, w in point.items()}
    trial = copy.deepcopy(prior)
    trial.sample_latent(point, 0)  # as a chain does before its first force
    forces, _ = _forces(trial, point), _density(trial, point)
    if changed := [name for name, w in point.items() if not torch.equal(w, before[name])]:
        raise ValueError(f"it changes the weights {changed[0]!r} that it is given; work on copies (w * 2, not w *= 2)")
    for name, force in forces.items():
        _check_slope(trial, point, name, force.double())
    if masked:
        kept = {name: torch.arange(point[name].numel()).view(point[name].shape) % 2 == 0 for name in masked}
        kept = {name: mask.to(point[name].device) for name, mask in kept.items()}
        trial.set_mask(kept)
        _density(
            trial,
            point | {name: point[name] * mask for name, mask in kept.items()},
            " where masks hold weights at zero",
        )


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


def _check_slope(prior: Prior, point: Mapping[str, Tensor], name: str, force: Tensor) -> None:
    """Refuse a force on one parameter that is not the slope of -log p along it; where it is zero, along the weight."""
    length = float(force.norm())
    direction = force / length if length else point[name] / point[name].norm().clamp_min(1e-300)

    def density(h: float) -> float:
        return _density(prior, {**point, name: point[name] - h * direction})

    ahead, behind = density(STEP), density(-STEP)
    slope, noise = (ahead - behind) / (2 * STEP), 1e-14 * abs(ahead) / STEP
    if abs(slope - length) > TOLERANCE * length + noise:
        raise ValueError(
            f"potential_gradient is not the slope of -log_density in {name!r}: along the force, for a unit of length, "
            f"the density changes by {slope:.4g}, and the force is {length:.4g}"
        )
