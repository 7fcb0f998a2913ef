"""Stochastic-gradient Langevin dynamics, with an optional (frozen) preconditioner."""

import math
from typing import Any

from torch import Tensor

from sgmcmc_prune.samplers.base import Sampler


class SGLD(Sampler):
    r"""Langevin diffusion discretised by Euler and Maruyama, on U / N:

        w <- w - l M^-1 force + sqrt(2 l T / N) M^-1/2 xi,        xi ~ N(0, I).

    On a quadratic potential with curvature a the stationary variance is T / (N a) / (1 - l a / (2 M)). Takes the
    arguments of :class:`~sgmcmc_prune.samplers.base.Sampler`.

    References
    ----------
    Welling, Teh: Bayesian learning via stochastic gradient Langevin dynamics (ICML 2011), eq. 4.
    """

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        lr = group["lr"]
        p.add_(self.preconditioner.inverse_mass(state, force), alpha=-lr)
        if noise is not None:
            scale = math.sqrt(2 * lr * group["temperature"] / group["num_data"])
            p.add_(self.preconditioner.inverse_sqrt_mass(state, noise), alpha=scale)
        if "mask" in state:
            p.mul_(state["mask"])
