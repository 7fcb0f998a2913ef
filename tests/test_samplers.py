"""The samplers: equality with SGD, exact stationary laws at finite steps, noise, masks, resume, validation.

A statistical test has a fixed seed and states how often it would fail over seeds if the code were right. Replicates are
the rows of one parameter tensor whose gradient is filled in by hand.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import chi2, kstest, norm
from torch import Tensor, nn

from sgmcmc_prune.diagnostics import (
    configurational_temperature,
    excess_temperature,
    kinetic_temperature,
    symplectic_euler_variance_factor,
)
from sgmcmc_prune.noise import Stream, standard_normal
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.priors.gaussian import Gaussian
from sgmcmc_prune.samplers import SGHMC, SGLD, Sampler

Array = NDArray[np.float64]
FALSE_ALARM = 1e-3


def random_curvature(seed: int, d: int = 3) -> Array:
    """A correlated positive definite matrix with eigenvalues 1, 3, 6 for d = 3."""
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    return q @ np.diag(np.linspace(1, 2, d) * np.linspace(1, d, d)) @ q.T


def random_mass(seed: int, d: int = 3) -> Array:
    return np.random.default_rng(seed).uniform(0.5, 3.0, d)


@dataclass(frozen=True)
class Problem:
    """The target exp(-N w' A w / (2 T)) and the settings of a sampler for it; momentum None is SGLD."""

    curvature: Array
    lr: float
    momentum: float | None = None
    mass: Array | None = None
    temperature: float = 1.0
    num_data: int = 50
    seed: int = 0

    @property
    def dimension(self) -> int:
        return len(self.curvature)

    @property
    def masses(self) -> Array:
        return np.ones(self.dimension) if self.mass is None else self.mass

    def recursion(self) -> tuple[Array, Array]:
        """Transition and noise covariance of the state: w for SGLD, (w, b) for SGHMC."""
        lr, identity, inverse = self.lr, np.eye(self.dimension), np.diag(1 / self.masses)
        if self.momentum is None:
            return identity - lr * inverse @ self.curvature, 2 * lr * self.temperature / self.num_data * inverse
        beta = self.momentum
        transition = np.block(
            [
                [identity - lr * inverse @ self.curvature, -lr * beta * inverse],
                [self.curvature, beta * identity],
            ]
        )
        enters = np.vstack([-lr * inverse, identity])
        strength = 2 * (1 - beta) * self.temperature / (self.num_data * lr)
        return transition, strength * enters @ np.diag(self.masses) @ enters.T

    def covariance(self) -> Array:
        """Exact stationary covariance of the state, step-size bias included."""
        return solve_discrete_lyapunov(*self.recursion())

    def steps_to_stationarity(self, tolerance: float = 1e-4) -> int:
        """Steps after which, from zero, every covariance is within `tolerance` standard deviations squared."""
        transition, target = self.recursion()[0], self.covariance()
        scale = np.sqrt(np.outer(np.diag(target), np.diag(target)))
        steps, power = 1, transition
        while np.abs(power @ target @ power.T / scale).max() > tolerance:
            steps, power = steps + 1, power @ transition
        return steps

    def sampler(self, replicates: int) -> tuple[Sampler, Tensor]:
        """A sampler at w = 0, whose one parameter has a row for every replicate."""
        w = nn.Parameter(torch.zeros(replicates, self.dimension, dtype=torch.float64))
        shared: dict[str, Any] = {"lr": self.lr, "num_data": self.num_data, "temperature": self.temperature}
        shared |= {"seed": self.seed, "preconditioner": None if self.mass is None else RMSprop()}
        sampler = SGLD([w], **shared) if self.momentum is None else SGHMC([w], momentum=self.momentum, **shared)
        if self.mass is not None:
            sampler.state[w]["mass"] = torch.from_numpy(self.mass).expand_as(w)
            sampler.freeze()
        return sampler, w

    def advance(self, sampler: Sampler, w: Tensor, steps: int, gradient_noise: float = 0.0) -> None:
        """Take steps with the exact mean gradient, plus independent noise of the given variance."""
        curvature = torch.from_numpy(self.curvature)
        generator = torch.Generator().manual_seed(self.seed + 1)
        for _ in range(steps):
            w.grad = w.detach() @ curvature
            if gradient_noise > 0:
                w.grad += math.sqrt(gradient_noise) * torch.randn(w.shape, generator=generator, dtype=w.dtype)
            sampler.step()

    def run(self, replicates: int, steps: int, gradient_noise: float = 0.0) -> Array:
        """States of the replicates after steps from zero."""
        sampler, w = self.sampler(replicates)
        self.advance(sampler, w, steps, gradient_noise)
        return joint_state(sampler, w)


def joint_state(sampler: Sampler, w: Tensor) -> Array:
    parts = [w.detach()]
    if "momentum_buffer" in sampler.state[w]:
        parts.append(sampler.state[w]["momentum_buffer"])
    return torch.cat(parts, dim=1).numpy()


def assert_covariance(states: Array, expected: Array) -> None:
    """z-scores of all second moments about zero, two-sided with Bonferroni at `FALSE_ALARM` in all."""
    n = len(states)
    variances = np.diag(expected)
    error = np.sqrt((np.outer(variances, variances) + expected**2) / n)
    z = ((states.T @ states / n - expected) / error)[np.tril_indices(len(expected))]
    assert np.abs(z).max() < norm.isf(FALSE_ALARM / 2 / len(z)), z


def assert_variance(x: Array, expected: float) -> None:
    """Exact chi-square test of the variance of independent zero-mean normals, two-sided at `FALSE_ALARM`."""
    total = float((x**2).sum()) / expected
    assert chi2.ppf(FALSE_ALARM / 2, x.size) < total < chi2.isf(FALSE_ALARM / 2, x.size), total / x.size


PROBLEMS = {
    "sgld": Problem(random_curvature(0), lr=0.15),
    "sgld, mass": Problem(random_curvature(1), lr=0.1, mass=random_mass(1), temperature=0.3),
    "sghmc .9": Problem(random_curvature(2), lr=0.2, momentum=0.9),
    "sghmc .9, mass": Problem(random_curvature(3), lr=0.2, momentum=0.9, mass=random_mass(3), num_data=1000),
    "sghmc .5": Problem(random_curvature(4), lr=0.3, momentum=0.5, temperature=2.0),
    "sghmc .5, mass": Problem(random_curvature(5), lr=0.1, momentum=0.5, mass=random_mass(5)),
    "sghmc 0, mass": Problem(random_curvature(6), lr=0.1, momentum=0.0, mass=random_mass(6)),
}


def test_the_exact_covariance_has_the_closed_form_in_one_dimension() -> None:
    for momentum, lr, mass in [(0.9, 0.1, 2.0), (0.1, 0.5, 1.0), (0.0, 0.2, 4.0)]:
        problem = Problem(np.array([[2.0]]), lr=lr, momentum=momentum, mass=np.array([mass]))
        factor = symplectic_euler_variance_factor(lr * 2 / mass, momentum)
        covariance = problem.covariance()
        assert covariance[0, 0] == pytest.approx(factor / (50 * 2))
        # The physical momentum is -sqrt(lr N) b.
        assert lr * 50 * covariance[1, 1] == pytest.approx(2 / (1 + momentum) * factor * mass)


@pytest.mark.parametrize("name", PROBLEMS)
def test_stationary_covariance(name: str) -> None:
    """All second moments of (w, b) from a start at zero: false alarms at 1e-3 per case."""
    problem = PROBLEMS[name]
    assert_covariance(problem.run(8000, problem.steps_to_stationarity()), problem.covariance())


@pytest.mark.parametrize("name", ["sghmc .9, mass", "sghmc .5"])
def test_a_start_in_the_stationary_law_stays_there(name: str) -> None:
    """False alarms at 1e-3 per case."""
    problem = replace(PROBLEMS[name], seed=17)
    sampler, w = problem.sampler(replicates=8000)
    d = problem.dimension
    normals = np.random.default_rng(17).standard_normal((8000, 2 * d))
    start = torch.from_numpy(normals @ np.linalg.cholesky(problem.covariance()).T)
    with torch.no_grad():
        w.copy_(start[:, :d])
    sampler.state[w] |= {"momentum_buffer": start[:, d:].clone(), "momentum_lr": problem.lr}
    problem.advance(sampler, w, steps=8)
    assert_covariance(joint_state(sampler, w), problem.covariance())


@pytest.mark.parametrize("momentum", [0.9, 0.1])
def test_variance_and_temperatures_hardly_depend_on_the_mass(momentum: float) -> None:
    """Var(w), the kinetic and the configurational temperature on a round quadratic; each a chi-square test at 1e-3."""
    curvature, lr, num_data, temperature = 2.0, 0.05, 400, 0.7
    for mass in (0.5, 1.0, 4.0):
        problem = Problem(
            np.array([[curvature]]), lr, momentum, np.array([mass]), temperature=temperature, num_data=num_data, seed=2
        )
        sampler, w = problem.sampler(replicates=6000)
        assert isinstance(sampler, SGHMC)
        problem.advance(sampler, w, problem.steps_to_stationarity())
        factor = symplectic_euler_variance_factor(lr * curvature / mass, momentum)
        assert factor < 1.15
        assert_variance(w.detach().numpy(), temperature / (num_data * curvature) * factor)
        square, dimension = sampler.momentum_square()
        assert dimension == 6000
        kinetic = kinetic_temperature(square, dimension) / (temperature * 2 / (1 + momentum) * factor)
        assert chi2.ppf(FALSE_ALARM / 2, dimension) < kinetic * dimension < chi2.isf(FALSE_ALARM / 2, dimension)
        dot = num_data * curvature * float((w.detach() ** 2).sum())
        configurational = configurational_temperature(dot, dimension) / (temperature * factor)
        assert chi2.ppf(FALSE_ALARM / 2, dimension) < configurational * dimension < chi2.isf(FALSE_ALARM / 2, dimension)


@pytest.mark.parametrize("name", PROBLEMS)
def test_variance_is_linear_in_temperature(name: str) -> None:
    # The same noise, and powers of two: the paths scale to the bit.
    cool, hot = PROBLEMS[name], replace(PROBLEMS[name], temperature=4 * PROBLEMS[name].temperature)
    assert np.array_equal(hot.run(10, 20), 2 * cool.run(10, 20))


@pytest.mark.parametrize("name", PROBLEMS)
def test_variance_halves_when_the_data_double(name: str) -> None:
    few, many = PROBLEMS[name], replace(PROBLEMS[name], num_data=2 * PROBLEMS[name].num_data)
    np.testing.assert_allclose(many.run(10, 20), few.run(10, 20) / math.sqrt(2), rtol=1e-9)


@pytest.mark.parametrize(("momentum", "mass"), [(0.9, 1.0), (0.9, 2.0), (0.0, 1.0)])
def test_gradient_noise_heats_as_predicted(momentum: float, mass: float) -> None:
    """Chi-square test at 1e-3 per case of Var(w) under gradient noise of known variance."""
    problem = Problem(np.array([[2.0]]), lr=0.05, momentum=momentum, mass=np.array([mass]), num_data=1000, seed=3)
    excess = excess_temperature(1000, 0.05, 4e-3, momentum, mass)
    assert excess > 0.09
    w = problem.run(10_000, problem.steps_to_stationarity(), gradient_noise=4e-3)[:, 0]
    factor = symplectic_euler_variance_factor(0.05 * 2 / mass, momentum)
    assert_variance(w, (1 + excess) * factor / (1000 * 2))


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)


