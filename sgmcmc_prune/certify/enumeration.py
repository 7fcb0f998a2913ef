r"""Exact spike-and-slab linear regression, by enumeration of all 2^p models: what samplers are checked against.

With y | w ~ N(X w, s^2 I), w_j | gamma_j ~ N(0, v_{gamma_j}) and P(gamma_j = 1) = pi, the weights given a model are

    w | gamma, y ~ N(m, P^-1),      P = X'X / s^2 + diag(1 / v_gamma),      m = P^-1 X'y / s^2,

and, up to a constant,

    log p(gamma | y) = sum_j log p(gamma_j) - 1/2 sum_j log v_{gamma_j} - 1/2 log |P| + 1/2 m' P m.

References
----------
George, McCulloch: Variable selection via Gibbs sampling (JASA 1993).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sgmcmc_prune.priors.spike_slab import check_hyperparameters

#: 2^15 models of 15 x 15 matrices: a second.
MAX_FEATURES = 15
#: Models whose matrices are factorised together.
_BATCH = 4096


class ExactPosterior(NamedTuple):
    """P(gamma_j = 1 | y), E[w_j | y] and Var[w_j | y]: float64, shape (p,) each; P(gamma | y), shape (2^p,).

    The models are in the order of `all_models`.
    """

    inclusion_probability: Tensor
    mean: Tensor
    variance: Tensor
    model_probability: Tensor

    @property
    def co_inclusion(self) -> Tensor:
        """P(gamma_i = 1, gamma_j = 1 | y), shape (p, p)."""
        models = all_models(len(self.mean)).to(self.mean)
        return models.T @ (self.model_probability[:, None] * models)


def enumerate_models(
    x: Tensor,
    y: Tensor,
    *,
    noise_variance: float,
    spike_variance: float,
    slab_variance: float,
    inclusion_rate: float,
) -> ExactPosterior:
    """Average over all 2^p models, in log space.

    Parameters
    ----------
    x : Tensor, shape (n, p)
        Features, p <= 15.
    y : Tensor, shape (n,)
        Responses.
    noise_variance : float
        s^2 > 0.
    spike_variance, slab_variance : float
        0 < v0 < v1.
    inclusion_rate : float
        pi in (0, 1).

    Raises
    ------
    ValueError
        For a hyperparameter out of range, shapes that do not fit, or p > 15.
    """
    check_hyperparameters(inclusion_rate, spike_variance, slab_variance)
    if not 0 < noise_variance < math.inf:
        raise ValueError(f"noise_variance is {noise_variance}; it must be finite and > 0")
    if x.dim() != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; they must be (n, p) and (n,)")
    features = x.shape[1]
    if features > MAX_FEATURES:
        raise ValueError(f"{features} features make 2^{features} models; enumeration takes at most {MAX_FEATURES}")
    x, y = x.double(), y.double()
    gram, score = x.T @ x / noise_variance, x.T @ y / noise_variance
    models = all_models(features).to(x.device)
    included = models.double()
    variance = included * slab_variance + (1 - included) * spike_variance
    log_prior = (included * math.log(inclusion_rate) + (1 - included) * math.log1p(-inclusion_rate)).sum(1)
    parts = [_given_model(gram, score, v) for v in variance.split(_BATCH)]
    log_evidence, mean, spread = (torch.cat(column) for column in zip(*parts, strict=True))
    probability = (log_prior + log_evidence).softmax(0)
    average = probability @ mean
    variance_of = probability @ (spread + (mean - average).square())
    return ExactPosterior(probability @ included, average, variance_of, probability)


def all_models(features: int) -> Tensor:
    """Every gamma, shape (2^p, p), boolean."""
    return (torch.arange(2**features).unsqueeze(1) >> torch.arange(features)) & 1 == 1


def _given_model(gram: Tensor, score: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log evidence (b,), mean (b, p) and marginal variances (b, p) of the weights under prior variances (b, p)."""
    root = torch.linalg.cholesky(gram + torch.diag_embed(1 / variance))
    mean = torch.cholesky_solve(score.expand_as(variance).unsqueeze(2), root).squeeze(2)
    log_determinant = root.diagonal(dim1=1, dim2=2).log().sum(1)
    log_evidence = 0.5 * (mean @ score) - log_determinant - 0.5 * variance.log().sum(1)
    return log_evidence, mean, torch.cholesky_inverse(root).diagonal(dim1=1, dim2=2)
