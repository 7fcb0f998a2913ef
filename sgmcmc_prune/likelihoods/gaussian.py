r"""Regression with normal noise: known, learned, or given by the network for each example.

    -log p(y | f) = sum_j (y_j - f_j)^2 / (2 s_j^2) + log(2 pi s_j^2) / 2

With noise "learned" every component has one standard deviation s_j, whose logarithm is a parameter of the model: it is
sampled with the weights, under the Gaussian prior of all parameters that are no weight matrices. With "heteroscedastic"
the network gives 2 k numbers for k targets, the means and then log s.

References
----------
Gneiting and Raftery (2007), Strictly proper scoring rules: CRPS. Grimit, Gneiting, Berrocal and Johnson (2006): CRPS of
a mixture of normals in closed form. Dawid (1984): the probability integral transform (PIT).
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, fx, nn
from torch.distributions import Normal

from sgmcmc_prune.likelihoods.base import Mixture, ObservationModel, columns, scores_of

#: Probability of the central predictive interval whose coverage is scored.
INTERVAL = 0.9
#: Members, evenly spaced, between which the CRPS takes all pairs.
CRPS_MEMBERS = 100


class LearnedNoise(nn.Module):
    """A network, and the logarithm of the noise's standard deviation of each of its k outputs.

    Parameters
    ----------
    network : nn.Module
        Gives (n, k).
    components : int
        k.
    """

    def __init__(self, network: nn.Module, components: int) -> None:
        super().__init__()
        self.network = network
        self.log_noise = nn.Parameter(torch.zeros(components))

    def forward(self, x: Tensor) -> Tensor:
        """Map examples to outputs (n, 2 k): means, then log s."""
        mean = self.network(x)
        if not isinstance(mean, Tensor | fx.Proxy):  # what `pruning.shrink` traces it with
            raise ValueError(f"the network returns a {type(mean).__name__}; it must return one tensor")
        means: Any = mean.reshape(x.shape[0], -1)
        return torch.cat([means, self.log_noise.expand(x.shape[0], -1)], dim=1)


class Gaussian(ObservationModel):
    """Regression with normal noise.

    Parameters
    ----------
    noise : float, "learned" or "heteroscedastic"
        A known standard deviation, one that is sampled with the weights, or one that the network gives.

    Raises
    ------
    ValueError
        For a noise that is none of these.
    """

    targets = "standardised"
    headings: ClassVar[Mapping[str, str]] = {
        "rmse": "RMSE",
        "nll": "NLL",
        "crps": "CRPS",
        "coverage": f"in {INTERVAL:.0%}",
    }

    def __init__(self, noise: float | Literal["learned", "heteroscedastic"] = "learned") -> None:
        known = isinstance(noise, int | float) and not isinstance(noise, bool) and 0 < noise < math.inf
        if not known and noise not in ("learned", "heteroscedastic"):
            raise ValueError(f"noise is {noise!r}; give a standard deviation > 0, 'learned' or 'heteroscedastic'")
        self.noise = noise

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-density of each example, summed over its k numbers."""
        outputs, targets = columns(outputs, targets, 1 if isinstance(self.noise, int | float) else 2)
        mean, log_noise = self._parts(outputs)
        residual = (targets - mean) * torch.exp(-log_noise)
        return (residual.square() / 2 + log_noise + math.log(2 * math.pi) / 2).sum(1)

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log s, each (..., k)."""
        if isinstance(self.noise, int | float):
            return outputs, torch.full_like(outputs, math.log(self.noise))
        mean, log_noise = outputs.chunk(2, dim=-1)
        return mean, log_noise

    def in_unit(self, unit: float) -> "Gaussian":
        """A known noise is in the units of the user's targets."""
        return Gaussian(self.noise / unit) if isinstance(self.noise, int | float) else self

    def num_outputs(self, width: int) -> int:
        """Means, and log s unless the noise is known."""
        return width if isinstance(self.noise, int | float) else 2 * width

    def num_network_outputs(self, width: int) -> int:
        """Means; log s, too, if the noise depends on the example."""
        return 2 * width if self.noise == "heteroscedastic" else width

    def completed(self, network: nn.Module, width: int) -> nn.Module:
        """The network with the learned noise's parameter."""
        return LearnedNoise(network, width) if self.noise == "learned" else network

    def mean(self, outputs: Tensor) -> Tensor:
        """Means."""
        return self._parts(outputs)[0]

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Means plus noise."""
        mean, log_noise = self._parts(outputs)
        return mean + log_noise.exp() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)

    def cross_entropy(self, outputs: Tensor, prediction: Any) -> Tensor:
        r"""With mean and variance of the mixture,
        :math:`\sum_j ((\bar m_j - m_j)^2 + \bar v_j) / (2 s_j^2) + \log s_j + \log(2 \pi) / 2`.
        """
        means, log_noises = self._parts(prediction.outputs)
        centre = means.mean(0)
        variance = (log_noises.mul(2).exp() + (means - centre).square()).mean(0)
        mean, log_noise = self._parts(outputs)
        spread = (centre.to(outputs) - mean).square() + variance.to(outputs)
        return (spread / (2 * log_noise.mul(2).exp()) + log_noise + math.log(2 * math.pi) / 2).sum(1)

    def score_single(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, float]:
        """RMSE and NLL."""
        return scores_of(self._error_and_nll(prediction, targets, unit))

    def each(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Tensor]:
        """Squared error of the mean, NLL, CRPS, and whether the target is in its central 90 % interval.

        In the user's unit; of several targets the NLL of all, and the mean of the others.
        """
        mean, log_noise, y = self._numbers(prediction, targets)
        inside = (self.pit(prediction, targets) - 0.5).abs() <= INTERVAL / 2
        return {
            **self._error_and_nll(prediction, targets, unit),
            "crps": unit * crps(mean, log_noise.exp(), y).mean(1),
            "coverage": inside.double().mean(1),
        }

    def _error_and_nll(self, prediction: Any, targets: Tensor, unit: float) -> dict[str, Tensor]:
        """Squared error of the mean, and NLL, of each example."""
        mean, _, y = self._numbers(prediction, targets)
        return {
            "rmse": unit**2 * (mean.mean(0) - y).square().mean(1),
            "nll": self.mixture_nll(prediction, targets) + y.shape[1] * math.log(unit),
        }

    def pit(self, prediction: Mixture, targets: Tensor) -> Tensor:
        """Probability, under the prediction, of a number below each target: (n, k); uniform if calibrated."""
        mean, log_noise, y = self._numbers(prediction, targets)
        return torch.special.ndtr((y - mean) / log_noise.exp()).mean(0)

    def _numbers(self, prediction: Mixture, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means and log s (members, n, k), and targets (n, k), in float64."""
        mean, log_noise = self._parts(prediction.outputs)
        return mean, log_noise, columns(mean[0], targets)[1].to(mean)


