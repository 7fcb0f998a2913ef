"""Reduction on draws: its small-sample bias, autocorrelation, the tie to inclusion probabilities, and what it refuses.

False alarms: statistical checks use five standard errors, 6e-7 each.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, StudentT

from sgmcmc_prune.baselines.bmr import reduction
from sgmcmc_prune.baselines.bmr.draws import (
    ChainReduction,
    corrected_moments,
    delta_f_of_draws,
    integrated_autocorrelation_time,
    largest_ratio,
)
from sgmcmc_prune.models import build
from sgmcmc_prune.priors import Gaussian, SpikeSlab
from sgmcmc_prune.pruning.inclusion import InclusionAverage

REPETITIONS = 400_000


def sample_moments(z: float, deviation: float, count: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of `count` independent draws of N(z s, s^2), many times over, from their exact laws."""
    torch.manual_seed(0)
    mean = deviation * (z + torch.randn(REPETITIONS, dtype=torch.float64) / math.sqrt(count))
    chi_square = torch.distributions.Chi2(torch.tensor(count - 1.0, dtype=torch.float64)).sample((REPETITIONS,))
    return mean, deviation**2 * chi_square / (count - 1)


def assert_mean(values: Tensor, expected: float) -> None:
    assert abs(float(values.mean()) - expected) < 5 * float(values.std()) / math.sqrt(len(values))


@pytest.mark.parametrize("count", [10, 30, 100, 1000])
@pytest.mark.parametrize("z", [0.0, 3.0])
def test_t9_bias_of_the_plug_in_and_of_its_correction(count: int, z: float) -> None:
    deviation, n = 0.05, count - 1
    exact = math.log(1 / deviation) - z**2 / 2
    mean, variance = sample_moments(z, deviation, count)
    half = torch.tensor(n / 2, dtype=torch.float64)
    squares = (count - 1) / (count - 3) * (z**2 + 1 / count) - z**2
    bias = -squares / 2 + float(half.log() - half.digamma()) / 2
    assert_mean(delta_f_of_draws(mean, variance, count, 1.0, "none"), exact + bias)
    assert_mean(delta_f_of_draws(mean, variance, count, 1.0, "unbiased"), exact)


@pytest.mark.parametrize(
    ("correction", "z", "wrong"),
    [("none", 2, 0.25), ("unbiased", 2, 0.13), ("student-t", 2, 0.11), ("none", 3, 0.14), ("student-t", 3, 0.32)],
)
def test_t9_no_correction_dominates_at_ten_draws(correction: str, z: float, wrong: float) -> None:
    """At s / a^(1/2) = .05 a weight at z = 2 should go and one at z = 3 stay; rates as computed independently."""
    delta_f = delta_f_of_draws(*sample_moments(z, 0.05, 10), 10, 1.0, correction)  # type: ignore[arg-type]
    rate = float(((delta_f > 0) != (z == 2)).double().mean())
    assert rate == pytest.approx(wrong, abs=0.0075)


def test_student_t_is_the_predictive_ordinate_at_zero() -> None:
    m, v = torch.tensor([0.1, -0.4], dtype=torch.float64), torch.tensor([0.02, 0.3], dtype=torch.float64)
    scale = (v * (1 + 1 / 12)).sqrt()
    t = StudentT(torch.tensor(11.0).double(), m, scale).log_prob(torch.zeros(2).double())
    expected = t - Normal(0.0, math.sqrt(2.0)).log_prob(torch.zeros(2).double())
    torch.testing.assert_close(delta_f_of_draws(m, v, 12, 2.0), expected)
    many = delta_f_of_draws(m, v, 1e7, 2.0)
    torch.testing.assert_close(many, reduction.diagonal(m, v, 2.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("tau", "count"), [(5.0, 400), (20.0, 2000)])
def test_autocorrelation_is_estimated_and_its_deflation_undone(tau: float, count: int) -> None:
    """AR(1) chains with rho = (tau - 1) / (tau + 1), 2000 of them; the time within 5 %, the variance within 1 %."""
    rho = (tau - 1) / (tau + 1)
    g = torch.Generator().manual_seed(1)
    x = [torch.randn(2000, generator=g, dtype=torch.float64)]
    for _ in range(count - 1):
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * torch.randn(2000, generator=g, dtype=torch.float64))
    draws = torch.stack(x)
    assert integrated_autocorrelation_time(draws) == pytest.approx(tau, rel=0.05)
    _, variance, effective = corrected_moments(draws)
    assert float(variance.mean()) == pytest.approx(1, abs=0.01)
    assert effective == pytest.approx(count / tau, rel=0.06)
    assert integrated_autocorrelation_time(torch.ones(10, 3)) == 1


