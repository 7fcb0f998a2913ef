r"""Reduced free energy: how the evidence of a model changes when its prior does, from the posterior alone.

Two models share the likelihood p(D | w) and differ in the prior, p(w) and p~(w). Bayes' rule, twice, gives

    delta F = log p~(D) / p(D) = log E_{p(w|D)}[ p~(w) / p(w) ],        p~(w | D) ∝ p(w | D) p~(w) / p(w),

so no data are needed. *delta F > 0: the reduced model has more evidence*, prune. For Gaussian posteriors and priors
the expectation is in closed form; it is exact when the posterior is. With an approximate posterior q, and
log p(D, w) = log q(w) - F + r(w), the error is minus the mean of r under the *reduced* posterior: it grows with how far
the reduction moves the mass, which is why pruning goes in stages.

References
----------
Friston, Penny: Post hoc Bayesian model selection (NeuroImage 2011); Friston, Parr, Zeidman: Bayesian model reduction
(arXiv 1805.07092); Markovic, Friston, Kiebel: Bayesian sparsification for deep neural networks with Bayesian model
reduction (arXiv 2309.12095).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """N(mean, covariance): shapes (d,) and (d, d), float64."""

    mean: Tensor
    covariance: Tensor


class Reduction(NamedTuple):
    """Change of log evidence (0-d, nats), and the posterior under the reduced prior."""

    delta_f: Tensor
    posterior: Gaussian


def full(posterior: Gaussian, prior: Gaussian, reduced: Gaussian) -> Reduction:
    r"""Replace one Gaussian prior by another, all with full covariance.

    With precisions P of the posterior N(m, 1/P), A of the prior N(a, 1/A) and B of the reduced prior N(b, 1/B),

    .. math:: \tilde P = P + B - A, \qquad \tilde m = \tilde P^{-1} (P m + B b - A a),

    .. math:: \Delta F = \tfrac12 \log \frac{|P| |B|}{|\tilde P| |A|}
              - \tfrac12 (m' P m + b' B b - a' A a - \tilde m' \tilde P \tilde m).

    A prior of zero variance is `spike`.

    Parameters
    ----------
    posterior, prior, reduced : Gaussian
        Of one dimension.

    Returns
    -------
    Reduction

    Raises
    ------
    ValueError
        If a covariance is singular, or the reduced prior is so wide that no reduced posterior exists (which takes a
        posterior wider than its prior).

    References
    ----------
    Friston and Penny (2011), eq. 9.
    """
    (m, p, log_p), (a, pa, log_a), (b, pb, log_b) = (
        (g.mean, *_precision(g.covariance, name))
        for g, name in ((posterior, "posterior"), (prior, "prior"), (reduced, "reduced prior"))
    )
    factor, info = torch.linalg.cholesky_ex(p + pb - pa)
    if int(info) != 0:
        raise ValueError("no reduced posterior exists: the posterior is wider than its prior in some direction")
    h = p @ m + pb @ b - pa @ a
    new_mean = torch.cholesky_solve(h[:, None], factor)[:, 0]
    log_determinants = log_p + log_b - log_a - _log_determinant(factor)
    squares = m @ p @ m + b @ pb @ b - a @ pa @ a - h @ new_mean
    return Reduction((log_determinants - squares) / 2, Gaussian(new_mean, torch.cholesky_inverse(factor)))


def spike(posterior: Gaussian, prior: Gaussian) -> Tensor:
    r"""Set all d coordinates to zero: the Savage-Dickey ratio :math:`\Delta F = \log N(0; m, C) - \log N(0; a, A)`.

    To remove some coordinates of a larger model, give their *marginals*, blocks of the covariances and not of the
    precisions.

    Parameters
    ----------
    posterior, prior : Gaussian
        Marginals of the coordinates to remove.

    Returns
    -------
    Tensor, 0-d

    Raises
    ------
    ValueError
        If a covariance is singular.

    References
    ----------
    Dickey (1971), The weighted likelihood ratio, Annals of Mathematical Statistics 42.
    """
    terms = []
    for g, name in ((posterior, "posterior"), (prior, "prior")):
        precision, log_determinant = _precision(g.covariance, name)
        terms.append((log_determinant - g.mean @ precision @ g.mean) / 2)
    return terms[0] - terms[1]


def diagonal(
    mean: Tensor, variance: Tensor, prior_variance: float | Tensor, reduced_variance: float | Tensor = 0.0
) -> Tensor:
    r"""Narrow the zero-mean priors of independent weights, one by one: N(0, a) becomes N(0, g).

    With :math:`M = 1 + g (1 / v - 1 / a)`, of the posterior N(m, v),

    .. math:: \Delta F = \tfrac12 \log \frac{a}{v M} - \frac{m^2}{2 v} \left(1 - \frac{g}{v M}\right).

    At g = 0 this is the Savage-Dickey ratio :math:`\tfrac12 \log (a / v) - m^2 / (2 v)`: prune when
    :math:`|m| / \sqrt v < \sqrt{\log (a / v)}`. A weight whose posterior is its prior has :math:`\Delta F = 0`.

    Parameters
    ----------
    mean, variance : Tensor
        Of the posterior, any shape.
    prior_variance : float or Tensor
        a > 0.
    reduced_variance : float or Tensor
        g >= 0.

    Returns
    -------
    Tensor, float64, shaped like `mean`

    Raises
    ------
    ValueError
        If a variance is not positive, or g is so large that M is not (which takes v > a).

    References
    ----------
    Markovic, Friston, Kiebel (2023), mean-field reduction.
    """
    m, v, a, g = _checked(mean, variance, prior_variance, reduced_variance)
    ratio = g / a
    excess = ratio * (a / v - 1)  # M - 1, with no 1 / g anywhere
    weight = (1 - ratio) / (1 + excess)  # 1 - g / (v M)
    return (a.log() - v.log() - excess.log1p() - m.square() / v * weight) / 2


def diagonal_posterior(
    mean: Tensor, variance: Tensor, prior_variance: float | Tensor, reduced_variance: float | Tensor
) -> tuple[Tensor, Tensor]:
    r"""Mean :math:`\tilde v m / v` and variance :math:`\tilde v = g / M` after the reduction of `diagonal`."""
    m, v, a, g = _checked(mean, variance, prior_variance, reduced_variance)
    new_variance = g / (1 + g / a * (a / v - 1))
    return new_variance / v * m, new_variance


def _precision(covariance: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Inverse of a covariance, and its log determinant."""
    factor, info = torch.linalg.cholesky_ex(covariance)
    if int(info) != 0:
        raise ValueError(
            f"the covariance of the {name} is singular (leading block {int(info)} of {len(covariance)} is not positive "
            "definite); leave out coordinates that are fixed or repeat others"
        )
    return torch.cholesky_inverse(factor), -_log_determinant(factor)


def _log_determinant(factor: Tensor) -> Tensor:
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _checked(
    mean: Tensor, variance: Tensor, prior_variance: float | Tensor, reduced_variance: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All in float64; ValueError unless variances are positive and the reduced posterior exists."""
    m, v = mean.double(), variance.double()
    a, g = (torch.as_tensor(x, dtype=torch.float64, device=v.device) for x in (prior_variance, reduced_variance))
    if not (bool((v > 0).all()) and bool((a > 0).all()) and bool((g >= 0).all())):
        raise ValueError("variances of posterior and prior must be > 0, and the reduced variance >= 0")
    if bool((1 + g / a * (a / v - 1) <= 0).any()):
        raise ValueError("no reduced posterior exists: a posterior variance is larger than its prior's")
    return m, v, a, g
