r"""Kullback-Leibler divergences of variational factors from their priors, in nats, elementwise and in closed form.

A prior that is itself uncertain (a scale with its own factor) enters through its expectations alone: the mean of the
log prior scale and the mean of the prior precision, or the mean rate and the mean log rate.
"""

import math
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


def bernoulli(logits: Tensor, inclusion: float) -> Tensor:
    r"""KL of Bernoulli(g) from Bernoulli(lambda), g = sigmoid(logits): finite for any logit.

    .. math:: g \log\frac{g}{\lambda} + (1 - g) \log\frac{1 - g}{1 - \lambda}
              = g \left( \log\frac{g}{1 - g} - \log\frac{\lambda}{1 - \lambda} \right)
              + \log(1 - g) - \log(1 - \lambda)
    """
    return _Bernoulli.apply(logits, inclusion)


class _Bernoulli(torch.autograd.Function):
    """`bernoulli`, with the gradient g (1 - g) (logit g - logit lambda).

    The gradient of the elementary operations is a difference of numbers near g, which has two digits left where a gate
    is surely open.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, inclusion: float) -> Tensor:
        odds = logits - log_odds(inclusion)
        ctx.save_for_backward(logits, odds)
        return (logits.sigmoid() * odds).add_(F.logsigmoid(-logits)).sub_(math.log1p(-inclusion))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, odds = ctx.saved_tensors
        return logits.sigmoid().mul_((-logits).sigmoid_()).mul_(odds).mul_(gradient), None


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
    log_gamma = shape.lgamma() if isinstance(shape, Tensor) else math.lgamma(shape)
    constants = log_gamma - NORMAL_ENTROPY - shape * mean_log_rate
    mean = (loc + 0.5 * (2 * log_std).exp()).exp()
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
