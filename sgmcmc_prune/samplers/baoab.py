"""BAOAB: kick, half a drift, refreshment, half a drift. Its positions have no step-size bias on a Gaussian."""

import math

from torch import Tensor

from sgmcmc_prune.preconditioners import inverse_mass, sqrt_mass
from sgmcmc_prune.samplers.momentum import MomentumSampler


def baoab(
    p: Tensor,
    force: Tensor,
    noise: Tensor | None,
    buffer: Tensor,
    *,
    lr: float,
    momentum: float,
    temperature: float,
    num_data: int,
    mass: Tensor | None = None,
    mask: Tensor | None = None,
) -> None:
    """One step of one tensor, in place; the equations are in `BAOAB`."""
    buffer.add_(force if mask is None else force * mask)
    p.add_(inverse_mass(mass, buffer), alpha=-lr / (1 + momentum))
    buffer.mul_(momentum)
    if noise is not None:
        noise = noise if mask is None else noise * mask
        buffer.add_(sqrt_mass(mass, noise), alpha=-refreshment(lr, momentum, temperature, num_data))
    p.add_(inverse_mass(mass, buffer), alpha=-lr / (1 + momentum))


def refreshment(lr: float, momentum: float, temperature: float, num_data: int) -> float:
    """Standard deviation of the noise in b, sqrt(T (1 - beta^2)) / (N h), for M = 1 and h^2 = 2 l / (N (1 + beta))."""
    return (1 + momentum) * math.sqrt(temperature * (1 - momentum) / (2 * num_data * lr))


class BAOAB(MomentumSampler):
    r"""Underdamped Langevin dynamics on U / N, split into kick (B), drift (A) and refreshment (O). One step,

        b <- b + force
        w <- w - l / (1 + beta) M^-1 b
        b <- beta b - sqrt(T (1 - beta^2)) / (N h) M^(1/2) xi,        xi ~ N(0, I)
        w <- w - l / (1 + beta) M^-1 b,

    takes one gradient: the last half kick of a step and the first of the next are at the same position, and are made
    as one. The time step is h^2 = 2 l / (N (1 + beta)) and the physical momentum m = -N h b, so that T = 0, M = I and a
    flat prior give SGD with step l and momentum beta: the two drifts add up to l (b + force), b being beta times SGD's
    buffer between steps.

    On a quadratic potential Var(w) = T / (N a) at every stable step, l a / M < 2 (1 + beta). The momentum is read
    between steps, after the last drift, where half of the next kick is still to come; there its variance is T M, also
    at every stable step, and it is not independent of the position. (After that half kick it would be independent, and
    T M (1 - l a / (2 M (1 + beta))).)

    Parameters
    ----------
    params, lr, num_data, momentum, **settings
        As for :class:`~sgmcmc_prune.samplers.momentum.MomentumSampler`.

    References
    ----------
    Leimkuhler, Matthews: Rational construction of stochastic numerical methods for molecular sampling (AMRX 2013).
    """

    name = "baoab"
    integrator = "baoab"
    rule = staticmethod(baoab)
