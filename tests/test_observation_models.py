"""Observation models: densities that integrate to one, and scores against their definitions."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from sgmcmc_prune.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    Mixture,
    ObservationModel,
    Poisson,
    bernoulli,
    observation_model,
    poisson,
)
from sgmcmc_prune.likelihoods.gaussian import LearnedNoise, crps


def test_gaussian_is_the_normal_density() -> None:
    outputs, y = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    for noise in ("learned", "heteroscedastic"):
        expected = -scipy.stats.norm(outputs[:, :2], outputs[:, 2:].exp()).logpdf(y).sum(1)
        np.testing.assert_allclose(Gaussian(noise)(outputs, y), expected)  # type: ignore[arg-type]
    np.testing.assert_allclose(
        Gaussian(0.3)(outputs[:, :2], y), -scipy.stats.norm(outputs[:, :2], 0.3).logpdf(y).sum(1)
    )


def test_poisson_and_bernoulli_sum_to_one() -> None:
    f = torch.tensor([[0.7]], dtype=torch.float64)
    counts = torch.arange(60.0, dtype=torch.float64)
    np.testing.assert_allclose(poisson(f.expand(60, 1), counts), -scipy.stats.poisson(math.exp(0.7)).logpmf(counts))
    both = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert float((-bernoulli(f.expand(2, 1), both)).exp().sum()) == pytest.approx(1)


def test_crps_of_one_normal_and_of_a_mixture_by_integration() -> None:
    mean, noise = (
        torch.tensor([[[0.3]], [[-1.0]], [[2.0]]]).double(),
        torch.tensor([[[0.5]], [[1.0]], [[0.2]]]).double(),
    )
    y, grid = 0.4, np.linspace(-12, 12, 200_001)
    cdf = np.mean([scipy.stats.norm(float(m), float(s)).cdf(grid) for m, s in zip(mean, noise, strict=True)], 0)
    expected = np.trapezoid((cdf - (grid >= y)) ** 2, grid)
    assert float(crps(mean, noise, torch.tensor([[y]]).double())) == pytest.approx(expected, abs=1e-4)


def test_scores_of_draws_from_the_truth_are_calibrated() -> None:
    """The coverage of 4,000 targets is outside [.88, .92] with probability under 1e-4 (binomial)."""
    generator = torch.Generator().manual_seed(0)
    model, outputs = Gaussian("heteroscedastic"), torch.randn(4000, 2, generator=generator)
    y = model.draw(outputs, generator)
    found = model.score(Mixture((outputs,)), y)
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    assert found["nll"] == pytest.approx(float(model(outputs, y).mean()), rel=1e-5)
    assert found["rmse"] == pytest.approx(float((outputs[:, :1] - y).square().mean().sqrt()), rel=1e-5)
    wide = model.score(Mixture((outputs,)), y, unit=10.0)
    assert wide["rmse"] == pytest.approx(10 * found["rmse"])
    assert wide["crps"] == pytest.approx(10 * found["crps"])
    assert wide["nll"] == pytest.approx(found["nll"] + math.log(10))


@pytest.mark.parametrize("model", [Bernoulli(), Poisson(), Gaussian("heteroscedastic")])
def test_a_draw_has_the_mean(model: ObservationModel) -> None:
    """The mean of 40,000 draws is over six standard errors off with probability under 1e-8."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.tensor([[0.4, 0.1]]).expand(40_000, 2)
    drawn = model.draw(outputs, generator)
    expected = model.mean(outputs)
    assert drawn.shape == expected.shape
    error = drawn.double().std(0) / math.sqrt(len(drawn))
    assert bool(((drawn.double().mean(0) - expected[0]).abs() < 6 * error).all())


def test_the_nll_of_a_mixture_is_that_of_the_averaged_density() -> None:
    parts = tuple(torch.randn(6, 1, dtype=torch.float64) for _ in range(3))
    y = torch.randn(6, dtype=torch.float64)
    density = np.mean([scipy.stats.norm(p[:, 0], 0.5).pdf(y) for p in parts], 0)
    assert Gaussian(0.5).score(Mixture(parts), y)["nll"] == pytest.approx(-np.log(density).mean())


def test_pooling_keeps_every_member() -> None:
    parts = [Mixture((torch.full((2, 1), float(i)),)) for i in range(3)]
    assert parts[0].pooled(parts[1]).pooled(parts[2]).outputs[:, 0, 0].tolist() == [0, 1, 2]


def test_learned_noise_is_a_parameter() -> None:
    network = Gaussian().completed(nn.Linear(2, 3), 3)
    assert isinstance(network, LearnedNoise)
    assert network(torch.randn(5, 2)).shape == (5, 6)
    assert "log_noise" in dict(network.named_parameters())


@pytest.mark.parametrize("noise", [0, -1.0, math.nan, True, "known", None])
def test_noise_that_is_none(noise: object) -> None:
    with pytest.raises(ValueError, match="give a standard deviation"):
        Gaussian(noise)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "targets", "said"),
    [
        (Bernoulli(), torch.tensor([0.0, 1.0, 0.5]), "example 2 is 0.5; it must be 0 or 1"),
        (Poisson(), torch.tensor([0.0, -1.0]), "example 1 is -1.0; it must be a count"),
        (Gaussian(), torch.tensor([0.0, math.inf]), "example 1 is inf; it must be finite"),
    ],
)
def test_targets_that_cannot_be(model: ObservationModel, targets: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model.check(targets)


def test_a_plain_function_is_judged_by_what_it_gives() -> None:
    def laplace(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).abs() + math.log(2)

    model = observation_model(laplace, labels=False)
    assert model.score(Mixture((torch.zeros(3, 1),)), torch.ones(3)) == {"nll": pytest.approx(1 + math.log(2))}
    assert isinstance(observation_model(laplace, labels=True), Categorical)
