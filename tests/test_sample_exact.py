"""One call with everything that it chooses by itself (N, step, prior, noise, predictive) against exact answers.

Each number is compared by its Monte-Carlo standard error, from the effective sample size over four chains. At a limit
of 4.5 standard errors the probability that one of the 21 comparisons is a false alarm is 1.5e-4; the seeds are fixed.
"""

import itertools
from collections.abc import Iterator

import arviz as az
import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from sgmcmc_prune import Gaussian, Posterior, PriorConfig, ScheduleConfig, sample
from sgmcmc_prune.chains import step_size

NOISE, CHAINS, LIMIT = 0.5, 4, 4.5
LONG = ScheduleConfig(burn_in=1000, cycles=1, explore=0, sample=6000, relax=0, draws=300)


@pytest.fixture(autouse=True, scope="module")
def short_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_size, "FIT_STEPS", 400)
        yield


def data(features: int, effect: float = 0.4, n: int = 40) -> tuple[Tensor, Tensor]:
    """Inputs that are correlated, and targets of the first one."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, features, generator=g) + 0.7 * torch.randn(n, 1, generator=g)
    return x, effect * x[:, :1] + NOISE * torch.randn(n, 1, generator=g)


def drawn(posterior: Posterior) -> np.ndarray:
    """Weights, then bias of each draw, shape (chains, draws, parameters)."""
    each = [
        torch.cat([draw[name].flatten() for name in ("weight", "bias")]).double().numpy() for draw in posterior.draws
    ]
    return np.stack(each).reshape(CHAINS, -1, each[0].size)


def assert_expectation(values: np.ndarray, expected: float) -> None:
    """The mean of draws (chains, draws) is the expectation, as far as their effective number can tell."""
    error = values.std() / np.sqrt(float(az.ess(values)))
    assert abs(values.mean() - expected) < LIMIT * error

    assert error < 0.1 * values.std()


def test_a_linear_regression_is_sampled_and_predicted_exactly() -> None:
    x, y = data(3)
    prior = PriorConfig(family="gaussian", slab_variance=0.5, dense_variance=2.0)
    call = {"likelihood": Gaussian(noise=NOISE), "prior": prior, "test": (x, y), "schedule": LONG}
    posterior = sample(nn.Linear(3, 1), (x, y), **call, chains=CHAINS, progress=False)

    design = torch.cat([x, torch.ones(len(x), 1)], 1).double().numpy()
    precision = design.T @ design / NOISE**2 + np.diag([1 / 0.5] * 3 + [1 / 2.0])
    covariance = np.linalg.inv(precision)
    mean = covariance @ design.T @ y.double().numpy()[:, 0] / NOISE**2

    found = drawn(posterior)
    for j in range(4):
        assert_expectation(found[..., j], mean[j])
    for i, j in itertools.combinations_with_replacement(range(4), 2):
        assert_expectation((found[..., i] - mean[i]) * (found[..., j] - mean[j]), covariance[i, j])

    variance = np.einsum("ni,ij,nj->n", design, covariance, design) + NOISE**2
    density = norm.logpdf(y.numpy()[:, 0], design @ mean, np.sqrt(variance))
    # The error of the mean moves a prediction by a tenth of its own deviation at most.
    assert posterior.metrics["dense"]["nll"] == pytest.approx(-density.mean(), abs=0.01)
    predicted = posterior.predict(x)
    np.testing.assert_allclose(predicted.mean[:, 0], design @ mean, atol=0.03)


def test_a_logistic_regression_is_that_of_quadrature() -> None:
    x, _ = data(1)
    y = (torch.rand(len(x), 1, generator=torch.Generator().manual_seed(1)) < torch.sigmoid(2 * x)).float()
    prior = PriorConfig(family="gaussian", slab_variance=1.0, dense_variance=1.0)
    call = {"likelihood": "bernoulli", "prior": prior, "test": (x, y), "schedule": LONG}
    posterior = sample(nn.Linear(1, 1), (x, y), **call, chains=CHAINS, progress=False)

    grid = torch.linspace(-4, 6, 401, dtype=torch.float64)
    w, b = torch.meshgrid(grid, grid, indexing="ij")
    logits = w[..., None] * x[:, 0].double() + b[..., None]
    likelihood = torch.where(y[:, 0] > 0, nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)).sum(-1)
    density = (likelihood - w.square() / 2 - b.square() / 2).flatten().softmax(0).view_as(w)
    found = drawn(posterior)
    for j, axis in enumerate((w, b)):
        mean = float((density * axis).sum())
        assert_expectation(found[..., j], mean)
        assert_expectation((found[..., j] - mean) ** 2, float((density * (axis - mean) ** 2).sum()))


def test_inclusion_probabilities_of_the_default_prior_are_those_of_all_models() -> None:
    """The default spike and slab on three weights: eight models, each with a normal evidence."""
    x, y = data(3, effect=0.8)
    call = {"likelihood": Gaussian(noise=NOISE), "test": (x, y), "schedule": LONG}
    posterior = sample(nn.Linear(3, 1, bias=False), (x, y), **call, chains=CHAINS, progress=False)
    prior = posterior.run.config.prior

    design, target = x.double().numpy(), y.double().numpy()[:, 0]
    log_evidence = []
    models = list(itertools.product((0, 1), repeat=3))
    for model in models:
        variances = np.where(model, prior.slab_variance, prior.spike_variance)
        covariance = design @ np.diag(variances) @ design.T + NOISE**2 * np.eye(len(target))
        log_odds = sum(model) * np.log(prior.inclusion_rate) + (3 - sum(model)) * np.log1p(-prior.inclusion_rate)
        quadratic = target @ np.linalg.solve(covariance, target)
        log_evidence.append(log_odds - (np.linalg.slogdet(covariance)[1] + quadratic) / 2)
    weights = np.exp(np.array(log_evidence) - max(log_evidence))
    expected = (weights / weights.sum()) @ np.array(models)

    assert 0.1 < expected.min() < 0.6 < expected.max()
    found = posterior.log_odds
    odds = np.stack([found(chain)["weight"].sigmoid().numpy() for chain in range(CHAINS)])
    for j in range(3):
        assert_expectation(odds[..., j], expected[j])
