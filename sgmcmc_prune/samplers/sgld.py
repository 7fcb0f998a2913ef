"""Stochastic-gradient Langevin dynamics, with a frozen or a position-dependent preconditioner."""

import math
from typing import Any

from torch import Tensor

from sgmcmc_prune.preconditioners import PositionDependent, inverse_mass, inverse_sqrt_mass
from sgmcmc_prune.samplers.base import Sampler


def sgld(
    p: Tensor,
    force: Tensor,
    noise: Tensor | None,
    *,
    lr: float,
    temperature: float,
    num_data: int,
    mass: Tensor | None = None,
    mask: Tensor | None = None,
    gamma: Tensor | None = None,
) -> None:
    """One step of one tensor, in place; the equation is in `SGLD`."""
    p.add_(inverse_mass(mass, force), alpha=-lr)
    if gamma is not None:
        p.add_(gamma, alpha=lr * temperature / num_data)
    if noise is not None:
        p.add_(inverse_sqrt_mass(mass, noise), alpha=math.sqrt(2 * lr * temperature / num_data))
    if mask is not None:
        p.mul_(mask)


class SGLD(Sampler):
    r"""Langevin diffusion discretised by Euler and Maruyama, on U / N:

        w <- w - l M^-1 force + (l T / N) Gamma + sqrt(2 l T / N) M^-1/2 xi,        xi ~ N(0, I).

    With M fixed, Gamma = 0, and on a quadratic potential with curvature a the stationary variance is
    T / (N a) / (1 - l a / (2 M)). With M a function of the position (`PositionDependent`),
    Gamma_i = d(1 / M_i) / dw_i, and the target is right in the limit of small steps.

    Parameters
    ----------
    params, lr, num_data, temperature, prior, preconditioner, seed, chain, implementation, noise
        As for :class:`~sgmcmc_prune.samplers.base.Sampler`.

    References
    ----------
    Welling, Teh: Bayesian learning via stochastic gradient Langevin dynamics (ICML 2011), eq. 4.
    Ma, Chen, Fox: A complete recipe for stochastic gradient MCMC (NeurIPS 2015), on Gamma.
    """

    name = "sgld"

    def _fused(self) -> bool:
        # A subclass may have another rule or force.
        return type(self) is SGLD and not isinstance(self.preconditioner, PositionDependent)

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        arguments = self._arguments(state, group)
        if isinstance(self.preconditioner, PositionDependent):
            arguments |= {"mass": self.preconditioner.mass(p), "gamma": self.preconditioner.gamma(p)}
        sgld(p, force, noise, **arguments)
