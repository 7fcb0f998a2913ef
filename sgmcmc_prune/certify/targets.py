"""Targets whose answers are known: potentials with a gradient for every replicate at once.

A replicate is a row of a tensor (R, d). `gradient` is that of the mean negative log-likelihood, the prior apart, as
samplers take it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmcmc_prune import likelihoods
from sgmcmc_prune.likelihoods import Likelihood, mean_nll
from sgmcmc_prune.priors.base import Prior

Array = NDArray[np.float64]


class Target(Protocol):
    """What a sampler needs to know."""

    @property
    def name(self) -> str:
        """For the table."""

    @property
    def num_data(self) -> int:
        """N."""

    @property
    def dimension(self) -> int:
        """d."""

    def prior(self, params: Mapping[str, Tensor]) -> Prior | float | None:
        """The prior as `Sampler` takes it."""

    def gradient(self, w: Tensor) -> Tensor:
        """d (mean NLL) / dw at each row of w, shape (R, d)."""


@dataclass(frozen=True)
class Moment:
    """The exact mean of a function of w.

    Attributes
    ----------
    name : str
    of : callable
        From replicates (R, d) to values (R,).
    exact, error : float
        The mean under the posterior, and its Monte-Carlo standard error where it is not exact.
    """

    name: str
    of: Callable[[Array], Array]
    exact: float
    error: float = 0.0


def power(j: int, exponent: int) -> Callable[[Array], Array]:
    """A power of coordinate j, as a function of w."""
    return lambda w: w[:, j] ** exponent


class Known(Target, Protocol):
    """A target with known moments."""

    @property
    def moments(self) -> Sequence[Moment]:
        """What to compare."""

    def draw(self, rng: np.random.Generator, replicates: int) -> Array:
        """Places to start from, shape (R, d): draws from the target where they can be had."""


@dataclass(frozen=True)
class Gaussian:
    """A likelihood quadratic in w, centred at zero, and a Gaussian prior.

    Parameters
    ----------
    data_curvature : Array, shape (d, d)
        Hessian of the mean NLL.
    prior_precision : float
        The posterior's precision is N data_curvature + prior_precision I.
    num_data : int
        N.
    """

    data_curvature: Array
    prior_precision: float
    num_data: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"Gaussian, d = {self.dimension}"

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.data_curvature)

    @property
    def mean(self) -> Array:
        """Of the posterior."""
        return np.zeros(self.dimension)

    @property
    def curvature(self) -> Array:
        """Hessian of U / N, the prior's share included."""
        return self.data_curvature + self.prior_precision / self.num_data * np.eye(self.dimension)

    def prior(self, params: Mapping[str, Tensor]) -> float:
        """Precision of the Gaussian prior."""
        return self.prior_precision

    def gradient(self, w: Tensor) -> Tensor:
        """Each row times the Hessian."""
        return w @ torch.from_numpy(self.data_curvature)

    @property
    def moments(self) -> Sequence[Moment]:
        """Variances."""
        variances = np.diag(np.linalg.inv(self.num_data * self.curvature))
        return [Moment(f"mean of w{j}^2", power(j, 2), float(v)) for j, v in enumerate(variances)]

    def draw(self, rng: np.random.Generator, replicates: int) -> Array:
        """Draws from the posterior."""
        root = np.linalg.cholesky(np.linalg.inv(self.num_data * self.curvature))
        return rng.standard_normal((replicates, self.dimension)) @ root.T


def correlated_gaussian(d: int, num_data: int = 40, condition: float = 6.0) -> Gaussian:
    """Eigenvalues of U / N spread evenly over 1 to `condition` in random directions; a third of the least is prior."""
    q = np.linalg.qr(np.random.default_rng(d).standard_normal((d, d)))[0]
    data_curvature = (q * (np.linspace(1, condition, d) - 1 / 3)) @ q.T
    return Gaussian((data_curvature + data_curvature.T) / 2, num_data / 3, num_data)


def standard_normal(d: int) -> Gaussian:
    """N(0, I) from ten data and a tenth of prior."""
    return Gaussian(0.09 * np.eye(d), 0.1, 10)


@dataclass(frozen=True)
class LinearRegression:
    """y = X w + noise of known variance, with a Gaussian prior; gradients by autograd through the library's likelihood.

    Parameters
    ----------
    features : Array, shape (N, d)
    responses : Array, shape (N,)
    noise_variance, prior_precision : float
    """

    features: Array
    responses: Array
    noise_variance: float
    prior_precision: float
    name: str = "linear regression"

    @property
    def num_data(self) -> int:
        """N."""
        return len(self.responses)

    @property
    def dimension(self) -> int:
        """d."""
        return self.features.shape[1]

    @property
    def curvature(self) -> Array:
        """Posterior precision over N."""
        precision = self.features.T @ self.features / self.noise_variance
        return (precision + self.prior_precision * np.eye(self.dimension)) / self.num_data

    @property
    def mean(self) -> Array:
        """Posterior mean."""
        moment = self.features.T @ self.responses / (self.noise_variance * self.num_data)
        return np.linalg.solve(self.curvature, moment).astype(np.float64)

    def prior(self, params: Mapping[str, Tensor]) -> float:
        """Precision of the Gaussian prior."""
        return self.prior_precision

    def gradient(self, w: Tensor) -> Tensor:
        """Through `likelihoods.gaussian`: replicates are flattened into the batch, and scaled back."""
        return autograd_gradient(w, self.features, self.responses, likelihoods.gaussian(self.noise_variance))


def simulated_regression() -> LinearRegression:
    """Sixty examples of three features, two of them correlated."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 3))
    x[:, 1] = 0.7 * x[:, 0] + 0.7 * x[:, 1]
    return LinearRegression(x, x @ [1.0, -0.5, 0.3] + rng.standard_normal(60) * 0.8, 0.64, 5.0)


def autograd_gradient(w: Tensor, features: Array, responses: Array, likelihood: Likelihood) -> Tensor:
    """Gradient of the mean NLL of every replicate: the mean over all (replicate, example) pairs, times R."""
    with torch.enable_grad():
        leaf = w.detach().requires_grad_()
        outputs = leaf @ torch.from_numpy(features).T
        loss = mean_nll(likelihood, outputs.flatten(), torch.from_numpy(responses).repeat(len(w)))
        return torch.autograd.grad(loss, leaf)[0] * len(w)
