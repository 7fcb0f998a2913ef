"""The stationary laws of the samplers at finite steps, against the solution of their Lyapunov equations.

The code's linear map is compared with the published equations to rounding; the closed forms of the docstrings with the
Lyapunov solution; and one simulation per sampler shows that the noise of different steps is independent.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from lyapunov import Problem, assert_covariance, assert_variance, random_curvature, random_mass
from toy_network import momentum_square

from sgmcmc_prune.diagnostics import excess_temperature, symplectic_euler_variance_factor
from sgmcmc_prune.samplers import MomentumSampler

PROBLEMS = {
    "sgld": Problem("sgld", random_curvature(0), lr=0.15),
    "sgld, mass": Problem("sgld", random_curvature(1), lr=0.1, mass=random_mass(1), temperature=0.3),
    "sghmc": Problem("sghmc", random_curvature(2), lr=0.2, momentum=0.9),
    "sghmc, mass": Problem("sghmc", random_curvature(3), 0.2, 0.9, random_mass(3), num_data=1000),
    "sghmc .5": Problem("sghmc", random_curvature(4), lr=0.3, momentum=0.5, temperature=2.0),
    "sghmc 0": Problem("sghmc", random_curvature(6), lr=0.1, momentum=0.0, mass=random_mass(6)),
    "baoab": Problem("baoab", random_curvature(7), lr=0.4, momentum=0.8),
    "baoab, mass": Problem("baoab", random_curvature(8), 0.5, 0.6, random_mass(8), temperature=0.3, num_data=1000),
    "baoab 0": Problem("baoab", random_curvature(6), lr=0.1, momentum=0.0, mass=random_mass(6)),
    "obabo": Problem("obabo", random_curvature(9), lr=0.4, momentum=0.8),
    "obabo, mass": Problem("obabo", random_curvature(10), 0.5, 0.6, random_mass(10), temperature=0.3, num_data=1000),
    "sgnht": Problem("sgnht", random_curvature(11), lr=0.3, momentum=0.9, thermostat=0.2),
    "sgnht, mass": Problem("sgnht", random_curvature(12), 0.3, 0.7, random_mass(12), thermostat=-0.1),
    "adaptive": Problem("adaptive_sghmc", random_curvature(13), 0.3, 0.8, random_mass(13), temperature=0.3),
    "released": Problem("released", random_curvature(14), 0.2, 0.1, random_mass(14), temperature=0.3),
}
cases = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())


@cases
def test_one_step_is_the_published_one(problem: Problem) -> None:
    for measured, published in zip(problem.measure(), problem.recursion(), strict=True):
        np.testing.assert_allclose(measured, published, rtol=1e-12, atol=1e-13)


@cases
def test_a_start_in_the_stationary_law_stays_there(problem: Problem) -> None:
    """All second moments of (w, b) after 12 steps: false alarms at 1e-3 per case."""
    problem = replace(problem, seed=17)
    sampler, w = problem.sampler(replicates=4000)
    covariance = problem.covariance()
    values, vectors = np.linalg.eigh(covariance)  # singular without momentum decay
    root = vectors * np.sqrt(np.clip(values, 0, None))
    problem.place(sampler, w, np.random.default_rng(17).standard_normal((4000, len(root))) @ root.T)
    problem.advance(sampler, w, steps=12)
    assert_covariance(problem.state(sampler, w), covariance)


@cases
def test_the_law_is_linear_in_temperature_and_falls_with_the_data(problem: Problem) -> None:
    d = problem.dimension
    noise = problem.measure()[1]
    hot = replace(problem, temperature=4 * problem.temperature)
    np.testing.assert_allclose(hot.measure()[1], 2 * noise, rtol=1e-9, atol=1e-14)
    more = replace(problem, num_data=2 * problem.num_data)
    np.testing.assert_allclose(more.measure()[1], noise / math.sqrt(2), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(more.covariance()[:d, :d], problem.covariance()[:d, :d] / 2, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("lr", "mass"), [(0.1, 2.0), (0.5, 1.0), (0.9, 1.1)])
def test_closed_forms_in_one_dimension(momentum: float, lr: float, mass: float) -> None:
    """Var(w) and the kinetic temperature of every docstring, for curvature 2."""
    exact = 0.7 / (50 * 2.0)
    heat = symplectic_euler_variance_factor(lr * 2 / mass, momentum)

    def problem(kind: str) -> Problem:
        return Problem(kind, np.array([[2.0]]), lr, momentum, np.array([mass]), temperature=0.7)

    assert problem("sgld").covariance()[0, 0] == pytest.approx(exact / (1 - lr * 2 / mass / 2))
    for kind in ("sghmc", "adaptive_sghmc"):
        assert problem(kind).covariance()[0, 0] == pytest.approx(exact * heat)
        assert problem(kind).kinetic_temperature() == pytest.approx(0.7 * heat * 2 / (1 + momentum))
    assert problem("obabo").covariance()[0, 0] == pytest.approx(exact * heat)
    assert problem("obabo").kinetic_temperature() == pytest.approx(0.7 * heat)
    for kind in ("baoab", "sgnht"):
        assert problem(kind).covariance()[0, 0] == pytest.approx(exact)
        assert problem(kind).kinetic_temperature() == pytest.approx(0.7)


@pytest.mark.parametrize("mass", [None, random_mass(1)])
@pytest.mark.parametrize("lr", [0.01, 0.3, 0.62])
def test_baoab_has_the_exact_covariance_at_every_stable_step(lr: float, mass: np.ndarray | None) -> None:
    """The largest eigenvalue is 6: the limit for M = 1 and beta = .9 is lr = .633."""
    problem = Problem("baoab", random_curvature(5), lr, 0.9, mass, temperature=0.4)
    exact = 0.4 / 50 * np.linalg.inv(problem.curvature)
    np.testing.assert_allclose(problem.covariance()[:3, :3], exact, rtol=1e-8, atol=1e-12)
    assert problem.kinetic_temperature() == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["sgld", "sghmc", "baoab", "obabo", "sgnht", "adaptive_sghmc"])
def test_positions_do_not_depend_on_the_mass_as_the_step_shrinks(kind: str) -> None:
    for mass in (None, random_mass(2)):
        if kind == "adaptive_sghmc" and mass is None:
            continue
        problem = Problem(kind, random_curvature(2), lr=1e-6, momentum=0.5, mass=mass)
        exact = np.linalg.inv(problem.curvature) / 50
        np.testing.assert_allclose(problem.covariance()[:3, :3], exact, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["sgld", "sghmc", "baoab", "obabo", "sgnht", "adaptive_sghmc", "released"])
def test_the_stability_limit_is_that_of_sgd(kind: str) -> None:
    """Stable just below l a / M = 2 (1 + beta), and not just above; without momentum the limit is 2."""
    momentum = 0.0 if kind == "sgld" else 0.6
    for share in (0.999, 1.001):
        lr = share * 2 * (1 + momentum) * 1.5 / 3.0
        transition = Problem(kind, np.array([[3.0]]), lr, momentum, np.array([1.5])).measure()[0]
        assert (np.abs(np.linalg.eigvals(transition)).max() < 1) == (share < 1)


@pytest.mark.parametrize("momentum", [0.9, 0.3])
@pytest.mark.parametrize("kind", ["sghmc", "baoab", "obabo"])
def test_gradient_noise_heats_positions_by_the_same_amount(kind: str, momentum: float) -> None:
    """Cold, all are SGD: noise in the gradient has one effect on positions, at every step."""
    problem = Problem(kind, np.array([[2.0]]), 0.3, momentum, np.array([1.7]), num_data=1000)
    added = problem.covariance(4e-3) - problem.covariance()
    heat = excess_temperature(1000, 0.3, 4e-3, momentum, 1.7) * symplectic_euler_variance_factor(0.6 / 1.7, momentum)
    assert added[0, 0] == pytest.approx(heat / (1000 * 2.0))


@pytest.mark.parametrize("kind", ["sghmc", "baoab", "obabo"])
def test_gradient_noise_heats_the_code_as_predicted(kind: str) -> None:
    """Chi-square test at 1e-3 of Var(w) after 60 steps from zero, the momentum (.7) and the position long forgotten."""
    problem = Problem(kind, np.array([[2.0]]), 0.2, 0.7, num_data=1000, seed=3)
    sampler, w = problem.sampler(replicates=8000)
    problem.advance(sampler, w, 60, gradient_variance=4e-3)
    power = np.linalg.matrix_power(problem.recursion()[0], 60)
    assert np.abs(power).max() < 1e-3
    assert problem.covariance(4e-3)[0, 0] > 1.4 / 2000
    assert_variance(w.detach().numpy(), float(problem.covariance(4e-3)[0, 0]))


@pytest.mark.parametrize("kind", ["sghmc", "baoab", "obabo", "sgnht", "adaptive_sghmc"])
def test_kinetic_temperature_of_the_code(kind: str) -> None:
    """`momentum_squares` are the physical m' M^-1 m of the recursions; the small-step factor is the declared one."""
    problem = PROBLEMS["adaptive"] if kind == "adaptive_sghmc" else replace(PROBLEMS[f"{kind}, mass"], thermostat=0.0)
    sampler, w = problem.sampler(replicates=5)
    assert isinstance(sampler, MomentumSampler)
    states = np.random.default_rng(0).standard_normal((5, 6))
    problem.place(sampler, w, states)
    square, dimension = momentum_square(sampler)
    assert dimension == 15
    assert square == pytest.approx(problem.unit * float((states[:, 3:] ** 2 / problem.masses).sum()))
    small = replace(problem, lr=1e-7)
    factor = sampler.kinetic_factor(sampler.param_groups[0])
    assert small.kinetic_temperature() == pytest.approx(factor * problem.temperature, rel=1e-5)
