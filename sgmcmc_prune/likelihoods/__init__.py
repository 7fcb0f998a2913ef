"""Likelihoods: one file each. All are called with outputs and targets, and give one number for each example.

Types and shapes are checked at every call; values once for all targets, by `check_targets`.
"""

from sgmcmc_prune.likelihoods.base import Likelihood, Mixture, ObservationModel, Prediction, check_targets, mean_nll
from sgmcmc_prune.likelihoods.bernoulli import Bernoulli
from sgmcmc_prune.likelihoods.categorical import Categorical
from sgmcmc_prune.likelihoods.gaussian import Gaussian
from sgmcmc_prune.likelihoods.own import observation_model
from sgmcmc_prune.likelihoods.poisson import Poisson

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "Mixture",
    "ObservationModel",
    "Poisson",
    "Prediction",
    "bernoulli",
    "categorical",
    "check_targets",
    "gaussian",
    "mean_nll",
    "observation_model",
    "poisson",
]

categorical = Categorical()
bernoulli = Bernoulli()
poisson = Poisson()


def gaussian(variance: float = 1.0) -> Gaussian:
    """Regression with known noise variance s^2.

    Parameters
    ----------
    variance : float
        Of the noise, s^2, not its standard deviation (which `Gaussian` takes).

    Raises
    ------
    ValueError
        If it is not finite and positive.
    """
    if not 0 < variance < float("inf"):
        raise ValueError(f"noise variance is {variance}; it must be finite and > 0")
    return Gaussian(variance**0.5)
