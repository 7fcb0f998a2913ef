"""Temperatures and batch means against closed forms, a Lyapunov equation, and simulated chains.

A statistical test has a fixed seed and states how often it would fail over seeds if the code were right.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from scipy.signal import lfilter
from scipy.stats import binom, chi2

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.heat import excess_temperatures, noise_batches
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.diagnostics import (
    FALSE_ALARM,
    batch_means,
    batch_means_interval,
    configurational_temperature,
    excess_temperature,
    gradient_variance,
    judge,
    kinetic_band,
    kinetic_temperature,
    symplectic_euler_variance_factor,
)
from sgmcmc_prune.likelihoods import categorical, gaussian, mean_nll
from sgmcmc_prune.samplers import BAOAB, SGHMC, SGLD, SGNHT, Sampler

Array = NDArray[np.float64]


def stationary_covariance(num_data: int, lr: float, curvature: float, beta: float, heat: float, mass: float) -> Array:
    """Exact covariance of (w, u) under symplectic Euler on N a w^2 / 2 at temperature `heat`."""
    pull = lr * curvature / mass
    transition = np.array([[1 - pull, beta], [-pull, beta]])
    noise = 2 * (1 - beta) * lr * heat / (num_data * mass)
    return solve_discrete_lyapunov(transition, np.full((2, 2), noise))


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("lr", [0.001, 0.05, 0.8])
def test_variance_factor_solves_the_lyapunov_equation(beta: float, lr: float) -> None:
    num_data, curvature, mass, temperature = 50, 3.0, 2.0, 0.7
    covariance = stationary_covariance(num_data, lr, curvature, beta, temperature, mass)
    factor = symplectic_euler_variance_factor(lr * curvature / mass, beta)
    assert num_data * curvature * covariance[0, 0] / temperature == pytest.approx(factor, rel=1e-9)
    kinetic = kinetic_temperature(num_data / lr * mass * covariance[1, 1], 1)
    assert kinetic == pytest.approx(2 * temperature / (1 + beta) * factor, rel=1e-9)


def test_variance_factor_published_values_and_limit() -> None:
    assert symplectic_euler_variance_factor(0.1, 0.9) == pytest.approx(1.0270, abs=5e-5)
    assert symplectic_euler_variance_factor(1.0, 0.9) == pytest.approx(1.357, abs=5e-4)
    assert symplectic_euler_variance_factor(0.0, 0.5) == 1.0
    with pytest.raises(ValueError, match="kappa < 2"):
        symplectic_euler_variance_factor(3.0, 0.5)


def test_minibatch_noise_heats_as_predicted() -> None:
    num_data, lr, beta, gradient_variance, curvature = 1000, 0.05, 0.9, 1e-3, 2.0
    excess = excess_temperature(num_data, lr, gradient_variance, beta, mass=1.0)
    assert excess == pytest.approx(0.25)
    # The same chain with lr^2 V_g added to its noise directly.
    pull = lr * curvature
    noise = 2 * (1 - beta) * lr / num_data + lr**2 * gradient_variance
    transition = np.array([[1 - pull, beta], [-pull, beta]])
    covariance = solve_discrete_lyapunov(transition, np.full((2, 2), noise))
    expected = (1 + excess) * symplectic_euler_variance_factor(pull, beta)
    assert num_data * curvature * covariance[0, 0] == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(1.2838, abs=5e-5)


def test_band_is_the_chi_square_band() -> None:
    # At beta -> 1 these are the values of Wenzel et al.
    for dimension, low, high in [(1000, 0.889, 1.119), (10_000, 0.964, 1.037), (270_000, 0.993, 1.007)]:
        assert kinetic_band(1.0, dimension, 0.5, integrator="baoab") == pytest.approx((low, high), abs=5e-4)
    expected = [chi2.ppf(q, 10) * 3.0 / 10 * 2 / 1.9 for q in (0.05, 0.95)]
    assert kinetic_band(3.0, 10, 0.9, probability=0.9) == pytest.approx(expected, rel=1e-10)
    assert kinetic_band(0.0, 10, 0.9) == (0.0, 0.0)


def euler_momenta(beta: float, kappa: float, rng: np.random.Generator, chains: int, dimension: int) -> Array:
    """Physical momenta (M = 1, T = 1) of independent symplectic-Euler chains on N(0, I), 300 steps from the start."""
    w, u = rng.standard_normal((chains, dimension)), np.zeros((chains, dimension))
    for _ in range(300):
        u = beta * u - kappa * w + math.sqrt(2 * (1 - beta) * kappa) * rng.standard_normal(w.shape)
        w = w + u
    return u / math.sqrt(kappa)


def baoab_momenta(beta: float, kappa: float, rng: np.random.Generator, chains: int, dimension: int) -> Array:
    """Do the same by BAOAB, after its last half kick."""
    h = math.sqrt(kappa)
    w, m = rng.standard_normal((chains, dimension)), np.zeros((chains, dimension))
    for _ in range(300):
        m = m - h / 2 * w
        w = w + h / 2 * m
        m = beta * m + math.sqrt(1 - beta**2) * rng.standard_normal(w.shape)
        w = w + h / 2 * m
        m = m - h / 2 * w
    return m


@pytest.mark.parametrize(
    ("integrator", "momenta", "beta", "kappa"),
    [
        ("symplectic_euler", euler_momenta, 0.1, 0.1),
        ("symplectic_euler", euler_momenta, 0.9, 0.1),
        ("symplectic_euler", euler_momenta, 0.9, 1.0),
        ("baoab", baoab_momenta, 0.9, 0.01),
    ],
)
def test_band_covers_a_simulated_chain(
    integrator: str, momenta: Callable[..., Array], beta: float, kappa: float
) -> None:
    # Forty chains are independent and have forgotten their start (every mode shrinks by .95 a step or faster). Each
    # leaves an exact 99% band with probability .01, so more than 5 of 40 do with probability 3e-6. (BAOAB's momentum is
    # cold by kappa / 4 = .25%, a twentieth of one standard deviation of these values.)
    chains, dimension = 40, 1000
    values = np.square(momenta(beta, kappa, np.random.default_rng(0), chains, dimension)).sum(1) / dimension
    temperature = symplectic_euler_variance_factor(kappa, beta) if integrator == "symplectic_euler" else 1.0
    low, high = kinetic_band(temperature, dimension, beta, integrator=integrator)
    assert binom.sf(5, chains, 0.01) < 3e-6
    assert np.sum((values < low) | (values > high)) <= 5
    if beta == 0.1:  # without the factor 2 / (1 + beta) the band would miss them all
        assert kinetic_band(temperature, dimension, beta, integrator="baoab")[1] < values.min()


def test_temperatures_are_ratios_and_nan_when_nothing_is_left() -> None:
    assert kinetic_temperature(3.0, 2) == 1.5
    assert configurational_temperature(3.0, 2) == 1.5
    assert math.isnan(kinetic_temperature(0.0, 0))
    assert math.isnan(configurational_temperature(0.0, 0))
    assert all(math.isnan(end) for end in kinetic_band(1.0, 0, 0.9))


def test_configurational_temperature_of_a_tempered_gaussian() -> None:
    # w ~ N(0, T / a): a w'w / T ~ chi^2_d. False-alarm rate 1e-6.
    dimension, curvature, temperature = 1000, 4.0, 0.3
    w = np.random.default_rng(1).standard_normal(dimension) * math.sqrt(temperature / curvature)
    low, high = chi2.ppf([5e-7, 1 - 5e-7], dimension) * temperature / dimension
    assert low < configurational_temperature(float(w @ (curvature * w)), dimension) < high


def test_batch_means_by_hand() -> None:
    x = [99.0, *np.repeat(np.arange(1.0, 9.0), 2)]  # the first value does not fill a batch
    mean, error, batches = batch_means(x, batches=8)
    assert (mean, batches) == (4.5, 8)
    assert error == pytest.approx(math.sqrt(6.0 / 8))
    assert batch_means(np.zeros(120)).num_batches == 10
    assert math.isnan(batch_means(np.arange(63)).standard_error)
    assert math.isnan(batch_means(np.arange(70), batches=7).standard_error)
    assert all(math.isnan(end) for end in batch_means_interval([1.0]))


def test_standard_error_is_right_on_an_autoregression() -> None:
    # The mean of a batch of L values has variance v (closed form), and B (B - 1) se^2 / v is a chi^2 with B - 1 degrees
    # of freedom, but for a correlation below .0012 between neighbouring batches: over 20 chains, a band of 580 degrees
    # widened by that share fails with probability below 1e-5.
    phi, batches, length, chains = 0.8, 30, 2000, 20
    noise = np.random.default_rng(2).standard_normal((chains, 500 + batches * length))
    x = lfilter([1], [1, -phi], noise)[:, 500:]
    lag = np.arange(1, length)
    v = (1 + 2 * np.sum((1 - lag / length) * phi**lag)) / (1 - phi**2) / length
    total = sum(batches * (batches - 1) * batch_means(row, batches).standard_error ** 2 / v for row in x)
    low, high = chi2.ppf([5e-6, 1 - 5e-6], chains * (batches - 1))
    assert 0.9976 * low < total < 1.0024 * high
    short = batch_means(x[0], batches=batches * length).standard_error  # batches of one know nothing of correlation
    assert short < 0.5 * batch_means(x[0], batches).standard_error


def test_interval_covers_the_mean() -> None:
    # Exact for independent normals. Misses of 1000 intervals are binomial; fails with probability 1e-6.
    rows = np.random.default_rng(3).standard_normal((1000, 100))
    intervals = [batch_means_interval(row, probability=0.9) for row in rows]
    misses = sum(not low < 0 < high for low, high in intervals)
    assert binom.ppf(5e-7, 1000, 0.1) <= misses <= binom.isf(5e-7, 1000, 0.1)


# --- the noise of minibatch gradients -----------------------------------------------------------------------------


def test_gradient_variance_is_that_of_the_gradients_and_moves_nothing() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 3)
    )
    model[0].weight.grad = torch.ones(5, 4)
    batches = [(torch.randn(6, 4), torch.randint(3, (6,))) for _ in range(4)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with torch.no_grad():  # as where a chain records a draw
        found = gradient_variance(model, categorical, batches)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones(5, 4))
    gradients = []
    for inputs, targets in batches:  # with the same random state, dropout is the same
        model.zero_grad()
        mean_nll(categorical, model(inputs), targets).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert set(found) == set(gradients[0])
    for name, variance in found.items():
        torch.testing.assert_close(variance, torch.stack([g[name] for g in gradients]).var(0))
    with pytest.raises(ValueError, match="at least two"):
        gradient_variance(model, categorical, batches[:1])


def heated_chain(sampler: type[Sampler], batch_size: int = 10) -> Chain:
    """A chain of 20 inputs and one output on 200 examples, with masses."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 20, generator=generator)
    torch.manual_seed(0)
    model = torch.nn.Linear(20, 1, bias=False)
    settings = {} if sampler is SGLD else {"momentum": 0.9}
    kernel = sampler(model.named_parameters(), lr=0.01, num_data=200, **settings)
    stream = MinibatchStream(inputs, torch.randn(200, generator=generator), batch_size, seed=0, chain=0)
    schedule = Cyclical(0.01, 0.01, 0.01, 0.9, 1.0, burn_in=0, cycles=1, explore=0, sample=4000)
    chain = Chain(0, model, kernel, schedule, stream, gaussian())
    chain.advance()
    kernel.state[model.weight]["mass"] = torch.linspace(0.5, 4, 20).unsqueeze(0)
    return chain


