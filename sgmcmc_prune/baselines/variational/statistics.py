r"""What a layer and a divergence need of the factors of a layer's weights, as one node of the autograd graph.

The layer needs the moments of each entry. The divergence from a normal prior that the weights into a node share is
linear in a few sums over them. Made together they read each weight once; so does the gradient, in closed form, where a
graph of elementary operations makes dozens of passes.

With rho = log sigma, v = e^{2 rho}, a gate g = sigmoid(lambda) on each entry and q = v + mu^2, moments and sums over
the entries of a row are

.. math::
    m = g \mu, \quad w = g (v + (1 - g) \mu^2), \quad
    a = \sum g \rho, \quad b = \sum g q, \quad c = \sum g, \quad e = \sum g \log g + (1 - g) \log(1 - g),

and backwards, from gradients of these,

.. math::
    d\mu &= g \left( dm + 2 \mu (db + (1 - g)\,dw) \right), \qquad d\rho = g (da + 2 v (db + dw)), \\
    d\lambda &= g (1 - g) \left( \mu\,dm + (q - 2 g \mu^2)\,dw + \rho\,da + q\,db + dc + \lambda\,de \right).

A bias is one more entry of its row, always without a gate; without gates g = 1. On a CPU the kernels of `native` do
this, elsewhere torch and its own gradient.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgmcmc_prune import native
from sgmcmc_prune.baselines import kl


class Factors(NamedTuple):
    """Parameters of the factors of a layer with J nodes."""

    mean: Tensor  #: mu of the weights, shape (J, ...)
    log_std: Tensor  #: rho
    logits: Tensor | None = None  #: lambda
    bias_mean: Tensor | None = None  #: shape (J,)
    bias_log_std: Tensor | None = None


class Sums(NamedTuple):
    """Sums over the entries of each row, shape (J,)."""

    log_std: Tensor  #: a
    second_moment: Tensor  #: b
    gates: Tensor | None = None  #: c, of the weights alone
    information: Tensor | None = None  #: e


class Moments(NamedTuple):
    """Mean and variance of each entry."""

    mean: Tensor  #: m
    variance: Tensor  #: w
    bias_mean: Tensor | None = None
    bias_variance: Tensor | None = None


def statistics(factors: Factors) -> tuple[Moments, Sums]:
    """Moments and sums; gradients go through."""
    last = _is_channels_last(factors.mean)
    if not takes(Factors(*(_row_major(x, last) for x in factors))):
        return _by_torch(factors)
    found, count = _Statistics.apply(last, *factors), 2 if factors.bias_mean is None else 4
    return Moments(*found[:count]), Sums(*found[count:])


def row_divergence(
    factors: Factors,
    sums: Sums,
    log_prior_std: Tensor | float,
    prior_precision: Tensor | float,
    inclusion: float | None = None,
) -> Tensor:
    r"""KL of each row's factors from the prior N(0, s^2), shape (J,), with gates from their Bernoulli(pi), too.

    .. math::
        (c + c_b) (\log s - \tfrac12) - a + \tfrac12 s^{-2} b \; + \; e - c \log\frac{\pi}{1 - \pi} - K \log(1 - \pi)

    with K weights in a row and c_b = 1 where there is a bias. Without gates c = K and nothing follows b.

    Parameters
    ----------
    factors : Factors
    sums : Sums
    log_prior_std, prior_precision : Tensor, shape (J,), or float
        E log s and E s^-2.
    inclusion : float, optional
        pi; given if and only if there are gates.
    """
    each, size, biased = log_prior_std - 0.5, factors.mean[0].numel(), factors.bias_mean is not None
    linear = (size if sums.gates is None else 0) + biased  # what multiplies log s - 1/2, but for c
    rows = linear * each - sums.log_std
    if isinstance(prior_precision, Tensor):
        rows = torch.addcmul(rows, prior_precision, sums.second_moment, value=0.5)
    else:
        rows = torch.add(rows, sums.second_moment, alpha=0.5 * prior_precision)
    if sums.gates is None or sums.information is None or inclusion is None:
        return rows
    rows = rows + sums.information - size * math.log1p(-inclusion)
    return torch.add(rows, sums.gates, alpha=float(each) - kl.log_odds(inclusion))


class _Statistics(torch.autograd.Function):
    """Moments and sums of `Factors`, one after the other. An image tensor in channels_last order stays in it."""

    @staticmethod
    def forward(ctx: Any, channels_last: bool, *given: Tensor | None) -> tuple[Tensor, ...]:
        ctx.channels_last = channels_last
        factors = Factors(*(_row_major(x, channels_last) for x in given))
        ctx.save_for_backward(*factors)
        *moments, sums = native.factor_statistics(*factors)
        found = (_as_image(x, channels_last) for x in moments if x is not None)
        return *found, *sums.unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        factors = Factors(*ctx.saved_tensors)
        count = 2 if factors.bias_mean is None else 4
        order = (_row_major(x, ctx.channels_last) for x in gradients[:count])
        # The kernels write in place of them, and they belong to others.
        moments = Moments(*(x.clone(memory_format=torch.contiguous_format) for x in order))
        found = native.factor_gradient(factors, *moments, torch.stack(gradients[count:]))
        return None, *(_as_image(x, ctx.channels_last) for x in found)


def takes(factors: Factors) -> bool:
    """Whether the kernels of `native` can do what follows."""
    return all(x is None or native.takes(x) for x in factors)


def _by_torch(factors: Factors) -> tuple[Moments, Sums]:
    mean, log_std, logits, bias_mean, bias_log_std = factors
    v, square, bias_variance = (2 * log_std).exp(), mean.square(), None
    if logits is None:
        m, w, sums = mean, v, [total(log_std), total(v + square)]
    else:
        g = logits.sigmoid()
        closed, q = 1 - g, v + square
        m, w = g * mean, g * torch.addcmul(v, closed, square)
        # e: log (1 - g) is log g - lambda
        sums = [total(x) for x in (g * log_std, g * q, g, g.log() - closed * logits)]
    if bias_mean is not None and bias_log_std is not None:
        bias_variance = (2 * bias_log_std).exp()
        sums[:2] = sums[0] + bias_log_std, sums[1] + bias_variance + bias_mean.square()
    return Moments(m, w, bias_mean, bias_variance), Sums(*sums)


def _is_channels_last(x: Tensor | None) -> bool:
    return (
        x is not None and x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    )


def _row_major(x: Any, channels_last: bool) -> Any:
    """A view of an image tensor whose order of dimensions is that of memory; sums over rows do not mind."""
    return x.permute(0, 2, 3, 1) if channels_last and x is not None and x.ndim == 4 else x


def _as_image(x: Any, channels_last: bool) -> Any:
    """Undo `_row_major`."""
    return x.permute(0, 3, 1, 2) if channels_last and x is not None and x.ndim == 4 else x


def per_row(values: Tensor | float, like: Tensor) -> Any:
    """One value per row (or for all), broadcastable over a tensor (J, ...)."""
    return values.view(-1, *([1] * (like.ndim - 1))) if isinstance(values, Tensor) and values.ndim else values


def total(x: Tensor) -> Tensor:
    """Sum of all entries in each row, shape (J,)."""
    return x.sum(tuple(range(1, x.ndim))) if x.ndim > 1 else x
