"""Temperatures and batch means against closed forms, a Lyapunov equation, and simulated chains.

A statistical test has a fixed seed and states how often it would fail over seeds if the code were right.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from scipy.signal import lfilter
from scipy.stats import binom, chi2

from sgmcmc_prune.diagnostics import (
    batch_means,
    batch_means_interval,
    configurational_temperature,
    excess_temperature,
    kinetic_band,
    kinetic_temperature,
    symplectic_euler_variance_factor,
)

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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kinetic_band(1.0, 10, 1.0), r"momentum is 1.0; it must be in \[0, 1\)"),
        (lambda: kinetic_band(-1.0, 10, 0.9), "temperature is -1.0"),
        (lambda: kinetic_band(math.nan, 10, 0.9), "temperature is nan"),
        (lambda: kinetic_band(1.0, 10, 0.9, probability=1.0), "probability is 1.0"),
        (lambda: kinetic_band(1.0, 10, 0.9, integrator="euler"), "choose one of symplectic_euler, baoab"),
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
