"""RMSprop: one mass for each weight, from a running mean of its squared gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sgmcmc_prune.preconditioners.base import Preconditioner, State, change_mass
from sgmcmc_prune.settings import check_number


class RMSprop(Preconditioner):
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

    state_keys = ("square_average", "observations")

    def __init__(self, decay: float = 0.99, min_mass: float = 0.25) -> None:
        check_number("RMSprop decay", decay)
        check_number("RMSprop min_mass", min_mass)
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
        """Recompute M from v; the physical momentum follows."""
        seen = [s for s in states if s.get("observations", 0) > 0 and s["square_average"].numel() > 0]
        if not seen:
            return
        roots = [(s["square_average"] / (1 - self.decay ** s["observations"])).sqrt_() for s in seen]
        # The median, because the gradients of dead inputs are orders of magnitude smaller than the rest.
        scale = float(torch.cat([r.flatten() for r in roots]).median()) or 1.0
        for state, root in zip(seen, roots, strict=True):
            change_mass(state, root.div_(scale).clamp_(min=self.min_mass))