def set_gradients(model: nn.Module, step: int) -> Tensor:
    """Gradients of a mean squared error on a batch that depends on the step only."""
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(step), dtype=next(model.parameters()).dtype)
    model.zero_grad()
    loss = (model(x) - x[:, :1].sin()).square().mean()
    loss.backward()
    return loss.detach()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> nn.Module:
    for t in range(start, start + steps):
        set_gradients(model, t)
        optimizer.step()
    return model


def assert_equal_parameters(first: nn.Module, second: nn.Module) -> None:
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name


def layer_groups(model: nn.Sequential) -> list[dict[str, Any]]:
    return [{"params": list(model[0].parameters()), "lr": 0.3}, {"params": list(model[2].parameters())}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_cold_sghmc_is_sgd_to_the_bit(momentum: float, dtype: torch.dtype) -> None:
    model, other = network(dtype), network(dtype)
    sampler = SGHMC(layer_groups(model), lr=0.1, num_data=123, momentum=momentum, temperature=0)
    train(model, sampler, 200)
    train(other, torch.optim.SGD(layer_groups(other), lr=0.1, momentum=momentum, foreach=False), 200)
    assert_equal_parameters(model, other)


def test_cold_sgld_is_sgd_to_the_bit() -> None:
    model, other = network(), network()
    train(model, SGLD(layer_groups(model), lr=0.1, num_data=123, temperature=0), 200)
    train(other, torch.optim.SGD(layer_groups(other), lr=0.1, foreach=False), 200)
    assert_equal_parameters(model, other)


def test_without_momentum_sghmc_is_sgld() -> None:
    model, other = network(torch.float64), network(torch.float64)
    train(model, SGHMC(model.parameters(), lr=0.1, num_data=50, momentum=0.0, seed=3), 20)
    train(other, SGLD(other.parameters(), lr=0.1, num_data=50, seed=3), 20)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("sampler_class", [SGHMC, SGLD])
def test_a_gaussian_prior_is_weight_decay(sampler_class: type[Sampler]) -> None:
    model, named, other = (network(torch.float64) for _ in range(3))
    momentum = {"momentum": 0.9} if sampler_class is SGHMC else {}
    settings = {"lr": 0.1, "num_data": 50, "temperature": 0, **momentum}
    train(model, sampler_class(model.parameters(), prior=4.0, **settings), 50)
    train(named, sampler_class(named.named_parameters(), prior=Gaussian(variance=0.25), **settings), 50)
    train(other, torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=4.0 / 50, **momentum), 50)
    assert_equal_parameters(model, named)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_prior_alone_is_sampled() -> None:
    """No data gradient: Var(w) = v T times the step's factor; a chi-square test at 1e-3."""
    w = nn.Parameter(torch.zeros(10_000))
    sampler = SGHMC([w], lr=0.5, num_data=10, momentum=0.5, temperature=0.8, prior=20.0, seed=6)
    w.grad = torch.zeros_like(w)
    for _ in range(40):
        sampler.step()
    factor = symplectic_euler_variance_factor(0.5 * 20 / 10, 0.5)
    assert_variance(w.detach().double().numpy(), 0.8 / 20 * factor)


