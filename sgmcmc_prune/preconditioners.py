"""Diagonal mass matrices M for the samplers: identity and RMSprop.

A preconditioner is used through three verbs: multiply by M^(1/2) (noise), by M^-1 (drift) and by M^-1/2. M adapts
during burn-in and is frozen while draws are collected: a position-dependent M would need the correction term of Ma,
Chen and Fox (2015), a frozen one leaves the target exact.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


class Identity:
    """M = I: every verb returns its argument."""

    min_mass = 1.0

    def observe(self, state: State, gradient: Tensor) -> None:
        """See one minibatch gradient; the identity learns nothing from it."""

    def refresh(self, states: Iterable[State]) -> None:
        """Recompute M from what was observed; the identity has nothing to recompute."""

    def sqrt_mass(self, state: State, x: Tensor) -> Tensor:
        """M^(1/2) x."""
        return x

    def inverse_mass(self, state: State, x: Tensor) -> Tensor:
        """M^-1 x."""
        return x

    def inverse_sqrt_mass(self, state: State, x: Tensor) -> Tensor:
        """M^-1/2 x."""
        return x


class RMSprop:
    r"""M proportional to the root of a running mean of squared gradients.

        v <- decay v + (1 - decay) g^2,      M = max(sqrt(v) / median(sqrt(v)), min_mass):

    the median weight has M = 1, so a learning rate keeps its meaning when the preconditioner is switched on.

    Parameters
    ----------
    decay : float
        Weight of the past in v, in [0, 1).
    min_mass : float
        Floor of M, in (0, 1]; it bounds the longest step, lr / min_mass. Weights that never get a gradient (border
        pixels) would otherwise take arbitrarily long steps.

    References
    ----------
    Li, Chen, Carlson, Carin: Preconditioned stochastic gradient Langevin dynamics for deep neural networks (AAAI 2016).
    """

    def __init__(self, decay: float = 0.99, min_mass: float = 0.25) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"RMSprop decay is {decay}; it must be in [0, 1)")
        if not 0 < min_mass <= 1:
            raise ValueError(f"RMSprop min_mass is {min_mass}; it must be in (0, 1]")
        self.decay = decay
        self.min_mass = min_mass

    def observe(self, state: State, gradient: Tensor) -> None:
        """Add one minibatch gradient to the running mean v (bias-corrected when M is computed)."""
        if "square_average" not in state:
            state["square_average"] = torch.zeros_like(gradient)
            state["observations"] = 0
        state["square_average"].mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        state["observations"] += 1

    def refresh(self, states: Iterable[State]) -> None:
        """Recompute M from v, and keep the physical momentum: its distribution N(0, T M) must follow M."""
        seen = [s for s in states if s.get("observations", 0) > 0]
        if not seen:
            return
        roots = [(s["square_average"] / (1 - self.decay ** s["observations"])).sqrt_() for s in seen]
        # The median, because the gradients of dead inputs are orders of magnitude smaller than the rest.
        scale = float(torch.cat([r.flatten() for r in roots]).median()) or 1.0
        for state, root in zip(seen, roots, strict=True):
            mass = root.div_(scale).clamp_(min=self.min_mass)
            old = state.get("mass")
            if "momentum_buffer" in state:
                state["momentum_buffer"].mul_((mass if old is None else mass / old).sqrt())
            state["mass"] = mass

    def sqrt_mass(self, state: State, x: Tensor) -> Tensor:
        """M^(1/2) x."""
        return x * state["mass"].sqrt() if "mass" in state else x

    def inverse_mass(self, state: State, x: Tensor) -> Tensor:
        """M^-1 x."""
        return x / state["mass"] if "mass" in state else x

    def inverse_sqrt_mass(self, state: State, x: Tensor) -> Tensor:
        """M^-1/2 x."""
        return x * state["mass"].rsqrt() if "mass" in state else x


Preconditioner = Identity | RMSprop