@pytest.mark.parametrize(("sampler", "friction", "batch"), [(SGHMC, 0.1, 10), (BAOAB, 0.1, 50), (SGLD, 1.0, 10)])
def test_excess_temperature_of_a_chain_is_that_of_all_examples(
    sampler: type[Sampler], friction: float, batch: int
) -> None:
    chain = heated_chain(sampler, batch)
    w = chain.parameters["weight"].detach()
    residual = chain.stream.inputs @ w[0] - chain.stream.targets
    each = chain.stream.inputs * residual.unsqueeze(1)  # the gradient of every example
    variance = each.var(0) / batch * (1 - batch / 200)  # of a batch without replacement
    mass = chain.sampler.state[chain.parameters["weight"]]["mass"][0]
    expected = 200 * 0.01 / (2 * friction) * float((variance / mass).mean())
    # 25 estimates from 32 batches each, of a 20-dimensional noise of rank above 5: their mean has a relative standard
    # error below sqrt(2 / 4000) = 2.3 %, and misses by 12 % with probability below 1e-6.
    estimates = []
    for draw in range(25):
        chain.draws = draw
        estimates.append(excess_temperatures(chain)["weight"])
    assert np.mean(estimates) == pytest.approx(expected, rel=0.12)
    mask = torch.ones(1, 20, dtype=torch.bool)
    mask[0, 0] = False  # the lightest weight, the hottest
    chain.set_mask({"weight": mask})
    assert excess_temperatures(chain)["weight"] < np.mean(estimates)


