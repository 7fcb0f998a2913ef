"""Posteriors given as two functions: against an exact Gaussian posterior, and logistic regression by quadrature."""

import math
from itertools import repeat

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from sgmcmc_prune.errors import RunError
from sgmcmc_prune.priors import Gaussian
from sgmcmc_prune.samplers import BAOAB, SGHMC, SGLD
from sgmcmc_prune.samplers.posterior import Params, Posterior, sample

REPLICATES = 400
FALSE_ALARM = 1e-3


def regression() -> tuple[Tensor, Tensor, Tensor]:
    """Features, responses (noise variance 1), and a prior precision that couples the weights."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -0.5], dtype=torch.float64) + torch.randn(20, generator=generator, dtype=torch.float64)
    return x, y, torch.tensor([[30.0, 24.0], [24.0, 25.0]], dtype=torch.float64)


def start(*names: str) -> dict[str, Tensor]:
    """A parameter (replicates,) for each name."""
    return {n: torch.zeros(REPLICATES, dtype=torch.float64, requires_grad=True) for n in names}


def gaussian_posterior() -> Posterior:
    """Linear regression on the two parameters a and b, replicated, with their joint Gaussian prior."""
    _, y, precision = regression()

    def log_likelihood(params: Params, batch: tuple[Tensor, Tensor]) -> Tensor:
        rows, targets = batch
        outputs = rows @ torch.stack([params["a"], params["b"]])
        return -0.5 * (targets.unsqueeze(1) - outputs).square().sum(1)

    def log_prior(params: Params) -> Tensor:
        w = torch.stack([params["a"], params["b"]])
        return -0.5 * (w * (precision @ w)).sum()

    return Posterior(log_likelihood, log_prior, len(y))


def assert_mean(values: Tensor, expected: Tensor) -> None:
    """Replicates (replicates, k) average to the expected values: false-alarm rate `FALSE_ALARM` in all."""
    z = (values.mean(0) - expected) / (values.std(0) / math.sqrt(len(values)))
    assert float(z.abs().max()) < norm.isf(FALSE_ALARM / 2 / z.numel()), z


def test_a_prior_that_couples_two_parameters_is_sampled_exactly() -> None:
    """BAOAB has no step-size bias on a Gaussian, so means and covariances are exact; one draw per replicate."""
    x, y, precision = regression()
    params = start("a", "b")
    sampler = BAOAB(params.items(), lr=0.2, momentum=0.8, num_data=20, prior=None, seed=4)
    draws = sample(gaussian_posterior(), sampler, repeat((x, y)), burn_in=150, draws=1)
    w = torch.stack([draws["a"][0], draws["b"][0]], dim=1)
    covariance = torch.linalg.inv(x.T @ x + precision)
    centred = w - covariance @ x.T @ y
    assert_mean(centred, torch.zeros(2, dtype=torch.float64))
    products = torch.stack([centred[:, 0] ** 2, centred[:, 1] ** 2, centred[:, 0] * centred[:, 1]], dim=1)
    assert_mean(products, torch.stack([covariance[0, 0], covariance[1, 1], covariance[0, 1]]))


def test_logistic_regression_by_quadrature() -> None:
    """Posterior mean and second moments of two weights with a Cauchy prior, on a grid; thinned replicate averages.

    The step-size bias of BAOAB is of second order: twice the step moved no moment by more than 0.005.
    """
    x, y, _ = regression()
    y = (y > 0).double()

    def log_likelihood_of(w: Tensor) -> Tensor:
        logits = x @ w
        return y.unsqueeze(1) * logits - torch.nn.functional.softplus(logits)

    def log_prior_of(w: Tensor) -> Tensor:
        return -(w.square() / 4).log1p().sum(0)

    posterior = Posterior(
        lambda params, batch: log_likelihood_of(params["w"].T).sum(1),
        lambda params: log_prior_of(params["w"].T).sum(),
        20,
    )
    params = {"w": torch.zeros(REPLICATES, 2, dtype=torch.float64, requires_grad=True)}
    sampler = BAOAB(params.items(), lr=0.5, momentum=0.8, num_data=20, prior=None, seed=5)
    draws = sample(posterior, sampler, repeat((x, y)), burn_in=300, draws=40, thin=10)["w"]

    axis = torch.linspace(-25, 25, 1001, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).T
    weight = (log_likelihood_of(grid).sum(0) + log_prior_of(grid)).softmax(0)
    moments = torch.stack([grid[0], grid[1], grid[0] * grid[1]]) @ weight
    w1, w2 = draws[..., 0], draws[..., 1]
    assert_mean(torch.stack([w1, w2, w1 * w2]).mean(1).T, moments)


@pytest.mark.parametrize("kind", [SGLD, SGHMC])
def test_it_moves_exactly_like_a_sampler_with_the_same_prior(kind: type) -> None:
    """The prior inside the posterior, or in the sampler: the same chain up to rounding."""
    x, y, _ = regression()

    def nll(w: Tensor) -> Tensor:
        return 0.5 * (y - x @ w).square()

    within = {"w": torch.ones(2, dtype=torch.float64, requires_grad=True)}
    prior = Gaussian(0.3)
    posterior = Posterior(lambda p, batch: -nll(p["w"]), prior.log_density, 20)
    sample(posterior, kind(within.items(), lr=0.1, num_data=20, prior=None, seed=0), repeat(0), burn_in=30, draws=1)

    outside = torch.ones(2, dtype=torch.float64, requires_grad=True)
    sampler = kind([("w", outside)], lr=0.1, num_data=20, prior=prior, seed=0)
    for _ in range(31):
        sampler.zero_grad()
        nll(outside).mean().backward()
        sampler.step()
    torch.testing.assert_close(within["w"], outside)


def test_draws_are_those_after_burn_in_and_thinning() -> None:
    x, y, _ = regression()

    def run(burn_in: int, draws: int, thin: int) -> Tensor:
        params = start("a", "b")
        sampler = SGHMC(params.items(), lr=0.1, num_data=20, prior=None, seed=0)
        return sample(gaussian_posterior(), sampler, repeat((x, y)), burn_in=burn_in, draws=draws, thin=thin)["a"]

    every = run(0, 10, 1)
    assert every.shape == (10, REPLICATES)
    assert torch.equal(run(4, 2, 3), every[[6, 9]])


def test_bad_input_is_named() -> None:
    x, y, _ = regression()
    good, params = gaussian_posterior(), start("a", "b")

    def sampler(**settings: object) -> SGHMC:
        return SGHMC(params.items(), **({"lr": 0.1, "num_data": 20, "prior": None} | settings))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="prior=None"):
        sample(good, sampler(prior=1.0), repeat((x, y)), burn_in=0, draws=1)
    with pytest.raises(ValueError, match="must agree"):
        sample(good, sampler(num_data=21), repeat((x, y)), burn_in=0, draws=1)
    with pytest.raises(ValueError, match="ran out after 3 of 5"):
        sample(good, sampler(), [(x, y)] * 3, burn_in=0, draws=5)
    with pytest.raises(ValueError, match="burn_in -1"):
        sample(good, sampler(), repeat((x, y)), burn_in=-1, draws=5)
    with pytest.raises(ValueError, match="one entry per example"):
        Posterior(lambda p, b: p["a"].sum(), good.log_prior, 20).backward(params, (x, y))
    with pytest.raises(ValueError, match="one number"):
        Posterior(good.log_likelihood, lambda p: p["a"], 20).backward(params, (x, y))
    with pytest.raises(ValueError, match="num_data"):
        Posterior(good.log_likelihood, good.log_prior, 0)
    with pytest.raises(RunError, match="diverged at step"):
        sample(good, sampler(lr=1e6), repeat((x, y)), burn_in=400, draws=1)
