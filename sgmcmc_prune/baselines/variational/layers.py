r"""Variational counterparts of Linear, Conv2d and BatchNorm: one draw of the weights per example, never per batch.

A linear layer draws its output instead of its weights (local reparametrisation; Kingma, Salimans, Welling 2015):

    h = x E[W] + sqrt(x^2 Var[W]) eps.

For a convolution that would draw fresh weights at every position of an image, which no network in q does. Flipout (Wen
et al., ICLR 2018) draws weights per example exactly, at the cost of one convolution with twice the outputs: with V a
draw of the deviations from the mean, and random signs s of each example, one per output channel,

    h = E[W] * x + s (V * x);

the deviations of two examples are uncorrelated. (Signs of the input channels, too, would cost another convolution.)

Normalisation layers draw scale and shift per example. The statistics of a batch stay deterministic. A shrinkage scale
of the nodes, where there is one, is drawn once per forward pass.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sgmcmc_prune.baselines.variational.factors import Normal, noise_like
from sgmcmc_prune.baselines.variational.scales import Scale

#: Keeps the gradient of a square root finite where every input of a node is zero.
_SMALLEST_VARIANCE = 1e-16


class VariationalLinear(nn.Module):
    """y = s (W x + b) with factors `weight` and `bias` (or no bias) and a scale s (or none); takes (n, inputs)."""

    def __init__(self, weight: Normal, bias: Normal | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.scale: Scale | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, J)."""
        mean, variance = self.weight.moments()
        bias = self.bias.moments() if self.bias is not None else (None, None)
        scale = None if self.scale is None else self.scale.draw()
        return _LocalDraw.apply(x, mean, variance, *bias, scale, noise_like(x.new_empty(len(x), len(mean))))


class _LocalDraw(torch.autograd.Function):
    r"""h = s (c + d eps) with c = x m' + m_b and d^2 = x^2 w' + w_b, from means m, variances w, s and eps. Backwards

    .. math::
        dc = s\,dh, \quad d(d^2) = \frac{\epsilon\,dc}{2 d}, \quad ds = \sum (c + d \epsilon)\,dh, \quad
        dm = dc' x, \quad dw = d(d^2)' x^2, \quad dx = dc\,m + 2 x\,d(d^2)\,w,

    and the sums of dc and d(d^2) over the batch for the bias.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        bias_mean: Tensor | None,
        bias_variance: Tensor | None,
        scale: Tensor | None,
        noise: Tensor,
    ) -> Tensor:
        squares = x.square()
        floor = variance.new_zeros(len(variance)) if bias_variance is None else bias_variance
        std = F.linear(squares, variance, floor + _SMALLEST_VARIANCE).sqrt_()
        outputs = torch.addcmul(F.linear(x, mean, bias_mean), std, noise)
        ctx.save_for_backward(x, squares, mean, variance, scale, noise, std, None if scale is None else outputs)
        ctx.biased = bias_mean is not None
        return outputs if scale is None else outputs * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, squares, mean, variance, scale, noise, std, outputs = ctx.saved_tensors
        centre = gradient if scale is None else gradient * scale
        spread = (centre * noise).div_(std).mul_(0.5)
        return (
            torch.addcmul(centre @ mean, x, spread @ variance, value=2) if ctx.needs_input_grad[0] else None,
            centre.T @ x,
            spread.T @ squares,
            centre.sum(0) if ctx.biased else None,
            spread.sum(0) if ctx.biased else None,
            None if scale is None else (gradient * outputs).sum(0),
            None,
        )


class VariationalConv2d(nn.Module):
    """A convolution with factors `weight` and `bias` (or no bias), a scale (or none), and the options of `source`."""

    def __init__(self, weight: Normal, bias: Normal | None, source: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.scale: Scale | None = None
        self.options = {name: getattr(source, name) for name in ("stride", "padding", "dilation", "groups")}

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, J, height, width)."""
        groups, scale = self.options["groups"], 1.0 if self.scale is None else self.scale.draw()
        weight = _mean_and_deviation(self.weight, scale, groups)
        bias = None if self.bias is None else _mean_and_deviation(self.bias, scale, groups)
        both = F.conv2d(x, weight, bias, **self.options).unflatten(1, (groups, 2, -1))
        centre, spread = (part.flatten(1, 2) for part in both.unbind(2))
        return torch.addcmul(centre, spread, _signs(centre))


class VariationalBatchNorm(nn.Module):
    """Normalisation by batch statistics, then y = s (weight x + bias) with a factor each and a scale s (or none)."""

    def __init__(self, weight: Normal, bias: Normal, normalise: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.normalise = weight, bias, normalise
        self.scale: Scale | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Outputs shaped like x, (n, J, ...)."""
        shape = (1, -1, *([1] * (x.ndim - 2)))
        weight, bias = (f.moments()[0].view(shape) + _deviation(f, x) for f in (self.weight, self.bias))
        if self.scale is not None:
            rows = self.scale.draw().view(shape)
            weight, bias = rows * weight, rows * bias
        return torch.addcmul(bias, self.normalise(x), weight)


def _mean_and_deviation(factor: Normal, scale: Tensor | float, groups: int) -> Tensor:
    """Mean and one draw of w - E w, times the scale, the one after the other within each group of outputs."""
    mean, variance = factor.moments()
    deviation = (variance + _SMALLEST_VARIANCE).sqrt() * noise_like(mean)
    if isinstance(scale, Tensor):
        rows = scale.view(-1, *([1] * (mean.ndim - 1)))
        mean, deviation = rows * mean, rows * deviation
    pairs = zip(mean.chunk(groups), deviation.chunk(groups), strict=True)
    both = torch.cat([part for pair in pairs for part in pair])
    stored = factor.mean
    if stored.ndim == 4 and stored.stride(1) == 1 and stored.stride(3) == stored.shape[1]:
        both = both.to(memory_format=torch.channels_last)  # which arithmetic forgets where there is one channel
    return both


def _signs(x: Tensor) -> Tensor:
    """Random signs, one per example and channel."""
    return torch.randint(0, 2, (*x.shape[:2], 1, 1), device=x.device).to(x).mul_(2).sub_(1)


def _deviation(factor: Normal, x: Tensor) -> Tensor:
    """Draws of w - E w of a per-channel factor, one per example: shape (n, J, 1, ...)."""
    std = (factor.moments()[1] + _SMALLEST_VARIANCE).sqrt().expand(len(x), -1)
    return (std * noise_like(std)).view(*std.shape, *([1] * (x.ndim - 2)))
