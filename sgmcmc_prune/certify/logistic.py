"""Bayesian logistic regression: exact moments by quadrature in two dimensions, by long NUTS runs in more."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgmcmc_prune import likelihoods
from sgmcmc_prune.certify.targets import Moment, autograd_gradient, power

Array = NDArray[np.float64]
#: Written by tools/logistic_reference.py, which states its command.
REFERENCE = "logistic_reference.json"


@dataclass(frozen=True)
class LogisticRegression:
    """Bernoulli responses with a Gaussian prior.

    Parameters
    ----------
    features : Array, shape (N, d)
    responses : Array, shape (N,)
        0 or 1.
    prior_precision : float
    """

    features: Array
    responses: Array
    prior_precision: float

    @property
    def name(self) -> str:
        """For the table."""
        return f"logistic regression, d = {self.dimension}"

    @property
    def num_data(self) -> int:
        """N."""
        return len(self.responses)

    @property
    def dimension(self) -> int:
        """d."""
        return self.features.shape[1]

    def prior(self, params: Mapping[str, Tensor]) -> float:
        """Precision of the Gaussian prior."""
        return self.prior_precision

    def gradient(self, w: Tensor) -> Tensor:
        """Through `likelihoods.bernoulli`."""
        return autograd_gradient(w, self.features, self.responses, likelihoods.bernoulli)

    def log_posterior(self, w: Array) -> Array:
        """log p(w | y) up to a constant, for rows w of shape (R, d)."""
        eta = w @ self.features.T
        return eta @ self.responses - np.logaddexp(0, eta).sum(1) - self.prior_precision / 2 * (w**2).sum(1)

    def draw(self, rng: np.random.Generator, replicates: int) -> Array:
        """Start at zero, which is forgotten in the burn-in."""
        return np.zeros((replicates, self.dimension))


def _simulated(d: int) -> tuple[Array, Array, float]:
    """Thirty examples of d features, and the precision of a prior with variance 4."""
    rng = np.random.default_rng(d)
    x = rng.standard_normal((30, d))
    eta = x @ np.linspace(1.5, -1.0, d)
    return x, (rng.random(30) < 1 / (1 + np.exp(-eta))).astype(float), 0.25


@dataclass(frozen=True)
class LogisticByQuadrature(LogisticRegression):
    """Two features: moments and draws from a fine grid."""

    @cached_property
    def grid(self) -> tuple[Array, Array]:
        """Points (G, 2) and their probabilities; the window reaches ten posterior deviations, the spacing 1/20."""
        mode = np.zeros(2)
        for _ in range(50):  # Newton
            p = 1 / (1 + np.exp(-self.features @ mode))
            hessian = (self.features.T * (p * (1 - p))) @ self.features + self.prior_precision * np.eye(2)
            mode = mode - np.linalg.solve(hessian, self.features.T @ (p - self.responses) + self.prior_precision * mode)
        spread = np.sqrt(np.diag(np.linalg.inv(hessian)))
        ticks = np.linspace(-10, 10, 401)
        points = mode + np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2) * spread
        log_p = self.log_posterior(points)
        weights = np.exp(log_p - log_p.max())
        return points, weights / weights.sum()

    @property
    def moments(self) -> Sequence[Moment]:
        """Means and second moments."""
        points, weights = self.grid
        return [Moment(name, of, float(weights @ of(points))) for name, of in _functions(2)]

    def draw(self, rng: np.random.Generator, replicates: int) -> Array:
        """Draws from the posterior, rounded to the grid."""
        points, weights = self.grid
        return points[rng.choice(len(points), replicates, p=weights)]


@dataclass(frozen=True)
class LogisticByNUTS(LogisticRegression):
    """More features: moments by long NUTS runs, with their Monte-Carlo errors."""

    @property
    def moments(self) -> Sequence[Moment]:
        """Means and second moments from the reference file."""
        text = resources.files("sgmcmc_prune.certify").joinpath(REFERENCE).read_text(encoding="utf-8")
        reference = json.loads(text)[f"d = {self.dimension}"]
        return [Moment(name, of, *reference[name]) for name, of in _functions(self.dimension)]


def _functions(d: int) -> list[tuple[str, Callable[[Array], Array]]]:
    """Each coordinate and its square."""
    first = [(f"mean of w{j}", power(j, 1)) for j in range(d)]
    return first + [(f"mean of w{j}^2", power(j, 2)) for j in range(d)]


def quadrature_target() -> LogisticByQuadrature:
    """Two features."""
    return LogisticByQuadrature(*_simulated(2))


def reference_target() -> LogisticByNUTS:
    """Five features; the data of tools/logistic_reference.py."""
    return LogisticByNUTS(*_simulated(5))