@pytest.mark.parametrize("through_configure", [True, False])
def test_a_change_of_step_keeps_the_physical_momentum(through_configure: bool) -> None:
    w = nn.Parameter(torch.zeros(4))
    sampler = SGHMC([w], lr=0.4, num_data=10, momentum=0.8, temperature=0)
    w.grad = torch.tensor([1.0, -2.0, 3.0, 0.5])
    sampler.step()
    before, start, square = w.grad.clone(), w.detach().clone(), sampler.momentum_square()
    if through_configure:
        sampler.configure(lr=0.1)
    else:
        sampler.param_groups[0]["lr"] = 0.1
    assert sampler.momentum_square() == square
    w.grad.zero_()
    sampler.step()
    buffer = sampler.state[w]["momentum_buffer"]
    torch.testing.assert_close(buffer, 0.8 * before * 2)  # sqrt(l_old / l_new) = 2
    torch.testing.assert_close(w.detach(), start - 0.1 * buffer)
    assert sampler.momentum_square()[0] == pytest.approx(0.8**2 * square[0])


@pytest.mark.parametrize("mass", [None, np.array([0.5, 1.0, 4.0])])
def test_momentum_is_drawn_from_its_law(mass: Array | None) -> None:
    """Test m / sqrt(M) ~ N(0, 2 T / (1 + beta)) by Kolmogorov and Smirnov: false alarms at 1e-3 per case."""
    problem = Problem(random_curvature(0), lr=0.3, momentum=0.6, mass=mass, temperature=0.7, num_data=20, seed=9)
    sampler, w = problem.sampler(replicates=3000)
    assert isinstance(sampler, SGHMC)
    sampler.sample_momentum()
    physical = -math.sqrt(0.3 * 20) * sampler.state[w]["momentum_buffer"].numpy() / np.sqrt(problem.masses)
    standardised = physical / math.sqrt(2 * 0.7 / 1.6)
    assert kstest(standardised.ravel(), "norm").pvalue > FALSE_ALARM
    assert sampler.momentum_square() == pytest.approx((float((physical**2).sum()), 9000))


