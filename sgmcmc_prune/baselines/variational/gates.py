r"""A spike-and-slab gate on each node: z_j ~ Bernoulli(g_j), relaxed for the gradient.

The binary concrete relaxation with straight-through gradients: with a standard logistic L,

    y = sigmoid((logit g + L) / T),        z = 1[y > 1/2] forward, dy backward,

so that P(z = 1) = g at any temperature T. The gate stands after activation and normalisation, so that a closed node
emits exactly zero. Each example draws its own gates, which is the same bound with less noise.

References
----------
Jantre, Bhattacharya, Maiti: Layer adaptive node selection in Bayesian neural networks (Neural Networks 2023);
Maddison, Mnih, Teh: The concrete distribution (ICLR 2017).
"""

from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines import kl

#: |logit| at which gates are stopped, so that a closed one can still open.
LOGIT_BOUND = 12.0
_SMALLEST_UNIFORM = 1e-6  # float32 cannot hold 1 - 1e-10


class Gate(nn.Module):
    """Multiply each node or channel (dimension 1) by its gate.

    Parameters
    ----------
    num_nodes : int
        J.
    inclusion : float
        Prior inclusion probability lambda, inside (0, 1).
    start : float
        Starting g, inside (0, 1).
    temperature : float
        T of the relaxation, > 0.

    Raises
    ------
    ValueError
        If a probability is not inside (0, 1) or the temperature not positive.
    """

    def __init__(self, num_nodes: int, inclusion: float, start: float = 0.99, temperature: float = 0.5) -> None:
        super().__init__()
        kl.check_inclusion(inclusion)
        kl.check_inclusion(start, "the gates' start")
        if not temperature > 0:
            raise ValueError(f"the gates' temperature is {temperature}; it must be > 0")
        self.inclusion, self.temperature = inclusion, temperature
        self.logits = nn.Parameter(torch.full((num_nodes,), kl.log_odds(start)))

    @property
    def probability(self) -> Tensor:
        """g, shape (J,)."""
        return self.logits.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Gate activations (n, J, ...) with one draw of the gates per example."""
        logits = self.logits.expand(len(x), -1)
        return x * straight_through(logits, self.temperature).view(*logits.shape, *([1] * (x.ndim - 2)))

    def kl(self) -> Tensor:
        """KL from Bernoulli(lambda), shape (J,)."""
        return kl.bernoulli(self.logits, self.inclusion)


def straight_through(logits: Tensor, temperature: float) -> Tensor:
    """Zeros and ones with P(1) = sigmoid(logits), and the gradient of the relaxation at `temperature`."""
    return _StraightThrough.apply((logits + torch.rand_like(logits).logit_(_SMALLEST_UNIFORM)) / temperature)


class _StraightThrough(torch.autograd.Function):
    """1[x > 0] with the gradient of sigmoid(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        y = ctx.saved_tensors[0].sigmoid()
        return gradient * (y * (1 - y))