def test_inclusion_under_the_mixture_is_reduction_from_the_mixture_to_its_spike() -> None:
    """The mean over any draws of N(w; 0, v0) / p(w) is the exclusion estimate divided by (1 - pi), draw by draw."""
    pi, v0, v1 = 0.3, 1e-3, 0.5
    w = 0.2 * torch.randn(20, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = SpikeSlab({"w": w[0]}, mode="marginal", inclusion_rate=pi, spike_variance=v0, slab_variance=v1)
    average = InclusionAverage()
    for draw in w:
        average.update(prior.log_odds("w", draw))
    spike, slab = (Normal(0 * w, math.sqrt(v)).log_prob(w).exp() for v in (v0, v1))
    evidence_ratio = (spike / ((1 - pi) * spike + pi * slab)).mean(0).flatten()  # exp(delta F)
    torch.testing.assert_close(average.excluded, (1 - pi) * evidence_ratio, rtol=1e-12, atol=1e-15)


def regression_draws(count: int, width: int = 6) -> tuple[list[dict[str, Tensor]], Tensor, Tensor]:
    """Exact posterior draws of a linear regression under N(0, 1), and the exact marginal moments."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(40, width, generator=g).double() + torch.randn(40, 1, generator=g).double()
    y = x[:, 0] + torch.randn(40, generator=g).double()
    covariance = (x.T @ x + torch.eye(width).double()).inverse()
    mean = covariance @ x.T @ y
    root = torch.linalg.cholesky(covariance)
    noise = torch.randn(count, width, generator=g).double()
    return [{"linear.weight": (mean + root @ xi)[None]} for xi in noise], mean, covariance.diagonal()


def linear(width: int = 6) -> torch.nn.Module:
    return build("linear", (width,), 1, seed=0, bias=False).double()


def test_a_chain_of_exact_draws_gives_the_exact_single_deletions() -> None:
    draws, mean, variance = regression_draws(20_000)
    result = ChainReduction(linear(), draws, Gaussian(1.0))
    exact = reduction.diagonal(mean, variance, 1.0)
    # The error of delta F is about ((z^2 - 1) dv / v - 2 z dm / s) / 2.
    z = mean / variance.sqrt()
    error = ((z.square() - 1).square() * 2 / 4 + z.square()).sqrt() / math.sqrt(20_000)
    assert bool(((result.delta_f["linear.weight"][0] - exact).abs() < 5 * error).all())
    assert result.excess["linear.weight"] == 0
    assert result.mask["linear.weight"][0, 0]
    assert result.scores["linear.weight"].shape == (6,)
    assert result.effective_draws["linear.weight"] > 15_000


def test_a_tempered_chain_sees_a_tempered_prior() -> None:
    draws, _, _ = regression_draws(500)
    warm = [{n: w * 2 for n, w in d.items()} for d in draws]
    cold = ChainReduction(linear(), draws, Gaussian(1.0), allow_empty=True)
    hot = ChainReduction(linear(), warm, Gaussian(1.0), temperature=4.0, allow_empty=True)
    torch.testing.assert_close(hot.delta_f, cold.delta_f)


def test_weights_that_did_not_move_are_floored_and_wide_ones_set_aside() -> None:
    draws, _, _ = regression_draws(200)
    for i, draw in enumerate(draws):
        draw["linear.weight"][0, 1] = 0.0
        draw["linear.weight"][0, 2] = 5.0 * (-1) ** (i // 2)
    with pytest.raises(ValueError, match=r"'linear.weight': 1 of 6 variances are larger than the prior's 1 "):
        ChainReduction(linear(), draws, Gaussian(1.0))
    result = ChainReduction(linear(), draws, Gaussian(1.0), excess_variance="zero")
    assert result.delta_f["linear.weight"][0, 2] == 0
    assert result.excess["linear.weight"] == pytest.approx(1 / 6)
    assert result.delta_f["linear.weight"][0, 1] == pytest.approx(math.log(1e4), abs=0.1)
    assert not result.mask["linear.weight"][0, 1]


def test_largest_ratio_is_a_quantile() -> None:
    half = torch.tensor(99 / 2, dtype=torch.float64)
    assert float(torch.special.gammaincc(half, half * largest_ratio(100, 50))) == pytest.approx(1e-3 / 50)


def test_refusals() -> None:
    draws, _, _ = regression_draws(50)
    model = linear()
    mixture = SpikeSlab(dict(model.named_parameters()))
    with pytest.raises(
        TypeError, match="ran under SpikeSlab, which has shrunk the weights already: its evidence would"
    ):
        ChainReduction(model, draws, mixture)
    with pytest.raises(ValueError, match="3 draws with an autocorrelation time of 1 count as 3; a reduction needs at"):
        ChainReduction(model, draws[:3], Gaussian(1.0))
    with pytest.raises(ValueError, match="temperature is 0"):
        ChainReduction(model, draws, Gaussian(1.0), temperature=0)
    still = [{"linear.weight": 1e-3 * (draws[i]["linear.weight"] - draws[i + 1]["linear.weight"])} for i in range(49)]
    with pytest.raises(ValueError, match=r"removes all weights of 'linear.weight'; pass allow_empty=True"):
        ChainReduction(model, still, Gaussian(1.0))
    assert not ChainReduction(model, still, Gaussian(1.0), allow_empty=True).mask["linear.weight"].any()
    one = torch.ones(1)
    with pytest.raises(ValueError, match="needs more than 3"):
        delta_f_of_draws(one, one, 3, 1.0)
    with pytest.raises(ValueError, match="variances of draws and prior must be > 0"):
        delta_f_of_draws(one, 0 * one, 9, 1.0)
    with pytest.raises(ValueError, match="correction is 'jackknife'"):
        delta_f_of_draws(one, one, 9, 1.0, "jackknife")  # type: ignore[arg-type]