def test_momentum_draws_use_their_own_stream() -> None:
    w = nn.Parameter(torch.zeros(5))
    sampler = SGHMC([w], lr=1.0, num_data=2, momentum=0.0, seed=4)
    sampler.sample_momentum()
    expected = standard_normal(4, 0, 0, 0, 5, stream=Stream.MOMENTUM)
    torch.testing.assert_close(sampler.state[w]["momentum_buffer"], expected)
    assert sampler.param_groups[0]["step"] == 0


def test_a_step_adds_the_noise_of_its_counter() -> None:
    w = nn.Parameter(torch.zeros(5))
    sampler = SGLD([w], lr=0.5, num_data=1, seed=4, chain=2)
    w.grad = torch.zeros(5)
    sampler.step()
    sampler.step()
    torch.testing.assert_close(w.detach(), standard_normal(4, 2, 0, 0, 5) + standard_normal(4, 2, 1, 0, 5))


def test_chains_and_seeds_have_their_own_noise() -> None:
    ends = []
    for seed, chain in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        model = network()
        train(model, SGLD(model.parameters(), lr=0.1, num_data=9, seed=seed, chain=chain), 1)
        ends.append(model[0].weight)
    assert torch.equal(ends[0], ends[3])
    assert not torch.isclose(ends[0], ends[1]).any()
    assert not torch.isclose(ends[0], ends[2]).any()


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("named", [True, False])
def test_noise_does_not_depend_on_how_parameters_are_grouped(cut: int, named: bool) -> None:
    ends = []
    for split in (False, True):
        model = network()
        parameters: list[Any] = list(model.named_parameters() if named else model.parameters())
        groups = [{"params": parameters[:cut]}, {"params": parameters[cut:]}] if split else parameters
        ends.append(train(model, SGHMC(groups, lr=0.1, num_data=50, seed=1), 10))
    assert_equal_parameters(*ends)


