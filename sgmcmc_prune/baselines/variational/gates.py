r"""A spike-and-slab gate on each node: z_j ~ Bernoulli(g_j), relaxed for the gradient.

The binary concrete relaxation with straight-through gradients: with a standard logistic L,

    y = sigmoid((logit g + L) / T),        z = 1[y > 1/2] forward, dy backward,

so that P(z = 1) = g at any temperature T. The gate stands after activation and normalisation, so that a closed node
emits exactly zero. Each example draws its own gates, which is the same bound with less noise.

The straight-through gradient is biased: it takes the slope of the loss at the value that was drawn for the difference
of the losses at z = 1 and z = 0. What training ends at is *not* the maximum of the bound that it reports. In a linear
regression with orthogonal inputs, where this family holds the exact posterior, exact inclusion probabilities of 0.94,
0.99, 0.25 and 0.22 come out as 0.77, 0.88, 0.30 and 0.26, and the bound 0.4 nats low (a test measures it). It is the
authors' gradient, and so the one used here. Gates on single weights (`factors.GatedNormal`) have no such bias: they are
integrated out, unless they are relaxed, too (`factors.RelaxedNormal`).

References
----------
Jantre, Bhattacharya, Maiti: Layer adaptive node selection in Bayesian neural networks (Neural Networks 2023);
Maddison, Mnih, Teh: The concrete distribution (ICLR 2017).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sgmcmc_prune import native
from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational.factors import logistic_like, random_key

#: Gates stop this far from 0, beyond their prior's log odds: a closed one can still open, and none ties with another.
LOGIT_BOUND = 12.0


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
        return _Gated.apply(x, self.logits, self.temperature)

    def kl(self) -> Tensor:
        """KL from Bernoulli(lambda), shape (J,)."""
        return kl.bernoulli(self.logits, self.inclusion)


def gated_divergence(slab: Tensor, logits: Tensor, inclusion: float) -> Tensor:
    r"""Divergence of nodes behind gates from their prior, 0-d, from that of the weights of each open node, shape (J,).

    .. math:: \sum_j g_j D_j + KL(\mathrm{Bernoulli}(g_j) \,\|\, \mathrm{Bernoulli}(\lambda))
    """
    found: Tensor = _GatedDivergence.apply(slab, logits, inclusion)
    return found


class _GatedDivergence(torch.autograd.Function):
    """`gated_divergence`, with dD = g and d(logit g) = g (1 - g) (D + logit g - logit lambda)."""

    @staticmethod
    def forward(ctx: Any, slab: Tensor, logits: Tensor, inclusion: float) -> Tensor:
        g, cost = logits.sigmoid(), slab + logits - kl.log_odds(inclusion)
        ctx.save_for_backward(g, cost)
        return torch.addcmul(F.logsigmoid(-logits), g, cost).sum() - len(g) * math.log1p(-inclusion)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        g, cost = ctx.saved_tensors
        dslab = gradient * g
        return dslab, torch.addcmul(dslab, dslab, g, value=-1).mul_(cost), None


class _Gated(torch.autograd.Function):
    r"""x z with z = 1[y > 1/2] and y = sigmoid((lambda + L) / T). Backwards dx = z dh, and straight through

    .. math:: d\lambda = \sum dh \, x \, y (1 - y) / T.

    On a CPU the kernels of `native` do this, elsewhere (and for images) torch.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor, temperature: float) -> Tensor:
        ctx.temperature, ctx.native = temperature, x.ndim == 2 and native.takes(x) and native.takes(logits)
        if ctx.native:
            odds, outputs = native.gate_draw(random_key(), x, logits)
        else:
            odds = logits + logistic_like(x.new_empty(x.shape[:2]))
            outputs = x * _open(odds, x)
        ctx.save_for_backward(x, odds)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, odds = ctx.saved_tensors
        if ctx.native:
            return *native.gate_gradient(x, odds, gradient, ctx.temperature), None
        y = (odds / ctx.temperature).sigmoid()
        by_node = (gradient * x).flatten(2).sum(2) if x.ndim > 2 else gradient * x
        return gradient * _open(odds, x), (by_node * y * (1 - y)).sum(0) / ctx.temperature, None


def _open(odds: Tensor, x: Tensor) -> Tensor:
    """Zeros and ones, broadcastable over x."""
    return (odds > 0).to(x).view(*odds.shape, *([1] * (x.ndim - 2)))