def test_a_full_batch_is_not_heated_and_a_thermostat_takes_the_heat() -> None:
    assert excess_temperatures(heated_chain(SGHMC, batch_size=200))["weight"] == 0.0
    assert excess_temperatures(heated_chain(SGNHT)) == {}


def test_measuring_leaves_the_chain_as_it_was() -> None:
    one, other = heated_chain(SGHMC), heated_chain(SGHMC)
    excess_temperatures(one)
    for chain in (one, other):
        for _ in range(5):
            chain.advance()
    assert torch.equal(one.parameters["weight"], other.parameters["weight"])


def test_measuring_costs_a_hundredth_of_the_gradients() -> None:
    chain = heated_chain(SGHMC)
    assert noise_batches(chain) == 32
    chain.schedule = dataclasses.replace(chain.schedule, sample=700)
    assert noise_batches(chain) == 7
    chain.schedule = dataclasses.replace(chain.schedule, sample=20)
    assert noise_batches(chain) == 2


def test_a_sampler_without_momentum_has_no_squares() -> None:
    assert heated_chain(SGLD).sampler.momentum_squares() == {}


# --- the verdict --------------------------------------------------------------------------------------------------

SIZES = {"a.weight": 500, "a.bias": 20}


def verdict(
    seed: int, heat: float = 1.0, integrator: str | None = "symplectic_euler", temperature: float = 0.5
) -> dict[str, Any]:
    """Judge 2 chains of 20 exact draws at `heat` times the temperature."""
    rng = np.random.default_rng(seed)
    degrees = np.array(list(SIZES.values()))
    kinetic = heat * temperature * 2 / 1.9 * rng.chisquare(degrees, (2, 20, 2)) / degrees
    configurational = heat * temperature * (1 + 0.02 * rng.standard_normal((2, 20)))
    excess = [0.1, math.nan]
    settings = {"temperature": temperature, "momentum": 0.9, "integrator": integrator}
    return judge(kinetic, configurational, SIZES, excess, batches=10, **settings)


