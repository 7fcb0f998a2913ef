"""The stochastic-gradient Nose-Hoover thermostat: friction that adapts until the kinetic temperature is T."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.preconditioners import inverse_mass, sqrt_mass
from sgmcmc_prune.samplers.baoab import refreshment
from sgmcmc_prune.samplers.momentum import MomentumSampler
from sgmcmc_prune.settings import check_number


def sgnht(
    p: Tensor,
    force: Tensor,
    noise: Tensor | None,
    buffer: Tensor,
    thermostat: Tensor,
    *,
    lr: float,
    momentum: float,
    temperature: float,
    num_data: int,
    rate: float,
    mass: Tensor | None = None,
    mask: Tensor | None = None,
) -> None:
    """One step of one tensor and its thermostat z (0-d), in place; the equations are in `SGNHT`."""
    buffer.add_(force if mask is None else force * mask)
    p.add_(inverse_mass(mass, buffer), alpha=-lr / (1 + momentum))
    if noise is not None:
        # (m' M^-1 m / T - d) / d, with (N h)^2 = 2 N l / (1 + beta); d = 0 in a tensor that is masked altogether.
        dimension = buffer.numel() if mask is None else mask.count_nonzero()
        unit = 2 * num_data * lr / ((1 + momentum) * temperature)
        thermostat.add_(_excess(buffer, mass, unit, dimension), alpha=rate / 2)
        noise = noise if mask is None else noise * mask
        buffer.mul_((momentum * (-thermostat).exp()).to(buffer.dtype))
        buffer.add_(sqrt_mass(mass, noise), alpha=-refreshment(lr, momentum, temperature, num_data))
        thermostat.add_(_excess(buffer, mass, unit, dimension), alpha=rate / 2)
    else:
        buffer.mul_((momentum * (-thermostat).exp()).to(buffer.dtype))
    p.add_(inverse_mass(mass, buffer), alpha=-lr / (1 + momentum))


def _excess(buffer: Tensor, mass: Tensor | None, unit: float, dimension: int | Tensor) -> Tensor:
    """T_K / T - 1; zero without any dimension."""
    square = (buffer * inverse_mass(mass, buffer)).sum(dtype=torch.promote_types(buffer.dtype, torch.float32))
    if isinstance(dimension, int):
        return (square * unit - dimension) / max(dimension, 1)
    return (square * unit - dimension) / dimension.clamp(min=1)


class SGNHT(MomentumSampler):
    r"""Langevin dynamics with a thermostat z of its own for every tensor, split as in BAOAB. One step is

        b <- b + force;                                                   w <- w - l / (1 + beta) M^-1 b
        z <- z + r / 2 (T_K / T - 1)
        b <- beta exp(-z) b - sqrt(T (1 - beta^2)) / (N h) M^(1/2) xi,    xi ~ N(0, I)
        z <- z + r / 2 (T_K / T - 1);                                     w <- w - l / (1 + beta) M^-1 b

    with T_K = m' M^-1 m / d, m = -N h b and h^2 = 2 l / (N (1 + beta)). At z = 0, where it starts, this is `BAOAB`: the
    friction is 1 - beta. Minibatch noise heats the momentum, z grows until T_K is T again, and then the noise injected
    and the noise of the gradients together are what the friction dissipates: positions are at T without anybody knowing
    the gradients' variance. That has to be alike in all weights of a tensor (in units of M); T_K is one number.
    When l changes, z is scaled by the same factor: the heat of minibatch noise is proportional to l.

    T_K is averaged over the momentum before and after the refreshment. The temperature of the positions is between the
    two, and at small steps off their average by a share (1 - c)^2 / 4 of the heat, c = beta exp(-z). (The thermostat by
    Euler's method, as published, holds at T what it reads after the kick: positions are then cold by (1 - c) / 2, 5% at
    beta = .9, even without gradient noise.)

    The kinetic temperature of this sampler certifies nothing, being held where it is. (Read between steps, after the
    refreshment, it is T less half the heat of one kick.) The stationary law of z is N(z*, r / d) for small r.

    Parameters
    ----------
    momentum : float
        beta in (0, 1); 1 - beta is the friction without gradient noise.
    rate : float
        r in (0, 1), the reaction of the thermostat per step: h^2 T over its thermal mass. With the published thermal
        mass of 1 it is 2 l T / (N (1 + beta)), far too slow for large N: z needs some (1 - beta) / r steps.
    **settings
        As for :class:`~sgmcmc_prune.samplers.base.Sampler`. At T = 0 the thermostat rests.

    References
    ----------
    Ding, Fang, Babbush, Chen, Skeel, Neven: Bayesian sampling using stochastic gradient thermostats (NeurIPS 2014).
    Leimkuhler, Shang: Adaptive thermostats for noisy gradient systems (SIAM J. Sci. Comput. 2016), on the splitting.
    """

    name = "sgnht"
    own = ("momentum", "rate")
    state_keys = (*MomentumSampler.state_keys, "thermostat", "thermostat_lr")
    integrator = "thermostat"  # no band: the kinetic temperature is what it is told to be

    def __init__(
        self, params: Any, *, lr: float, num_data: int, momentum: float = 0.9, rate: float = 1e-3, **settings: Any
    ) -> None:
        super().__init__(params, lr=lr, num_data=num_data, momentum=momentum, rate=rate, **settings)

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        super()._check_settings(group)
        if group["momentum"] == 0:
            raise ValueError("momentum is 0; the thermostat acts through the momentum, which must be in (0, 1)")
        check_number("rate", group["rate"])
        if not 0 < group["rate"] < 1:
            raise ValueError(f"rate is {group['rate']}; the thermostat's reaction per step must be in (0, 1)")

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        if "thermostat" not in state:
            state["thermostat"] = torch.zeros((), dtype=torch.promote_types(p.dtype, torch.float32), device=p.device)
        elif state["thermostat_lr"] != group["lr"]:
            state["thermostat"].mul_(group["lr"] / state["thermostat_lr"])
        state["thermostat_lr"] = group["lr"]
        buffer = self._buffer(p, state, group)
        arguments = self._arguments(state, group)
        sgnht(p, force, noise, buffer, state["thermostat"], rate=group["rate"], **arguments)
