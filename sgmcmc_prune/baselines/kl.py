r"""Kullback-Leibler divergences of variational factors from their priors, in nats, elementwise and in closed form.

A prior that is itself uncertain (a scale with its own factor) enters through its expectations alone: the mean of the
log prior scale and the mean of the prior precision, or the mean rate and the mean log rate.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Half the log of 2 pi e: the entropy of a standard normal.
NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi) + 0.5


def normal(
    mean: Tensor, log_std: Tensor, log_prior_std: Tensor | float, prior_precision: Tensor | float, centre: float = 0.0
) -> Tensor:
    r"""KL of N(mu, sigma^2) from N(c, s^2), expected over the prior scale s.

    .. math:: E \log s - \log\sigma - \tfrac12 + \tfrac12 (\sigma^2 + (\mu - c)^2) \, E s^{-2}

    Parameters
    ----------
    mean, log_std : Tensor
        mu and log sigma.
    log_prior_std, prior_precision : Tensor or float
        E log s and E s^-2; log s and s^-2 where s is fixed.
    centre : float
        c.

    Returns
    -------
    Tensor, shaped like `mean`
    """
    second_moment = (2 * log_std).exp() + (mean - centre).square()
    return log_prior_std - log_std - 0.5 + 0.5 * second_moment * prior_precision


def normal_rows(
    factors: Sequence[tuple[Tensor, Tensor]], log_prior_std: Tensor | float, prior_precision: Tensor | float
) -> Tensor:
    """Sum of `normal` over each row of several tensors, such as weight and bias of one layer, shape (J,).

    Entries of a row share their prior, so that they are summed first: large weights are read a few times only.

    Parameters
    ----------
    factors : sequence of (mean, log_std)
        Each with J rows; the prior's centre is zero.
    log_prior_std, prior_precision : Tensor, shape (J,), or float
        As for `normal`.
    """
    log_stds, second_moments = _RowSums.apply(*(tensor for factor in factors for tensor in factor))
    size = sum(mean[0].numel() for mean, _ in factors)
    return size * (log_prior_std - 0.5) - log_stds + 0.5 * prior_precision * second_moments


class _RowSums(torch.autograd.Function):
    """Row sums of log sigma and of sigma^2 + mu^2 over tensors mu, log sigma, mu, log sigma, ... with J rows each."""

    @staticmethod
    def forward(ctx: Any, *factors: Tensor) -> tuple[Tensor, Tensor]:
        means, log_stds = factors[::2], factors[1::2]
        variances = [(2 * log_std).exp_() for log_std in log_stds]
        ctx.save_for_backward(*means, *variances)
        second_moments = [torch.addcmul(v, mean, mean) for mean, v in zip(means, variances, strict=True)]
        return _total(log_stds), _total(second_moments)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        half = len(ctx.saved_tensors) // 2
        for mean, variance in zip(ctx.saved_tensors[:half], ctx.saved_tensors[half:], strict=True):
            log_stds, second_moments = (g.view(-1, *([1] * (mean.ndim - 1))) for g in gradients)
            twice = 2 * second_moments
            found += [twice * mean, torch.addcmul(log_stds, twice, variance)]
        return tuple(found)


def _total(tensors: Sequence[Tensor]) -> Tensor:
    """Sum of all entries in each row, shape (J,)."""
    rows = [t.sum(tuple(range(1, t.ndim))) if t.ndim > 1 else t for t in tensors]
    return torch.stack(rows).sum(0)


def bernoulli(logits: Tensor, inclusion: float) -> Tensor:
    r"""KL of Bernoulli(g) from Bernoulli(lambda), g = sigmoid(logits): finite for any logit.

    .. math:: g \log\frac{g}{\lambda} + (1 - g) \log\frac{1 - g}{1 - \lambda}
              = g \left( \log\frac{g}{1 - g} - \log\frac{\lambda}{1 - \lambda} \right)
              + \log(1 - g) - \log(1 - \lambda)
    """
    return logits.sigmoid() * (logits - log_odds(inclusion)) + F.logsigmoid(-logits) - math.log1p(-inclusion)


def log_normal_from_gamma(
    loc: Tensor,
    log_std: Tensor,
    shape: Tensor | float,
    mean_rate: Tensor | float,
    mean_log_rate: Tensor | float,
) -> Tensor:
    r"""KL of exp N(m, s^2) from Gamma(a, rate b), expected over the rate b.

    .. math:: -a m - a\,E\log b + \log\Gamma(a) + E b \; e^{m + s^2/2} - \log s - \tfrac12\log 2\pi - \tfrac12

    Parameters
    ----------
    loc, log_std : Tensor
        m and log s: mean and log standard deviation of the logarithm.
    shape : Tensor or float
        a.
    mean_rate, mean_log_rate : Tensor or float
        E b and E log b; b and log b where the rate is fixed.
    """
    mean = torch.add(loc, (2 * log_std).exp(), alpha=0.5).exp()
    log_gamma = shape.lgamma() if isinstance(shape, Tensor) else math.lgamma(shape)
    constants = log_gamma - NORMAL_ENTROPY - shape * mean_log_rate
    return mean_rate * mean - shape * loc - log_std + constants


def log_normal_from_inverse_gamma(loc: Tensor, log_std: Tensor, shape: float, rate: float) -> Tensor:
    """KL of exp N(m, s^2) from InvGamma(a, b): that of exp N(-m, s^2) from Gamma(a, b), by inverting the variable."""
    return log_normal_from_gamma(-loc, log_std, shape, rate, math.log(rate))


def check_inclusion(value: float, name: str = "inclusion") -> None:
    """Raise ValueError unless a probability of inclusion is a number inside (0, 1)."""
    if not (isinstance(value, int | float) and 0 < value < 1):
        raise ValueError(f"{name} is {value!r}; a probability of inclusion must be inside (0, 1)")


def log_odds(probability: float) -> float:
    """log p / (1 - p)."""
    return math.log(probability) - math.log1p(-probability)


def responsibility(log_odds: Tensor) -> Tensor:
    """Sigmoid of log odds clipped to +-50, so that neither side is exactly 0."""
    return torch.sigmoid(log_odds.clamp(-50, 50))