def test_false_alarms_are_as_rare_as_stated() -> None:
    # 1000 runs at their temperature; each is off with probability .01 at most, so that over 26 are with probability
    # below 1e-5.
    alarms = sum(bool(verdict(seed)["findings"]) for seed in range(1000))
    assert binom.sf(26, 1000, FALSE_ALARM) < 1e-5
    assert alarms <= 26


def test_a_hot_run_is_off_in_words() -> None:
    found = verdict(0, heat=1.5)
    assert [finding.split(" is off")[0] for finding in found["findings"]] == [
        "kinetic temperature",
        "configurational temperature of chain 0",
        "configurational temperature of chain 1",
    ]
    assert "in 1 of 2 parameters (a.weight)" in found["findings"][0]
    assert "estimated to add 0.1 to T" in found["findings"][0]
    row = found["kinetic"]["parameters"]["a.weight"]
    assert row["outside"] > row["checks"] / 2
    low, high = kinetic_band(0.5, 500, 0.9, 1 - FALSE_ALARM / 2 / 80)  # 2 chains, 20 draws, 2 parameters
    assert (row["low"], row["high"]) == (low, high)
    assert found["kinetic"]["expected"] == pytest.approx(0.5 * 2 / 1.9)


def short(configurational: np.ndarray, batches: int) -> dict[str, Any]:
    """Judge the configurational temperature alone, at T = 1."""
    kinetic = np.ones((*configurational.shape, 1))
    settings: dict[str, Any] = {"temperature": 1.0, "momentum": 0.9, "integrator": None, "batches": batches}
    return judge(kinetic, configurational, {"w": 50}, [math.nan], **settings)


