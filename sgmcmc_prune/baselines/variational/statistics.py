r"""What a layer and a divergence need of the factor of a weight tensor, as one node of the autograd graph.

The layer needs the moments of each entry. The divergence from a normal prior that the entries of a row share, such as
the weights into a node, is linear in a few sums over the row. Made together they read each weight once; so does the
gradient, in closed form, where a graph of elementary operations makes dozens of passes.

With rho = log sigma, v = e^{2 rho}, a gate g = sigmoid(lambda) on each entry and q = v + mu^2:

.. math::
    m = g \mu, \quad w = g (v + (1 - g) \mu^2), \quad
    a = \sum g \rho, \quad b = \sum g q, \quad c = \sum g, \quad e = \sum g \log g + (1 - g) \log(1 - g),

and backwards, from gradients of these,

.. math::
    d\mu &= g \left( dm + 2 \mu (db + (1 - g)\,dw) \right), \qquad d\rho = g (da + 2 v (db + dw)), \\
    d\lambda &= g (1 - g) \left( \mu\,dm + (q - 2 g \mu^2)\,dw + \rho\,da + q\,db + dc + \lambda\,de \right).

Without gates g = 1. On a CPU the kernels of `native` do this, elsewhere torch.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgmcmc_prune import native


class Statistics(NamedTuple):
    """Moments of each entry, and sums over the entries of each row, shape (J,)."""

    mean: Tensor  #: m
    variance: Tensor  #: w
    log_std: Tensor  #: a
    second_moment: Tensor  #: b
    size: Tensor | int  #: c
    information: Tensor | float  #: e


def statistics(mean: Tensor, log_std: Tensor, logits: Tensor | None = None) -> Statistics:
    """Statistics of a factor from mu, log sigma and the gates' logits, each with J rows; gradients go through."""
    found = _Statistics.apply(mean, log_std, logits)
    return Statistics._make(found if logits is not None else (*found, mean[0].numel(), 0.0))


class _Statistics(torch.autograd.Function):
    """m, w, a, b and with gates c, e; `_compute` and `_gradient` are the equations of this module."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, logits: Tensor | None) -> tuple[Tensor, ...]:
        ctx.save_for_backward(mean, log_std, logits)
        ctx.native = all(x is None or native.takes(x) for x in (mean, log_std, logits))
        compute = native.factor_statistics if ctx.native else _compute
        m, w, sums = compute(mean, log_std, logits)
        return m, w, *sums.unbind()

    @staticmethod
    def backward(ctx: Any, dm: Tensor, dw: Tensor, *dsums: Tensor) -> tuple[Tensor | None, ...]:
        mean, log_std, logits = ctx.saved_tensors
        gradient = native.factor_gradient if ctx.native else _gradient
        return gradient(mean, log_std, logits, dm, dw, torch.stack(dsums))


def _compute(mean: Tensor, log_std: Tensor, logits: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    v, square = (2 * log_std).exp_(), mean.square()
    if logits is None:
        return mean, v, torch.stack([total(log_std), total(v + square)])
    g = logits.sigmoid()
    m, closed, q = g * mean, 1 - g, v + square
    sums = (g * log_std, g * q, g, g.log() - closed * logits)  # e: log (1 - g) is log g - lambda
    return m, g * torch.addcmul(v, closed, square), torch.stack([total(x) for x in sums])


def _gradient(
    mean: Tensor, log_std: Tensor, logits: Tensor | None, dm: Tensor, dw: Tensor, dsums: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    v = (2 * log_std).exp_()
    da, db, *of_gates = (per_row(x, mean) for x in dsums)
    if logits is None:
        return torch.addcmul(dm, 2 * db, mean), torch.addcmul(da, v, dw + db, value=2), None
    dc, de = of_gates
    g, square = logits.sigmoid(), mean.square()
    closed, q = 1 - g, v + square
    dmean = g * (dm + 2 * mean * (db + closed * dw))
    dlog_std = g * (da + 2 * v * (db + dw))
    rise = mean * dm + (q - 2 * g * square) * dw + log_std * da + q * db + dc + logits * de
    return dmean, dlog_std, g * closed * rise


def per_row(values: Tensor | float, like: Tensor) -> Any:
    """One value per row (or for all), broadcastable over a tensor (J, ...)."""
    return values.view(-1, *([1] * (like.ndim - 1))) if isinstance(values, Tensor) and values.ndim else values


def total(x: Tensor) -> Tensor:
    """Sum of all entries in each row, shape (J,)."""
    return x.sum(tuple(range(1, x.ndim))) if x.ndim > 1 else x
