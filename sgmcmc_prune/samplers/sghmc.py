"""Stochastic-gradient Hamiltonian Monte Carlo: the symplectic Euler scheme in the units of SGD with momentum."""

import math
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.noise import Stream
from sgmcmc_prune.samplers.base import Sampler


class SGHMC(Sampler):
    r"""Underdamped Langevin dynamics on U / N, by symplectic Euler. With step l, momentum beta and mass M,

        b <- beta b + force - sqrt(2 (1 - beta) T / (N l)) M^(1/2) xi,        xi ~ N(0, I)
        w <- w - l M^-1 b.

    b is the momentum buffer of SGD; the physical momentum is m = -sqrt(l N) b with time step h = sqrt(l / N). For small
    steps m ~ N(0, 2 T / (1 + beta) M): the scheme's kinetic temperature is above T. When l changes, m is kept: b <- b
    sqrt(l_old / l_new). With constant l, T = 0, M = I and a flat prior this is `torch.optim.SGD(foreach=False)` to the
    bit.

    On a quadratic potential with curvature a, Var(w) = T / (N a) / (1 - kappa / (2 (1 + beta))), kappa = l a / M.

    Parameters
    ----------
    momentum : float
        beta in [0, 1): friction is 1 - beta per step.
    **settings
        As for :class:`~sgmcmc_prune.samplers.base.Sampler`.

    References
    ----------
    Chen, Fox, Guestrin: Stochastic gradient Hamiltonian Monte Carlo (ICML 2014), eq. 15.
    Wenzel et al.: How good is the Bayes posterior in deep neural networks really? (ICML 2020), algorithm 1.
    """

    def __init__(self, params: Any, *, lr: float, num_data: int, momentum: float = 0.9, **settings: Any) -> None:
        super().__init__(params, lr=lr, num_data=num_data, momentum=momentum, **settings)

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        lr, beta = group["lr"], group["momentum"]
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = state["momentum_buffer"] = torch.zeros_like(p)
        elif state["momentum_lr"] != lr:
            buffer.mul_(math.sqrt(state["momentum_lr"] / lr))
        state["momentum_lr"] = lr
        buffer.mul_(beta).add_(force)
        if noise is not None:
            scale = math.sqrt(2 * (1 - beta) * group["temperature"] / (group["num_data"] * lr))
            buffer.add_(self.preconditioner.sqrt_mass(state, noise), alpha=-scale)
        if "mask" in state:
            buffer.mul_(state["mask"])
        p.add_(self.preconditioner.inverse_mass(state, buffer), alpha=-lr)

    @torch.no_grad()
    def sample_momentum(self) -> None:
        """Draw the momentum afresh from its stationary law for small steps, m ~ N(0, 2 T / (1 + beta) M)."""
        for group in self.param_groups:
            variance = 2 * group["temperature"] / ((1 + group["momentum"]) * group["num_data"] * group["lr"])
            for p, xi in zip(group["params"], self._noise(group, Stream.MOMENTUM), strict=True):
                state = self.state[p]
                buffer = self.preconditioner.sqrt_mass(state, xi).mul(math.sqrt(variance))
                state["momentum_buffer"] = buffer * state["mask"] if "mask" in state else buffer
                state["momentum_lr"] = group["lr"]

    @torch.no_grad()
    def momentum_square(self) -> tuple[float, int]:
        """The square m' M^-1 m of the current physical momentum, and its dimension d (masked weights excluded).

        Their ratio is the kinetic temperature, with expectation 2 T / (1 + beta) times this scheme's step-size factor.
        """
        total, dimension = 0.0, 0
        for _, p, state, group in self.named_states():
            if "momentum_buffer" in state:
                b = state["momentum_buffer"]
                square = torch.dot(b.flatten(), self.preconditioner.inverse_mass(state, b).flatten())
                total += float(square) * group["num_data"] * state["momentum_lr"]
                dimension += int(state["mask"].count_nonzero()) if "mask" in state else p.numel()
        return total, dimension
