"""Posteriors with several modes: a mixture of two Gaussians, and spike-and-slab linear regression by enumeration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmcmc_prune import likelihoods
from sgmcmc_prune.certify.enumeration import enumerate_models
from sgmcmc_prune.certify.targets import Moment, autograd_gradient, power
from sgmcmc_prune.priors import SpikeSlab

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bimodal:
    """weight N(-1.5, s^2) + (1 - weight) N(1.5, s^2), all of it in the likelihood.

    Parameters
    ----------
    weight : float
        Of the mode on the left.
    deviation : float
        s.
    num_data : int
        N: the mean NLL is -log p / N.
    """

    weight: float = 0.3
    deviation: float = 0.6
    num_data: int = 10
    name: str = "two modes"
    dimension: int = 1

    def prior(self, params: Mapping[str, Tensor]) -> None:
        """Flat."""
        return

    def gradient(self, w: Tensor) -> Tensor:
        """-d log p / dw / N = (w - E[mode | w]) / (N s^2)."""
        log_odds = np.log(self.weight / (1 - self.weight)) - 2 * 1.5 * w / self.deviation**2
        expected_mode = 1.5 * (1 - 2 * torch.sigmoid(log_odds))
        return (w - expected_mode) / (self.num_data * self.deviation**2)

    @property
    def moments(self) -> Sequence[Moment]:
        """Weight of the left mode (by its expected indicator), first and second moment."""
        second = 1.5**2 + self.deviation**2
        return [
            Moment("weight of the left mode", self._left, self.weight),
            Moment("mean of w", power(0, 1), 1.5 * (1 - 2 * self.weight)),
            Moment("mean of w^2", power(0, 2), second),
        ]

    def _left(self, w: Array) -> Array:
        """P(left mode | w), whose mean is the weight exactly."""
        odds = (1 - self.weight) / self.weight * np.exp(2 * 1.5 * w[:, 0] / self.deviation**2)
        return 1 / (1 + odds)

    def draw(self, rng: np.random.Generator, replicates: int) -> Array:
        """Draws of the right mode alone: the left one has to be found."""
        return 1.5 + self.deviation * rng.standard_normal((replicates, 1))


@dataclass(frozen=True)
class SpikeSlabRegression:
    """y = X w + noise of variance 1, every weight in a spike or a slab of known variances.

    Parameters
    ----------
    features : Array, shape (N, p)
    responses : Array, shape (N,)
    spike_variance, slab_variance, inclusion_rate : float
    """

    features: Array
    responses: Array
    spike_variance: float = 0.02
    slab_variance: float = 1.0
    inclusion_rate: float = 0.25

    @property
    def name(self) -> str:
        """For the table."""
        return f"spike and slab, p = {self.dimension}"

    @property
    def num_data(self) -> int:
        """N."""
        return len(self.responses)

    @property
    def dimension(self) -> int:
        """p."""
        return self.features.shape[1]

    def prior(self, params: Mapping[str, Tensor]) -> SpikeSlab:
        """Indicators summed out."""
        return SpikeSlab(params, mode="marginal", **self._hyperparameters)

    @property
    def _hyperparameters(self) -> dict[str, Any]:
        return {
            "spike_variance": self.spike_variance,
            "slab_variance": self.slab_variance,
            "inclusion_rate": self.inclusion_rate,
        }

    def gradient(self, w: Tensor) -> Tensor:
        """Through `likelihoods.gaussian`."""
        return autograd_gradient(w, self.features, self.responses, likelihoods.gaussian(1.0))

    @cached_property
    def moments(self) -> Sequence[Moment]:
        """Inclusion probabilities, and posterior means."""
        x, y = torch.from_numpy(self.features), torch.from_numpy(self.responses)
        exact = enumerate_models(x, y, noise_variance=1.0, **self._hyperparameters)
        found = []
        for j in range(self.dimension):
            found.append(Moment(f"inclusion of w{j}", self._included(j), float(exact.inclusion_probability[j])))
            found.append(Moment(f"mean of w{j}", power(j, 1), float(exact.mean[j])))
        return found

    def _included(self, j: int) -> Callable[[Array], Array]:
        """P(gamma_j = 1 | w) as a function of w."""
        v0, v1, rate = self.spike_variance, self.slab_variance, self.inclusion_rate
        constant = np.log((1 - rate) / rate) + np.log(v1 / v0) / 2
        return lambda w: 1 / (1 + np.exp(constant + w[:, j] ** 2 / 2 * (1 / v1 - 1 / v0)))

    def draw(self, rng: np.random.Generator, replicates: int) -> Array:
        """Draws from the prior."""
        included = rng.random((replicates, self.dimension)) < self.inclusion_rate
        return rng.standard_normal(included.shape) * np.sqrt(
            np.where(included, self.slab_variance, self.spike_variance)
        )


def simulated_spike_slab(p: int) -> SpikeSlabRegression:
    """Thirty examples; the first two features are correlated, and effects run from clear to none."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, p))
    x[:, 1] = 0.7 * x[:, 0] + 0.7 * x[:, 1]
    return SpikeSlabRegression(x, x @ np.linspace(0.9, 0.0, p) + rng.standard_normal(30))
