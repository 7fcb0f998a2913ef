r"""Local reparametrisation of a linear layer (Kingma, Salimans, Welling 2015): draw its output instead of its weights.

With means m and variances w of the weights, m_b and w_b of the bias, a scale s of each node and a standard normal eps,

.. math:: h = c + d \epsilon, \quad c = x m' + m_b, \quad d^2 = x^2 w' + w_b, \qquad y = s h.

Backwards, from the gradient of y,

.. math::
    dc = s\,dy, \quad d(d^2) = \frac{\epsilon}{2 d} dc, \quad ds = \sum h\,dy, \quad
    dm = dc' x, \quad dw = d(d^2)' x^2, \quad dx = dc\,m + 2 x\,d(d^2)\,w,

and the sums of dc and d(d^2) over the batch for the bias. From there `statistics` goes on to the factors. On a CPU all
of it is one node of the autograd graph, of which the kernels of `native` do all but the products.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgmcmc_prune import native
from sgmcmc_prune.baselines.variational import statistics
from sgmcmc_prune.baselines.variational.factors import noise_like, random_key
from sgmcmc_prune.baselines.variational.statistics import Factors, Moments, Sums

#: Keeps the gradient of a square root finite where every input of a node is zero.
SMALLEST_VARIANCE = 1e-16


def local_draw(x: Tensor, factors: Factors, scale: Tensor | None = None) -> tuple[Tensor, Sums]:
    """Outputs y, shape (n, J), of inputs x (n, K): one draw of the weights per example. And the sums of the factors."""
    if statistics.takes(factors) and native.takes(x) and (scale is None or native.takes(scale)):
        outputs, *sums = _LocalDraw.apply(x, scale, *factors)
        return outputs, Sums(*sums)
    moments, found = statistics.statistics(factors)
    return draw_from_moments(x, moments, scale), found


def draw_from_moments(x: Tensor, moments: Moments, scale: Tensor | None = None) -> Tensor:
    """The same outputs by elementary operations, from any moments (those of a masked layer are no factor's)."""
    variance = F.linear(x.square(), moments.variance, moments.bias_variance).clamp(min=SMALLEST_VARIANCE)
    h = F.linear(x, moments.mean, moments.bias_mean) + variance.sqrt() * noise_like(variance)
    return h if scale is None else h * scale


class _LocalDraw(torch.autograd.Function):
    """`local_draw`; the equations of this module."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | None, *factors: Any) -> tuple[Tensor, ...]:
        mean, variance, bias_mean, bias_variance, sums = native.factor_statistics(*factors)
        squares = x.square()
        centre, spread = F.linear(x, mean, bias_mean), F.linear(squares, variance, bias_variance)
        outputs, before, slope = native.local_draw(random_key(), centre, spread, scale, SMALLEST_VARIANCE)
        kept = (slope, None if scale is None else before)
        ctx.save_for_backward(x, scale, squares, mean, variance, *kept, *factors)
        return outputs, *sums.unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *sums: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, squares, mean, variance, slope, before, *factors = ctx.saved_tensors
        dc, dv, (*bias, dscale) = native.local_gradient(gradient, before, slope, scale)
        dx = torch.addcmul(dc @ mean, x, dv @ variance, value=2) if ctx.needs_input_grad[0] else None
        dm_b, dw_b = bias if factors[3] is not None else (None, None)
        of_factors = native.factor_gradient(factors, dc.T @ x, dv.T @ squares, dm_b, dw_b, torch.stack(sums))
        return dx, None if scale is None else dscale, *of_factors
