r"""Variational counterparts of Linear, Conv2d and BatchNorm: one draw of the weights per example, never per batch.

A linear layer draws its output instead of its weights (local reparametrisation; Kingma, Salimans, Welling 2015):

    h = x E[W] + sqrt(x^2 Var[W]) eps.

For a convolution that would draw fresh weights at every position of an image, which no network in q does. Flipout (Wen
et al., ICLR 2018) draws weights per example exactly, at the same cost of two convolutions: with V a draw of the
deviations from the mean, and random signs r (per input channel) and s (per output channel) of each example,

    h = E[W] * x + s (V * (r x)).

Normalisation layers draw scale and shift per example. The statistics of a batch stay deterministic.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sgmcmc_prune.baselines.variational.factors import Normal, noise_like

#: Keeps the gradient of a square root finite where every input of a node is zero.
_SMALLEST_VARIANCE = 1e-16


class VariationalLinear(nn.Module):
    """y = W x + b with factors `weight` and `bias` (or no bias); takes (n, inputs)."""

    def __init__(self, weight: Normal, bias: Normal | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, J)."""
        mean, variance = self.weight.moments()
        bias_mean, bias_variance = self.bias.moments() if self.bias is not None else (None, None)
        centre = F.linear(x, mean, bias_mean)
        spread = F.linear(x.square(), variance, bias_variance)
        return centre + (spread + _SMALLEST_VARIANCE).sqrt() * noise_like(centre)


class VariationalConv2d(nn.Module):
    """A convolution with factors `weight` and `bias` (or no bias), and the options of `source`."""

    def __init__(self, weight: Normal, bias: Normal | None, source: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.options = {name: getattr(source, name) for name in ("stride", "padding", "dilation", "groups")}

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, J, height, width)."""
        mean, variance = self.weight.moments()
        deviation = (variance + _SMALLEST_VARIANCE).sqrt() * noise_like(mean)
        bias = self.bias.moments()[0] if self.bias is not None else None
        centre = F.conv2d(x, mean, bias, **self.options)
        signs_in, signs_out = _signs(x, x.shape[1]), _signs(x, centre.shape[1])
        spread = F.conv2d(x * signs_in, deviation, None, **self.options) * signs_out
        if self.bias is not None:
            spread = spread + _deviation(self.bias, x)
        return centre + spread


class VariationalBatchNorm(nn.Module):
    """Normalisation by batch statistics, then y = weight x + bias with a factor each."""

    def __init__(self, weight: Normal, bias: Normal, normalise: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.normalise = weight, bias, normalise

    def forward(self, x: Tensor) -> Tensor:
        """Outputs shaped like x, (n, J, ...)."""
        shape = (1, -1, *([1] * (x.ndim - 2)))
        normalised = self.normalise(x)
        weight = self.weight.moments()[0].view(shape) + _deviation(self.weight, x)
        return normalised * weight + self.bias.moments()[0].view(shape) + _deviation(self.bias, x)


def _signs(x: Tensor, channels: int) -> Tensor:
    return torch.randint(0, 2, (len(x), channels, 1, 1), device=x.device).to(x).mul_(2).sub_(1)


def _deviation(factor: Normal, x: Tensor) -> Tensor:
    """Draws of w - E w of a per-channel factor, one per example: shape (n, J, 1, ...)."""
    std = (factor.moments()[1] + _SMALLEST_VARIANCE).sqrt().expand(len(x), -1)
    return (std * noise_like(std)).view(*std.shape, *([1] * (x.ndim - 2)))
