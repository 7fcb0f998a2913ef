"""Reduced free energy against exact evidence of Bayesian linear regression, and against itself."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from sgmcmc_prune.baselines.bmr import reduction
from sgmcmc_prune.baselines.bmr.reduction import Gaussian

NOISE = 0.5


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def design(n: int = 60, d: int = 8, correlation: float = 0.7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs that share a factor, and noisy responses to some of them."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x = math.sqrt(1 - correlation) * x + math.sqrt(correlation) * torch.randn(n, 1, generator=g, dtype=torch.float64)
    w = torch.where(torch.arange(d) % 2 == 0, 0.8, 0.05).double()
    return x, x @ w + math.sqrt(NOISE) * torch.randn(n, generator=g, dtype=torch.float64)


def log_evidence(x: Tensor, y: Tensor, prior: Gaussian) -> Tensor:
    covariance = NOISE * torch.eye(len(y), dtype=torch.float64) + x @ prior.covariance @ x.T
    return MultivariateNormal(x @ prior.mean, covariance).log_prob(y)


def posterior(x: Tensor, y: Tensor, prior: Gaussian) -> Gaussian:
    precision = prior.covariance.inverse()
    covariance = (x.T @ x / NOISE + precision).inverse()
    return Gaussian(covariance @ (x.T @ y / NOISE + precision @ prior.mean), (covariance + covariance.T) / 2)


def zero_mean(variances: Tensor) -> Gaussian:
    return Gaussian(torch.zeros_like(variances), variances.diag())


X, Y = design()
PRIOR = zero_mean(torch.linspace(0.5, 2, 8, dtype=torch.float64))
MIXED = torch.tensor([0.1, 3, 1, 0.2, 5, 0.01, 2, 1], dtype=torch.float64)
_ROOT = torch.randn(8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
REDUCED = {
    "narrower": zero_mean(PRIOR.covariance.diagonal() / 10),
    "mixed": zero_mean(MIXED),
    "wider": zero_mean(PRIOR.covariance.diagonal() * 4),
    "shifted": Gaussian(torch.linspace(-1, 1, 8, dtype=torch.float64), PRIOR.covariance / 3),
    "dense": Gaussian(torch.linspace(1, 0, 8, dtype=torch.float64), _ROOT @ _ROOT.T / 8 + torch.eye(8).double() / 5),
}


@pytest.mark.parametrize("name", REDUCED)
def test_t1_t2_full_covariance_equals_exact_evidence_and_refit(name: str) -> None:
    reduced = REDUCED[name]
    result = reduction.full(posterior(X, Y, PRIOR), PRIOR, reduced)
    exact = log_evidence(X, Y, reduced) - log_evidence(X, Y, PRIOR)
    torch.testing.assert_close(result.delta_f, exact, rtol=0, atol=1e-10)
    refit = posterior(X, Y, reduced)
    torch.testing.assert_close(result.posterior.mean, refit.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.posterior.covariance, refit.covariance, rtol=0, atol=1e-12)


@pytest.mark.parametrize("removed", [(2,), (0, 3, 5)])
def test_t3_spike_is_the_limit_and_the_smaller_model(removed: tuple[int, ...]) -> None:
    full = posterior(X, Y, PRIOR)
    j, kept = list(removed), [i for i in range(8) if i not in removed]
    marginal = Gaussian(full.mean[j], full.covariance[j][:, j])
    spike = reduction.spike(marginal, zero_mean(PRIOR.covariance.diagonal()[j]))
    without = zero_mean(PRIOR.covariance.diagonal()[kept])
    exact = log_evidence(X[:, kept], Y, without) - log_evidence(X, Y, PRIOR)
    torch.testing.assert_close(spike, exact, rtol=0, atol=1e-10)
    gaps = []
    for g in (1e-2, 1e-3, 1e-4, 1e-5):
        variances = PRIOR.covariance.diagonal().clone()
        variances[j] *= g
        gaps.append(float((reduction.full(full, PRIOR, zero_mean(variances)).delta_f - spike).abs()))
    ratios = [a / b for a, b in itertools.pairwise(gaps)]
    assert all(ratio > 3 for ratio in ratios)
    assert ratios[-1] == pytest.approx(10, rel=0.05)  # the gap is linear in the variance


def test_t3_spike_with_a_prior_mean_that_is_not_zero() -> None:
    shifted = REDUCED["shifted"]
    full = posterior(X, Y, shifted)
    spike = reduction.spike(full, shifted)
    nothing = -0.5 * len(Y) * math.log(2 * math.pi * NOISE) - Y.square().sum() / (2 * NOISE)
    torch.testing.assert_close(spike, nothing - log_evidence(X, Y, shifted), rtol=0, atol=1e-10)


def test_t4_identity_and_composition() -> None:
    full = posterior(X, Y, PRIOR)
    assert abs(float(reduction.full(full, PRIOR, PRIOR).delta_f)) < 1e-12
    first = reduction.full(full, PRIOR, REDUCED["mixed"])
    second = reduction.full(first.posterior, REDUCED["mixed"], REDUCED["dense"])
    direct = reduction.full(full, PRIOR, REDUCED["dense"])
    torch.testing.assert_close(first.delta_f + second.delta_f, direct.delta_f, rtol=0, atol=1e-11)
    v = f64(0.3, 0.01)
    assert reduction.diagonal(f64(0.4, -1), v, f64(0.7, 1.3), f64(0.7, 1.3)).abs().max() < 1e-15


@pytest.mark.parametrize("prior_variance", [0.3, 1.0, 7.0])
def test_t5_mean_field_is_the_full_formula_with_a_diagonal_precision(prior_variance: float) -> None:
    mean, variance, g = f64(0.4, -0.1, 0.9), f64(0.02, 0.2, 0.15), f64(0.01, 0.2, 1.5)
    diagonal = reduction.diagonal(mean, variance, prior_variance, g)
    a = torch.full((3,), prior_variance, dtype=torch.float64)
    full = reduction.full(Gaussian(mean, variance.diag()), zero_mean(a), zero_mean(g))
    torch.testing.assert_close(diagonal.sum(), full.delta_f, rtol=0, atol=1e-12)
    new_mean, new_variance = reduction.diagonal_posterior(mean, variance, prior_variance, g)
    torch.testing.assert_close(new_mean, full.posterior.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(new_variance.diag(), full.posterior.covariance, rtol=0, atol=1e-12)


def test_t6_single_deletions_add_up_only_where_the_design_is_orthogonal() -> None:
    def joint_and_sum(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        d = x.shape[1]
        prior = zero_mean(torch.ones(d, dtype=torch.float64))
        full = posterior(x, y, prior)
        single = reduction.diagonal(full.mean, full.covariance.diagonal(), 1.0)
        return reduction.spike(full, prior), single.sum()

    basis = torch.linalg.qr(design(correlation=0.0)[0]).Q * math.sqrt(60)
    joint, total = joint_and_sum(basis, Y)
    torch.testing.assert_close(joint, total, rtol=0, atol=1e-10)
    # Weak effects that share a factor: each can be spared, not all of them together.
    x, _ = design(correlation=0.8)
    y = x.sum(1) * 0.1
    joint, total = joint_and_sum(x, y)
    assert total - joint > 1


def test_t7_mixture_identity_in_one_dimension() -> None:
    r"""exp(delta F) = E[N(w; 0, v0) / p(w) | D] = P(z = 0 | D) / (1 - pi), by quadrature."""
    pi, v0, v1 = 0.3, 0.01, 1.0
    w = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    spike, slab = (Normal(0 * w, math.sqrt(v)).log_prob(w).exp() for v in (v0, v1))
    prior = (1 - pi) * spike + pi * slab
    likelihood = Normal(w, 0.2).log_prob(torch.tensor(0.15)).exp() * torch.sigmoid(3 * w)  # not Gaussian in w
    evidence = torch.trapezoid(likelihood * prior, w)
    expectation = torch.trapezoid(likelihood * prior / evidence * spike / prior, w)
    exclusion = (1 - pi) * torch.trapezoid(likelihood * spike, w) / evidence
    exact = (torch.trapezoid(likelihood * spike, w) / evidence).log()
    torch.testing.assert_close(expectation.log(), exact, rtol=0, atol=1e-10)
    torch.testing.assert_close(expectation * (1 - pi), exclusion, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("ratio", "threshold"), [(0.9, 0.46), (0.5, 1.18), (0.2, 1.79), (0.01, 3.03), (0.001, 3.72)])
def test_t8_decision_boundary(ratio: float, threshold: float) -> None:
    prior_deviation = 1.7
    deviation = ratio * prior_deviation
    z = math.sqrt(2 * math.log(1 / ratio))
    assert z == pytest.approx(threshold, abs=0.005)
    on, inside, outside = (f64(k * z * deviation) for k in (1.0, 0.99, 1.01))
    v, a = f64(deviation**2), prior_deviation**2
    assert abs(float(reduction.diagonal(on, v, a))) < 1e-12
    assert float(reduction.diagonal(inside, v, a)) > 0 > float(reduction.diagonal(outside, v, a))


def test_t8_ties_and_wide_posteriors() -> None:
    assert float(reduction.diagonal(f64(0), f64(2), 2.0)) == 0
    assert float(reduction.diagonal(f64(0), f64(2.5), 2.0)) < 0
    small = reduction.diagonal(torch.tensor([0.3]), torch.tensor([0.01]), 1.0, 1e-16)
    torch.testing.assert_close(small, reduction.diagonal(torch.tensor([0.3]), torch.tensor([0.01]), 1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reduction.diagonal(f64(0), f64(2), 1.0, 4.0), "a posterior variance is larger than its prior's"),
        (lambda: reduction.diagonal(f64(0), f64(0), 1.0), "must be > 0"),
        (
            lambda: reduction.full(zero_mean(f64(2, 1)), zero_mean(f64(1, 1)), zero_mean(f64(9, 9))),
            "the posterior is wider than its prior in some direction",
        ),
        (
            lambda: reduction.spike(Gaussian(f64(0, 0), torch.ones(2, 2).double()), zero_mean(f64(1, 1))),
            "covariance of the posterior is singular",
        ),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
