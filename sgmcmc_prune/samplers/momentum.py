r"""What samplers with momentum share: the buffer in the units of SGD, its law, its kinetic temperature.

b is the momentum buffer of `torch.optim.SGD`. The physical momentum is m = -N h b, with h the time step of the scheme
in physical units: sqrt(l / N) for symplectic Euler, sqrt(2 l / (N (1 + beta))) for the splittings. With either, one
step at T = 0, M = I and a flat prior is a step of SGD with momentum, so all of them are stable on a quadratic potential
of curvature a as long as l a / M < 2 (1 + beta).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sgmcmc_prune.native.memory import laid_out
from sgmcmc_prune.noise import Stream
from sgmcmc_prune.preconditioners import PositionDependent, inverse_mass, sqrt_mass
from sgmcmc_prune.samplers.base import Sampler
from sgmcmc_prune.samplers.step import Step


class MomentumSampler(Sampler):
    """Base class of the samplers with momentum: subclasses give `rule` and `integrator`.

    When lr or momentum change, the physical momentum is kept: b <- b h_old / h_new.

    Parameters
    ----------
    momentum : float
        beta in [0, 1): friction is 1 - beta per step.
    **settings
        As for :class:`~sgmcmc_prune.samplers.base.Sampler`.
    """

    own: ClassVar[tuple[str, ...]] = ("momentum",)
    state_keys: ClassVar[tuple[str, ...]] = ("mass", "mask", "momentum_buffer", "time_step")
    #: The update of one tensor: (p, force, noise, buffer, *, lr, momentum, temperature, num_data, mass, mask).
    rule: ClassVar[Callable[..., None]]

    def __init__(self, params: Any, *, lr: float, num_data: int, momentum: float = 0.9, **settings: Any) -> None:
        if isinstance(settings.get("preconditioner"), PositionDependent):
            raise TypeError(f"{type(self).__name__} has no correction for a position-dependent mass; use SGLD")
        super().__init__(params, lr=lr, num_data=num_data, momentum=momentum, **settings)

    @classmethod
    def time_step(cls, group: Mapping[str, Any]) -> float:
        """h, the time step in physical units."""
        euler = cls.integrator == "symplectic_euler"
        return math.sqrt(group["lr"] / group["num_data"] * (1 if euler else 2 / (1 + group["momentum"])))

    @classmethod
    def kinetic_factor(cls, group: Mapping[str, Any]) -> float:
        """Expected kinetic temperature over T, for small steps."""
        return 2 / (1 + group["momentum"]) if cls.integrator == "symplectic_euler" else 1.0

    def _update(self, p: Tensor, force: Tensor, noise: Tensor | None, state: dict[str, Any], group: Any) -> None:
        type(self).rule(p, force, noise, self._buffer(p, state, group), **self._arguments(state, group))

    def _buffer(self, p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> Tensor:
        """The momentum buffer, in the units of the present time step."""
        step = self.time_step(group)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        elif state.get("time_step", step) != step:
            state["momentum_buffer"].mul_(state["time_step"] / step)
        state["time_step"] = step
        buffer: Tensor = state["momentum_buffer"]
        return buffer

    def buffers(self, parameters: Sequence[Tensor], group: Mapping[str, Any]) -> tuple[list[Tensor], float]:
        """The momentum buffers of a group, and the factor that puts all of them in the units of the present step."""
        step, states = self.time_step(group), [self.state[p] for p in parameters]
        earlier = {state.get("time_step", step) for state in states}
        if len(earlier) > 1:
            return [self._buffer(p, s, group) for p, s in zip(parameters, states, strict=True)], 1.0
        if earlier != {step} or any("momentum_buffer" not in s or "time_step" not in s for s in states):
            for p, state in zip(parameters, states, strict=True):
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                state["time_step"] = step
        return [state["momentum_buffer"] for state in states], max(earlier, default=step) / step

    def _momentum(self, step: Step) -> tuple[list[Tensor], float] | None:
        return self.buffers(step.parameters, step.group)

    @torch.no_grad()
    def sample_momentum(self) -> None:
        """Draw the momentum afresh from its stationary law for small steps, m ~ N(0, c T M), c = `kinetic_factor`."""
        for group in self.param_groups:
            step = self.time_step(group)
            scale = math.sqrt(self.kinetic_factor(group) * group["temperature"]) / (group["num_data"] * step)
            for p, xi in zip(group["params"], self._noise(group, Stream.MOMENTUM), strict=True):
                state = self.state[p]
                buffer = laid_out(sqrt_mass(state.get("mass"), xi).mul(scale), p)
                state["momentum_buffer"] = buffer.mul_(state["mask"]) if "mask" in state else buffer
                state["time_step"] = step

    @torch.no_grad()
    def momentum_squares(self) -> dict[str, tuple[float, int]]:
        """By parameter, m' M^-1 m of the current physical momentum, and its dimension (masked weights excluded).

        Their ratio is the kinetic temperature, with expectation c T (`kinetic_factor`) times the scheme's step-size
        factor.
        """
        squares = {}
        for name, p, state, group in self.named_states():
            if "momentum_buffer" in state and p.requires_grad:
                b = state["momentum_buffer"]
                square = float(torch.dot(b.flatten(), inverse_mass(state.get("mass"), b).flatten()))
                dimension = int(state["mask"].count_nonzero()) if "mask" in state else p.numel()
                unit = group["num_data"] * state.get("time_step", self.time_step(group))
                squares[name] = square * unit**2, dimension
        return squares