def test_a_group_added_later_continues_offsets_and_counter() -> None:
    first, late = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(3))
    sampler = SGLD([first], lr=0.5, num_data=1, seed=8)
    first.grad, late.grad = torch.zeros(5), torch.zeros(3)
    sampler.step()
    sampler.add_param_group({"params": [late]})
    sampler.step()
    torch.testing.assert_close(late.detach(), standard_normal(8, 0, step=1, offset=5, count=3))
    assert [name for name, *_ in sampler.named_states()] == ["0", "1"]


def test_a_parameter_without_a_gradient_rests_and_leaves_the_others_noise_alone() -> None:
    ends = []
    for frozen in (False, True):
        a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4))
        sampler = SGLD([a, b], lr=0.1, num_data=5)
        a.grad, b.grad = None if frozen else torch.zeros(3), torch.zeros(4)
        sampler.step()
        ends.append((a.detach(), b.detach()))
    assert torch.equal(ends[1][0], torch.ones(3))
    assert torch.equal(ends[0][1], ends[1][1])


def half_mask(model: nn.Module) -> dict[str, Tensor]:
    return {n: torch.arange(p.numel()).view_as(p) % 2 == 0 for n, p in model.named_parameters() if p.ndim >= 2}


@pytest.mark.parametrize("sampler_class", [SGHMC, SGLD])
def test_masked_weights_and_momenta_are_exactly_zero_forever(sampler_class: type[Sampler]) -> None:
    model = network()
    sampler = sampler_class(model.named_parameters(), lr=0.1, num_data=20, preconditioner=RMSprop(), prior=1.0)
    train(model, sampler, 5)
    mask = half_mask(model)
    sampler.set_mask(mask)
    for t in range(20):
        train(model, sampler, 1, start=5 + t)
        if t == 3:
            sampler.refresh_preconditioner()
        if t == 6 and isinstance(sampler, SGHMC):
            sampler.sample_momentum()
        for name, p, state, _ in sampler.named_states():
            if name in mask:
                assert torch.equal(p != 0, mask[name])
                assert torch.equal(state.get("momentum_buffer", p) != 0, mask[name])
            else:
                assert bool((p != 0).all())