def test_a_short_run_is_judged_by_the_batches_of_all_its_chains() -> None:
    """Two chains of three cycles: of 2,000 healthy runs .005 are off, over 30 with probability below 1e-6."""
    rng = np.random.default_rng(0)
    runs = 1 + 0.05 * rng.standard_normal((2000, 2, 9))
    alarms = sum(bool(short(run, 3)["findings"]) for run in runs)
    assert binom.sf(30, 2000, FALSE_ALARM / 2) < 1e-6
    assert alarms <= 30
    found = short(runs[0] + 0.4, 3)
    assert all(math.isnan(row["low"]) for row in found["configurational"])
    assert found["pooled"]["low"] < (runs[0] + 0.4).mean() < found["pooled"]["high"]
    (finding,) = found["findings"]
    assert finding.startswith("configurational temperature of all chains is off: 1.386, interval 1.323 to 1.449")
    assert short(1 + 0.05 * rng.standard_normal((2, 64)), 8)["pooled"] is None


@pytest.mark.parametrize(("value", "off"), [(50.0, True), (-1.5, True), (2.9, False), (-0.9, False)])
def test_without_an_interval_a_temperature_is_off_by_its_size(value: float, off: bool) -> None:
    findings = short(np.full((1, 3), value), 1)["findings"]
    assert [text.split(",")[0] for text in findings] == [
        f"configurational temperature of all chains is far off: {value:.3g}"
    ] * off


def test_one_chain_counted_twice_is_told() -> None:
    rng = np.random.default_rng(0)
    kinetic = rng.chisquare(50, (3, 20, 1)) / 50
    kinetic[2] = kinetic[0]
    configurational = 1 + 0.02 * rng.standard_normal((3, 20))
    settings = {"temperature": 1.0, "momentum": 0.9, "integrator": None, "batches": 10}
    found = judge(kinetic, configurational, {"w": 50}, [math.nan], **settings)
    assert "chains 0 and 2 have the same temperatures in every draw: they are one chain" in found["findings"][0]


def test_without_a_band_there_is_a_reason() -> None:
    assert verdict(0, integrator=None)["kinetic"]["reason"] == "the sampler has no momentum"
    unknown = verdict(0, heat=3.0, integrator="leapfrog")
    assert unknown["kinetic"]["reason"] == "no band is known for the integrator 'leapfrog'"
    assert math.isnan(unknown["kinetic"]["expected"])
    assert len(unknown["findings"]) == 2  # the configurational temperature needs no integrator
    assert "nothing is sampled" in verdict(0, temperature=0.0)["kinetic"]["reason"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kinetic_band(1.0, 10, 1.0), r"momentum is 1.0; it must be in \[0, 1\)"),
        (lambda: kinetic_band(-1.0, 10, 0.9), "temperature is -1.0"),
        (lambda: kinetic_band(math.nan, 10, 0.9), "temperature is nan"),
        (lambda: kinetic_band(1.0, 10, 0.9, probability=1.0), "probability is 1.0"),
        (lambda: kinetic_band(1.0, 10, 0.9, integrator="euler"), "choose one of symplectic_euler, baoab, obabo"),
        (lambda: excess_temperature(0, 0.1, 1.0, 0.9, 1.0), "num_data 0"),
        (lambda: excess_temperature(10, 0.1, -1.0, 0.9, 1.0), "gradient_variance -1.0"),
        (lambda: excess_temperature(10, 0.1, 1.0, 0.9, 0.0), "mass is 0.0"),
        (lambda: symplectic_euler_variance_factor(-0.1, 0.9), "kappa"),
        (lambda: batch_means([]), "non-empty vector of finite values"),
        (lambda: batch_means([1.0, math.nan]), "finite"),
        (lambda: batch_means(np.zeros((2, 2))), r"shape \(2, 2\)"),
        (lambda: batch_means([1.0, 2.0], batches=3), "batches is 3; 2 values allow 1 to 2"),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
