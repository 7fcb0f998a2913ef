"""Stochastic-gradient Hamiltonian Monte Carlo: the symplectic Euler scheme in the units of SGD with momentum."""

import math

from torch import Tensor

from sgmcmc_prune.preconditioners import inverse_mass, sqrt_mass
from sgmcmc_prune.samplers.momentum import MomentumSampler


def sghmc(
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
    """One step of one tensor, in place; the equations are in `SGHMC`."""
    buffer.mul_(momentum).add_(force)
    if noise is not None:
        scale = math.sqrt(2 * (1 - momentum) * temperature / (num_data * lr))
        buffer.add_(sqrt_mass(mass, noise), alpha=-scale)
    if mask is not None:
        buffer.mul_(mask)
    p.add_(inverse_mass(mass, buffer), alpha=-lr)


class SGHMC(MomentumSampler):
    r"""Underdamped Langevin dynamics on U / N, by symplectic Euler. With step l, momentum beta and mass M,

        b <- beta b + force - sqrt(2 (1 - beta) T / (N l)) M^(1/2) xi,        xi ~ N(0, I)
        w <- w - l M^-1 b.

    b is the momentum buffer of SGD; the physical momentum is m = -sqrt(l N) b with time step h = sqrt(l / N). For small
    steps m ~ N(0, 2 T / (1 + beta) M): the scheme's kinetic temperature is above T. With constant l, T = 0, M = I and a
    flat prior this is `torch.optim.SGD(foreach=False)` to the bit.

    On a quadratic potential with curvature a, Var(w) = T / (N a) / (1 - kappa / (2 (1 + beta))), kappa = l a / M.

    Parameters
    ----------
    params, lr, num_data, momentum, **settings
        As for :class:`~sgmcmc_prune.samplers.momentum.MomentumSampler`.

    Examples
    --------
    `.grad` is the gradient of the mean negative log-likelihood; the sampler adds the prior's, and the noise.

    >>> import torch
    >>> model = torch.nn.Linear(3, 1)
    >>> x, y = torch.randn(50, 3), torch.randn(50, 1)
    >>> sampler = SGHMC(model.named_parameters(), lr=0.01, num_data=50, momentum=0.9, prior=1.0)
    >>> for step in range(10):
    ...     sampler.zero_grad()
    ...     loss = (model(x) - y).square().mean() / 2  # noise of variance 1
    ...     loss.backward()
    ...     loss = sampler.step()

    References
    ----------
    Chen, Fox, Guestrin: Stochastic gradient Hamiltonian Monte Carlo (ICML 2014), eq. 15.
    Wenzel et al.: How good is the Bayes posterior in deep neural networks really? (ICML 2020), algorithm 1.
    """

    name = "sghmc"
    integrator = "symplectic_euler"
    rule = staticmethod(sghmc)

    def _fused(self) -> bool:
        return type(self) is SGHMC  # a subclass has another rule