def test_a_mask_takes_effect_at_once() -> None:
    model = network()
    sampler = SGHMC(model.named_parameters(), lr=0.1, num_data=20)
    train(model, sampler, 2)
    mask = half_mask(model)
    sampler.set_mask(mask)
    for name, p, state, _ in sampler.named_states():
        if name in mask:
            assert torch.equal(p != 0, mask[name])
            assert torch.equal(state["momentum_buffer"] != 0, mask[name])


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_weights_do_not_count_as_dimensions(dtype: torch.dtype, reloaded: bool) -> None:
    w = nn.Parameter(torch.ones(40, 30, dtype=dtype))
    sampler = SGHMC([("w", w)], lr=0.1, num_data=20)
    sampler.set_mask({"w": (torch.arange(1200) < 999).view(40, 30)})
    w.grad = torch.ones_like(w)
    sampler.step()
    if reloaded:
        sampler.load_state_dict(copy.deepcopy(sampler.state_dict()))
    square, dimension = sampler.momentum_square()
    assert dimension == 999
    assert square == pytest.approx(float(sampler.state[w]["momentum_buffer"].double().square().sum()) * 2, rel=0.01)


@pytest.mark.parametrize("sampler_class", [SGHMC, SGLD])
def test_a_resumed_sampler_continues_to_the_bit(sampler_class: type[Sampler]) -> None:
    def build(model: nn.Module, **settings: Any) -> Sampler:
        return sampler_class(model.named_parameters(), num_data=30, prior=2.0, preconditioner=RMSprop(), **settings)

    model = network()
    sampler = build(model, lr=0.1, seed=5, chain=3)
    train(model, sampler, 6)
    sampler.refresh_preconditioner()
    sampler.configure(lr=0.05)
    sampler.set_mask(half_mask(model))
    train(model, sampler, 5, start=6)

    other = copy.deepcopy(model)
    resumed = build(other, lr=0.7)
    resumed.load_state_dict(copy.deepcopy(sampler.state_dict()))
    for m, s in [(model, sampler), (other, resumed)]:
        train(m, s, 4, start=11)
        s.refresh_preconditioner()
        s.configure(lr=0.02, temperature=0.5)
        train(m, s, 4, start=15)
    assert_equal_parameters(model, other)


def test_the_state_dict_carries_the_noise_counter_and_key() -> None:
    model = network()
    sampler = SGHMC(model.named_parameters(), lr=0.1, num_data=30, seed=5, chain=3)
    train(model, sampler, 6)
    group = sampler.state_dict()["param_groups"][0]
    assert (group["seed"], group["chain"], group["step"], group["offset"]) == (5, 3, 6, 0)


