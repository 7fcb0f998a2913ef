"""OBABO: a step of Verlet between two half refreshments of the momentum."""

from torch import Tensor

from sgmcmc_prune.preconditioners import inverse_mass, sqrt_mass
from sgmcmc_prune.samplers.baoab import refreshment
from sgmcmc_prune.samplers.momentum import MomentumSampler


def obabo(
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
    """One step of one tensor, in place; the equations are in `OBABO`."""
    buffer.add_(force, alpha=0.5).mul_(momentum)
    if noise is not None:
        buffer.add_(sqrt_mass(mass, noise), alpha=-refreshment(lr, momentum, temperature, num_data))
    buffer.add_(force, alpha=0.5)
    if mask is not None:
        buffer.mul_(mask)
    p.add_(inverse_mass(mass, buffer), alpha=-2 * lr / (1 + momentum))


class OBABO(MomentumSampler):
    r"""Underdamped Langevin dynamics on U / N, as half refreshments (O) around a step of Verlet (BAB). Begun at B,

        b <- b + force / 2
        b <- beta b - sqrt(T (1 - beta^2)) / (N h) M^(1/2) xi,        xi ~ N(0, I)
        b <- b + force / 2
        w <- w - N h^2 M^-1 b,

    with h^2 = 2 l / (N (1 + beta)) and m = -N h b: two half refreshments meet and are made as one, and both half kicks
    are at one position, so a step takes one gradient. At T = 0, M = I and a flat prior b <- beta b + (1 + beta) / 2
    force: 2 / (1 + beta) times b is the buffer of SGD with momentum beta, and the step is l.

    On a quadratic potential Var(w) = T / (N a) / (1 - kappa / (2 (1 + beta))), kappa = l a / M, as for symplectic
    Euler. The momentum has variance T M right after a refreshment; between steps, where it is read, half a kick has
    come in between, and its variance is T M / (1 - kappa / (2 (1 + beta))).

    Parameters
    ----------
    params, lr, num_data, momentum, **settings
        As for :class:`~sgmcmc_prune.samplers.momentum.MomentumSampler`.

    References
    ----------
    Bussi, Parrinello: Accurate sampling using Langevin dynamics (Physical Review E 2007).
    """

    name = "obabo"
    integrator = "obabo"
    rule = staticmethod(obabo)
