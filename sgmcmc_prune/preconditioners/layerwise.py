"""Layer-wise scalars: one mass for each tensor, from the mean of its squared gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor

from sgmcmc_prune.preconditioners.base import Preconditioner, State, change_mass

#: Added to the mean squared gradient.
EPSILON = 1e-7


class Layerwise(Preconditioner):
    r"""M of a tensor proportional to the root mean square of its gradient,

        M = s / min over tensors of s,      s = sqrt(mean of g^2 over entries and minibatches + 1e-7):

    the tensor with the smallest gradients has M = 1, and no step is longer than the learning rate says. The mean is
    over the minibatches since the last refresh.

    References
    ----------
    Wenzel et al.: How good is the Bayes posterior in deep neural networks really? (ICML 2020).
    """

    min_mass = 1.0
    state_keys = ("square_sum", "observations")

    def observe(self, state: State, gradient: Tensor) -> None:
        """Add the mean square of one minibatch gradient; one without entries has none."""
        if gradient.numel() == 0:
            return
        square = gradient.square().mean(dtype=torch.promote_types(gradient.dtype, torch.float32))
        state["square_sum"] = state.get("square_sum", 0.0) + square
        state["observations"] = state.get("observations", 0) + 1

    def refresh(self, states: Iterable[State]) -> None:
        """Recompute M; the physical momentum follows. Without a new gradient M stays as it is."""
        seen = [s for s in states if s.get("observations", 0) > 0]
        if not seen:
            return
        roots = [(s["square_sum"] / s["observations"] + EPSILON).sqrt() for s in seen]
        smallest = min(float(root) for root in roots)
        for state, root in zip(seen, roots, strict=True):
            change_mass(state, root / smallest)
            state["square_sum"], state["observations"] = torch.zeros_like(root), 0