def crps(mean: Tensor, noise: Tensor, y: Tensor) -> Tensor:
    r"""Continuous ranked probability score of mixtures of normals, :math:`E|X - y| - \frac12 E|X - X'|`.

    Parameters
    ----------
    mean, noise : Tensor of float64, shape (members, n, k)
    y : Tensor of float64, shape (n, k)

    Returns
    -------
    Tensor, shape (n, k)
        In the units of `y`. Of more than 100 members, the second term takes 100 that are evenly spaced.
    """
    chosen = torch.linspace(0, len(mean) - 1, min(len(mean), CRPS_MEMBERS)).round().long()
    m, s = mean[chosen], noise[chosen]
    spread = torch.zeros_like(y)
    for own_mean, own_noise in zip(m, s, strict=True):
        spread += _absolute_mean(own_mean - m, (own_noise.square() + s.square()).sqrt()).mean(0)
    return _absolute_mean(y - mean, noise).mean(0) - spread / (2 * len(m))


def _absolute_mean(centre: Tensor, scale: Tensor) -> Tensor:
    """E|Z| of Z ~ N(centre, scale^2)."""
    z = centre / scale
    standard = Normal(torch.zeros((), dtype=z.dtype), torch.ones((), dtype=z.dtype), validate_args=False)
    return 2 * scale * standard.log_prob(z).exp() + centre * (2 * torch.special.ndtr(z) - 1)
