"""The thermostat takes out the heat of minibatch noise that the other samplers keep.

With many replicates in one tensor z hardly fluctuates (variance rate / d), so the law is that of the linear sampler at
the z where the thermostat rests, and exact.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lyapunov import Problem, assert_variance, random_curvature
from scipy.optimize import brentq
from torch import nn
from toy_network import make_sampler, network, train

from sgmcmc_prune.samplers import SGNHT

PROBLEM = Problem("sgnht", np.array([[2.0]]), lr=0.1, momentum=0.8, num_data=1000, seed=3)
GRADIENT_VARIANCE = 4e-3


def before_and_after(problem: Problem, gradient_variance: float) -> tuple[float, float]:
    """Kinetic temperature on both sides of the refreshment: m' = c m + nu, so Var(m) = (Var(m') - nu^2) / c^2."""
    after = problem.kinetic_temperature(gradient_variance)
    c = problem.momentum * np.exp(-problem.thermostat)
    return (after - problem.temperature * (1 - problem.momentum**2)) / c**2, after


def at_rest(problem: Problem, gradient_variance: float) -> Problem:
    """The same with z where the thermostat rests: where T_K is T on average over the refreshment."""

    def excess(z: float) -> float:
        return float(np.mean(before_and_after(replace(problem, thermostat=z), gradient_variance))) - problem.temperature

    return replace(problem, thermostat=brentq(excess, -0.1, 3.0))


def test_without_gradient_noise_the_thermostat_rests_at_zero_at_every_step() -> None:
    for lr in (1e-3, 0.3, 0.55):
        problem = Problem("sgnht", random_curvature(1), lr, 0.8, temperature=0.4)
        assert at_rest(problem, 0.0).thermostat == pytest.approx(0.0, abs=1e-9)


def test_at_rest_positions_have_the_target_temperature() -> None:
    """Exact: BAOAB is at twice T; the thermostat leaves (1 - c)^2 / 4 of the heat at small steps."""
    heated = replace(PROBLEM, kind="baoab").covariance(GRADIENT_VARIANCE)[0, 0] * 2000
    assert heated == pytest.approx(1 + 1000 * 0.1 * GRADIENT_VARIANCE / (2 * 0.2) / (1 - 0.2 / 3.6), rel=0.01)
    assert heated > 1.9
    problem = at_rest(PROBLEM, GRADIENT_VARIANCE)
    assert problem.thermostat > 0.2
    assert problem.covariance(GRADIENT_VARIANCE)[0, 0] * 2000 == pytest.approx(1, abs=0.04)
    small = replace(PROBLEM, lr=1e-4)
    noise = GRADIENT_VARIANCE * PROBLEM.lr / small.lr  # the same heat
    resting = at_rest(small, noise)
    c = 0.8 * np.exp(-resting.thermostat)
    kick = 2 * 1000 * small.lr / 1.8 * noise
    off = resting.covariance(noise)[0, 0] * 2000 - 1
    assert off == pytest.approx(-((1 - c) ** 2) / 4 * kick / (1 - c**2), rel=0.01)


def test_the_thermostat_finds_its_place_and_cools_the_chain() -> None:
    """Var(w) by chi-square tests at 1e-3; z within 5 of its standard deviations, sqrt(rate / d)."""
    replicates, rate = 12_000, 0.02
    w = nn.Parameter(torch.zeros(replicates, 1, dtype=torch.float64))
    sampler = SGNHT([w], lr=PROBLEM.lr, num_data=1000, momentum=0.8, rate=rate, seed=3)
    PROBLEM.advance(sampler, w, 250, GRADIENT_VARIANCE)
    expected = at_rest(PROBLEM, GRADIENT_VARIANCE)
    z = float(sampler.state[w]["thermostat"])
    assert abs(z - expected.thermostat) < 5 * np.sqrt(rate / replicates)
    assert_variance(w.detach().numpy(), float(expected.covariance(GRADIENT_VARIANCE)[0, 0]))
    with pytest.raises(AssertionError):  # the heat that BAOAB and SGHMC keep
        assert_variance(w.detach().numpy(), float(replace(PROBLEM, kind="sghmc").covariance(GRADIENT_VARIANCE)[0, 0]))


def test_every_tensor_has_its_thermostat_and_it_rests_at_temperature_zero() -> None:
    model = network()
    sampler = make_sampler("sgnht", model.parameters())
    train(model, sampler, 3)
    thermostats = [float(sampler.state[p]["thermostat"]) for p in model.parameters()]
    assert len(set(thermostats)) == 4
    sampler.configure(temperature=0.0)
    train(model, sampler, 3)
    assert [float(sampler.state[p]["thermostat"]) for p in model.parameters()] == thermostats


def test_the_thermostat_follows_the_step() -> None:
    w = nn.Parameter(torch.zeros(3))
    sampler = SGNHT([w], lr=0.4, num_data=10)
    w.grad = torch.ones(3)
    sampler.step()
    z = float(sampler.state[w]["thermostat"])
    sampler.configure(lr=0.1, temperature=0.0)
    sampler.step()
    assert float(sampler.state[w]["thermostat"]) == pytest.approx(z / 4)


def test_a_mask_counts_in_the_dimension() -> None:
    """The thermostat of 30 weights of which 20 are masked is that of the 10 left."""
    readings = []
    for size in (30, 10):
        w = nn.Parameter(torch.zeros(size, dtype=torch.float64))
        sampler = SGNHT([("w", w)], lr=0.1, num_data=50, rate=0.1, seed=0)
        if size == 30:
            sampler.set_mask({"w": torch.arange(30) < 10})
        for _ in range(5):
            w.grad = torch.ones_like(w)
            sampler.step()
        readings.append(float(sampler.state[w]["thermostat"]))
    assert readings[0] == pytest.approx(readings[1])
