r"""Variational counterparts of Linear, Conv2d and BatchNorm: one draw of the weights per example.

A linear layer draws its output instead of its weights (see `local`). For a convolution that would draw fresh weights at
every position of an image, which no network in q does. Flipout (Wen et al., ICLR 2018) draws weights per example
exactly, at the cost of one convolution with twice the outputs: with V a draw of the deviations from the mean, and
random signs s of each example, one per output channel,

    h = E[W] * x + s (V * x);

the deviations of two examples are uncorrelated. (Signs of the input channels, too, would cost another convolution.)

Relaxed gates on single weights (`RelaxedNormal`) are the exception: there a whole batch has one draw.

Normalisation layers draw scale and shift per example. The statistics of a batch stay deterministic. A shrinkage scale
of the nodes, where there is one, is drawn once per forward pass.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sgmcmc_prune.baselines.variational.factors import GatedNormal, Normal, RelaxedNormal, noise_like
from sgmcmc_prune.baselines.variational.local import SMALLEST_VARIANCE, draw_from_moments, local_draw
from sgmcmc_prune.baselines.variational.statistics import (
    Factors,
    Moments,
    Sums,
    per_row,
    row_divergence,
    statistics,
    total,
)

#: Gives the scales of a layer's nodes as last drawn, shape (J,).
Scale = Callable[[], Tensor]


class WeightLayer(nn.Module):
    """A layer with factors `weight` and `bias` (or no bias), and a scale of its nodes (or none)."""

    sums: Sums | None

    def __init__(self, weight: Normal, bias: Normal | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.scale: Scale | None = None
        self.sharing, self.sums = False, None  # see `once`

    @property
    def factors(self) -> Factors:
        """Parameters of all factors."""
        logits = self.weight.logits if isinstance(self.weight, GatedNormal) else None
        bias = () if self.bias is None else (self.bias.mean, self.bias.log_std)
        return Factors(self.weight.mean, self.weight.log_std, logits, *bias)

    @property
    def masked(self) -> bool:
        """Whether some entries are fixed at zero."""
        return self.weight.kept is not None or (self.bias is not None and self.bias.kept is not None)

    def divergence(self, log_prior_std: Tensor | float, prior_precision: Tensor | float) -> Tensor:
        """KL of the weights and the bias of each node from N(0, s^2), shape (J,); moments of s as in `kl.normal`."""
        if self.masked:
            found = _rows(self.weight, log_prior_std, prior_precision)
            return found if self.bias is None else found + _rows(self.bias, log_prior_std, prior_precision)
        sums = statistics(self.factors)[1] if self.sums is None else self.sums
        inclusion = self.weight.inclusion if isinstance(self.weight, GatedNormal) else None
        return row_divergence(self.factors, sums, log_prior_std, prior_precision, inclusion)

    def _moments(self) -> Moments:
        """Those of the factors, of which the mask is part."""
        return Moments(*self.weight.moments(), *(() if self.bias is None else self.bias.moments()))

    def _drawn_bias(self) -> Tensor | None:
        return None if self.bias is None else self.bias.draw()

    def _keep(self, sums: Sums) -> None:
        if self.sharing:
            vars(self)["sums"] = sums


class VariationalLinear(WeightLayer):
    """y = s (W x + b); takes (n, inputs)."""

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, J)."""
        if x.ndim != 2:
            shape = tuple(x.shape)
            raise ValueError(f"a variational Linear layer takes inputs (n, features), not {shape}: flatten them before")
        if isinstance(self.weight, RelaxedNormal):
            return F.linear(x, self.weight.relaxed(), self._drawn_bias())
        scale = None if self.scale is None else self.scale()
        if self.masked:
            return draw_from_moments(x, self._moments(), scale)
        outputs, sums = local_draw(x, self.factors, scale)
        self._keep(sums)
        return outputs


class VariationalConv2d(WeightLayer):
    """A convolution with the options of `source`."""

    def __init__(self, weight: Normal, bias: Normal | None, source: nn.Conv2d) -> None:
        super().__init__(weight, bias)
        self.options = {name: getattr(source, name) for name in ("stride", "padding", "dilation", "groups")}

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, J, height, width)."""
        if isinstance(self.weight, RelaxedNormal):
            return F.conv2d(x, self.weight.relaxed(), self._drawn_bias(), **self.options)
        groups, scale = self.options["groups"], None if self.scale is None else self.scale()
        if self.masked:
            moments = self._moments()
        else:
            moments, sums = statistics(self.factors)
            self._keep(sums)
        weight = _mean_and_deviation(moments.mean, moments.variance, scale, groups)
        stored = self.weight.mean
        if stored.stride(1) == 1 and stored.stride(3) == stored.shape[1]:
            weight = weight.to(memory_format=torch.channels_last)  # which arithmetic forgets where there is one channel
        bias = None
        if moments.bias_mean is not None and moments.bias_variance is not None:
            bias = _mean_and_deviation(moments.bias_mean, moments.bias_variance, scale, groups)
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
            drawn = self.scale().view(shape)
            weight, bias = drawn * weight, drawn * bias
        return torch.addcmul(bias, self.normalise(x), weight)

    def divergence(self, log_prior_std: Tensor | float, prior_precision: Tensor | float) -> Tensor:
        """KL of the weight from N(1, s^2) and of the bias from N(0, s^2) of each channel, shape (J,)."""
        moments = log_prior_std, prior_precision
        return self.weight.divergence(*moments, 1.0) + self.bias.divergence(*moments)


VariationalLayer = VariationalLinear | VariationalConv2d | VariationalBatchNorm


@contextmanager
def once(layers: Iterable[VariationalLayer]) -> Iterator[None]:
    """Inside, the divergence of a layer uses what its forward pass has summed: both share a graph and its backward."""
    # Attributes are set past Module.__setattr__, which is slow.
    shared = [vars(layer) for layer in layers if isinstance(layer, WeightLayer)]
    for attributes in shared:
        attributes["sharing"] = True
    try:
        yield
    finally:
        for attributes in shared:
            attributes["sharing"], attributes["sums"] = False, None


def _rows(factor: Normal, log_prior_std: Tensor | float, prior_precision: Tensor | float) -> Tensor:
    """KL of each row of a factor from N(0, s^2), shape (J,), entry by entry."""
    log_prior_std, prior_precision = (per_row(x, factor.mean) for x in (log_prior_std, prior_precision))
    return total(factor.divergence(log_prior_std, prior_precision))


def _mean_and_deviation(mean: Tensor, variance: Tensor, scale: Tensor | None, groups: int) -> Tensor:
    """Mean and one draw of w - E w, times the scale, the one after the other within each group of outputs."""
    deviation = (variance + SMALLEST_VARIANCE).sqrt() * noise_like(mean)
    if scale is not None:
        scale = per_row(scale, mean)
        mean, deviation = scale * mean, scale * deviation
    pairs = zip(mean.chunk(groups), deviation.chunk(groups), strict=True)
    return torch.cat([part for pair in pairs for part in pair])


def _signs(x: Tensor) -> Tensor:
    """Random signs, one per example and channel."""
    return torch.randint(0, 2, (*x.shape[:2], 1, 1), device=x.device).to(x).mul_(2).sub_(1)


def _deviation(factor: Normal, x: Tensor) -> Tensor:
    """Draws of w - E w of a per-channel factor, one per example: shape (n, J, 1, ...)."""
    std = (factor.moments()[1] + SMALLEST_VARIANCE).sqrt().expand(len(x), -1)
    return (std * noise_like(std)).view(*std.shape, *([1] * (x.ndim - 2)))