def test_the_counter_moves_at_zero_temperature_too() -> None:
    model = network()
    sampler = SGLD(model.parameters(), lr=0.1, num_data=30, temperature=0)
    train(model, sampler, 4)
    assert sampler.param_groups[0]["step"] == 4


@pytest.mark.parametrize("sampler_class", [SGHMC, SGLD])
def test_a_learning_rate_scheduler_sets_the_step(sampler_class: type[Sampler]) -> None:
    # Without momentum the momentum's rescaling cannot show, and both are plain SGD.
    ends = []
    for cold in (True, False):
        model = network(torch.float64)
        momentum = {"momentum": 0.0} if sampler_class is SGHMC else {}
        optimizer: torch.optim.Optimizer = (
            sampler_class(model.parameters(), lr=0.1, num_data=10, temperature=0, **momentum)
            if cold
            else torch.optim.SGD(model.parameters(), lr=0.1)
        )
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01)
        for t in range(10):
            train(model, optimizer, 1, start=t)
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
        ends.append(model)
    for a, b in zip(*(m.parameters() for m in ends), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_closure_is_evaluated_with_gradients() -> None:
    model, other = network(), network()
    sampler = SGHMC(model.parameters(), lr=0.1, num_data=10)
    losses = [sampler.step(lambda t=t: set_gradients(model, t)) for t in range(3)]
    train(other, SGHMC(other.parameters(), lr=0.1, num_data=10), 3)
    assert_equal_parameters(model, other)
    assert losses[0] == set_gradients(network(), 0)


@pytest.mark.parametrize("sampler_class", [SGHMC, SGLD])
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"temperature": -0.1}, ValueError, "temperature is -0.1"),
        ({"temperature": math.nan}, ValueError, "temperature is nan"),
        ({"num_data": 0}, ValueError, "num_data is 0"),
        ({"num_data": -5}, ValueError, "num_data is -5"),
        ({"num_data": True}, TypeError, "num_data is True; it must be an integer"),
        ({"num_data": 10.0}, TypeError, "num_data is 10.0; it must be an integer"),
        ({"lr": 0.0}, ValueError, "lr is 0.0"),
        ({"lr": math.nan}, ValueError, "lr is nan"),
        ({"lr": math.inf}, ValueError, "lr is inf"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": 2**32}, ValueError, "seed is 4294967296"),
        ({"chain": 2**16}, ValueError, "chain is 65536"),
        ({"prior": 0.0}, ValueError, "prior precision is 0.0"),
        ({"prior": -1.0}, ValueError, "prior precision is -1.0"),
        ({"prior": math.nan}, ValueError, "prior precision is nan"),
    ],
)
def test_settings_out_of_range_are_refused(
    sampler_class: type[Sampler], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sampler_class([nn.Parameter(torch.zeros(2))], **{"lr": 0.1, "num_data": 10, **settings})


@pytest.mark.parametrize("momentum", [1.0, -0.1, math.nan])
def test_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        SGHMC([nn.Parameter(torch.zeros(2))], lr=0.1, num_data=10, momentum=momentum)


def test_the_settings_of_a_group_are_checked() -> None:
    with pytest.raises(ValueError, match="lr is -1"):
        SGHMC([{"params": [nn.Parameter(torch.zeros(2))], "lr": -1.0}], lr=0.1, num_data=10)


def test_a_complex_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="'w' is complex"):
        SGLD([("w", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))], lr=0.1, num_data=10)


@pytest.mark.parametrize("settings", [{"lr": math.nan}, {"temperature": -1.0}, {"momentum": 1.0}])
def test_configure_checks(settings: dict[str, float]) -> None:
    sampler = SGHMC([nn.Parameter(torch.zeros(2))], lr=0.1, num_data=10)
    call: Callable[..., None] = sampler.configure
    with pytest.raises(ValueError, match=next(iter(settings))):
        call(**settings)
