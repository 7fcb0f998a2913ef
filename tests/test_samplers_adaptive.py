"""Ke and Fan's learned diagonal: the released form step for step, and what the corrected form learns."""

import math

import numpy as np
import pytest
import torch
from lyapunov import FALSE_ALARM, Array, Problem
from scipy.stats import norm
from torch import Tensor, nn
from toy_network import make_sampler, network, set_gradients

from sgmcmc_prune.data.fashion_mnist import subset
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.noise import standard_normal
from sgmcmc_prune.preconditioners import RMSprop
from sgmcmc_prune.samplers import AdaptiveSGHMC, adaptive_sghmc


class ReleasedSteps:
    """The released optimiser's steps in numpy, with its own names and in its order."""

    def __init__(self, w: Array, m: Array, xi: Array, lam: float, n: int, t: float, eta: float = 0.1) -> None:
        self.w, self.m, self.xi = w.copy(), m.copy(), xi.copy()
        self.rho, self.tau = np.zeros_like(w), np.full_like(w, 0.5)
        self.lam, self.n, self.t, self.eta, self.beta1, self.beta2 = lam, n, t, eta, 0.1, 1.0

    def step(self, g: Array, xi: Array, lr: float) -> None:
        c = math.sqrt(lr)
        slope = self.t**2 * c**3 * self.lam * self.tau + self.t * c**1.5 * self.xi * g - 1 / (self.n * self.tau)
        self.rho = self.rho - self.eta * slope
        self.tau = 1 / (1 + np.exp(-self.rho))
        self.xi = xi
        scale = math.sqrt(2 + 2 * self.beta1**2) * c**1.5 * self.t
        self.m = self.beta1 * self.m - c**2 * self.beta2 * (g + self.lam * self.w) + scale * xi
        self.w = self.w + self.tau * self.m


@pytest.mark.parametrize("multiplier", [100**-0.5, 1 / 100])
def test_the_released_form_is_the_released_code(multiplier: float) -> None:
    """To 1e-12 over 50 steps of a falling lr, from the same start; T is N times the noise multiplier squared."""
    model, n, lam = network(torch.float64), 100, 0.02
    sampler = make_sampler(
        "released",
        model.named_parameters(),
        momentum=0.1,
        num_data=n,
        temperature=n * multiplier**2,
        prior=n * lam,
        seed=3,
    )
    theirs = {}
    for name, p, state, _ in sampler.named_states():
        arrays = [x.detach().numpy() for x in (p, state["momentum_buffer"], state["noise"])]
        theirs[name] = ReleasedSteps(*arrays, lam, n, multiplier)
    for t in range(50):
        lr = 0.25 * (1 + math.cos(math.pi * t / 60))
        sampler.configure(lr=lr)
        set_gradients(model, t)
        gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
        sampler.step()
        offset = 0
        for name, p in model.named_parameters():
            xi = standard_normal(3, 0, t, offset, p.numel()).view_as(p).double().numpy()
            theirs[name].step(gradients[name], xi, lr)
            offset += p.numel()
            state = sampler.state[p]
            for ours, reference in [(p.detach(), theirs[name].w), (state["momentum_buffer"], theirs[name].m)]:
                np.testing.assert_allclose(ours.numpy(), reference, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(1 / state["mass"].numpy(), theirs[name].tau, rtol=1e-12)
    assert float(sampler.state[model[0].weight]["rho"].abs().max()) > 1e-2


def test_the_released_start() -> None:
    w = nn.Parameter(torch.zeros(20_000))
    state = make_sampler("released", [w]).state[w]
    assert float(state["momentum_buffer"].std()) == pytest.approx(1e-3, rel=0.02)  # four standard errors
    assert float(state["noise"].std()) == pytest.approx(1, rel=0.02)
    assert abs(np.corrcoef(state["momentum_buffer"].numpy(), state["noise"].numpy())[0, 1]) < 0.03
    assert torch.equal(state["mass"], torch.full_like(w, 2.0).detach())


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.63])
def test_temperature_of_the_released_form(tau: float) -> None:
    """Var(w) of the autoregression exactly, and T C tau (1 + beta^2) / (1 - beta) for small steps."""
    beta, n, temperature, curvature = 0.1, 50, 0.8, 2.0
    for lr in (0.3, 1e-5):
        problem = Problem("released", np.array([[curvature]]), lr, beta, np.array([1 / tau]), temperature, n)
        variance = problem.covariance()[0, 0]
        kappa, s2 = tau * lr * curvature, (2 + 2 * beta**2) * lr**1.5 * temperature / n
        assert variance == pytest.approx(tau**2 * s2 * (1 + beta) / ((1 - beta) * kappa * (2 * (1 + beta) - kappa)))
    effective = math.sqrt(lr) * tau * (1 + beta**2) / (1 - beta) * temperature
    assert n * curvature * variance == pytest.approx(effective, rel=1e-4)


def learned_tau(kind: str, curvatures: Array, steps: int, **settings: float) -> tuple[AdaptiveSGHMC, Tensor]:
    """The sampler after steps on a quadratic with one column for each curvature; rows are replicates."""
    w = nn.Parameter(torch.zeros(400, len(curvatures), dtype=torch.float64))
    sampler = make_sampler(kind, [w], **settings)
    assert isinstance(sampler, AdaptiveSGHMC)
    problem = Problem("sghmc", np.diag(curvatures), 0.1)
    problem.advance(sampler, w, steps)
    return sampler, w


def test_the_released_diagonal_is_inert_at_its_released_setting() -> None:
    """N = 50,000, multiplier 1 / N: tau = 1 - exp(-eta t / N) / 2 whatever the curvature, .634 after 200 epochs."""
    n, steps = 50_000, 500
    assert 1 - math.exp(-0.1 * 200 * 782 / n) / 2 == pytest.approx(0.6343, abs=1e-4)
    sampler, w = learned_tau("released", np.array([0.1, 1.0, 4.0]), steps, num_data=n, temperature=1 / n, lr=0.1)
    tau = 1 / sampler.state[w]["mass"]
    torch.testing.assert_close(tau, torch.full_like(tau, 1 - math.exp(-0.1 * steps / n) / 2), rtol=0, atol=2e-6)


def test_the_corrected_diagonal_is_the_posterior_standard_deviation() -> None:
    r"""In the stationary law of rho E[tau^2] = c / a exactly; z-tests over replicates, false alarms at 1e-3 in all."""
    curvatures = np.array([2.0, 4.0, 9.0])
    sampler, w = learned_tau("adaptive_sghmc", curvatures, 300, num_data=50, lr=0.05, momentum=0.5, eta=0.05)
    problem, squares = Problem("sghmc", np.diag(curvatures), 0.05), []
    for _ in range(200):
        problem.advance(sampler, w, 1)
        squares.append((1 / sampler.state[w]["mass"]).square().numpy())
    mean = np.mean(squares, axis=0)
    z = (mean.mean(0) - 1 / curvatures) / (mean.std(0) / math.sqrt(len(mean)))
    assert np.abs(z).max() < norm.isf(FALSE_ALARM / 2 / len(curvatures)), z


def test_the_corrected_diagonal_reacts_to_the_data() -> None:
    settings = {"num_data": 50, "lr": 0.05, "momentum": 0.5, "eta": 0.02}
    sampler, w = learned_tau("adaptive_sghmc", np.array([0.01, 4.0, 100.0]), 500, **settings)
    flat, middle, steep = (1 / sampler.state[w]["mass"]).mean(0).tolist()
    assert flat > 0.9 > 0.6 > middle > 0.4 > 0.2 > steep


def test_the_corrected_diagonal_is_frozen_while_drawing() -> None:
    sampler, w = learned_tau("adaptive_sghmc", np.array([1.0, 9.0]), 20, eta=0.05)
    assert "probe" in sampler.state[w]
    sampler.freeze()
    Problem("sghmc", np.diag([1.0, 9.0]), 0.1).advance(sampler, w, 1)
    mass = sampler.state[w]["mass"].clone()
    assert "probe" not in sampler.state[w]
    Problem("sghmc", np.diag([1.0, 9.0]), 0.1).advance(sampler, w, 20)
    assert torch.equal(sampler.state[w]["mass"], mass)


def test_learning_needs_noise() -> None:
    sampler, w = learned_tau("adaptive_sghmc", np.array([1.0, 9.0]), 20, temperature=0.0)
    assert torch.equal(sampler.state[w]["rho"], torch.zeros_like(w).detach())


def test_no_other_mass_and_no_momentum_law_in_the_released_form() -> None:
    w = nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match="the preconditioner must be the identity"):
        AdaptiveSGHMC([w], lr=0.1, num_data=10, preconditioner=RMSprop())
    with pytest.raises(ValueError, match="no common temperature"):
        AdaptiveSGHMC([w], lr=0.1, num_data=10, form="released").sample_momentum()


@pytest.mark.parametrize("temperature", [1.0, 1e-5])
def test_the_noise_of_the_curvature_estimate(temperature: float) -> None:
    """s^2 = (tau^2 / c)^2 V N / (2 (1 - beta) l T tau): 1e5 times as much at T = 1e-5.

    Of 40,000 weights: 0.05 is seven standard errors of a mean of products of two squared normals.
    """
    lr, beta, n, variance = 0.05, 0.9, 10_000, 0.01
    w = nn.Parameter(torch.zeros(40_000, 1, dtype=torch.float64))
    sampler = make_sampler("adaptive_sghmc", [w], lr=lr, momentum=beta, num_data=n, temperature=temperature)
    Problem("sghmc", np.array([[1e-9]]), lr).advance(sampler, w, 2, gradient_variance=variance)
    expected = 0.5**4 * variance * n / (2 * (1 - beta) * lr * temperature * 0.5)
    assert float(sampler.state[w]["estimate_square"]) == pytest.approx(expected, rel=0.05)


def mlp_at_the_papers_temperature(steps: int, **settings: float) -> tuple[AdaptiveSGHMC, float]:
    """An MLP 784-100-10 on the Fashion-MNIST subset at T = 1e-5, after some steps: the sampler, and its loss."""
    torch.manual_seed(0)
    data = subset()
    images, labels = data.train.inputs(data.mean, data.std, "cpu"), data.train.labels
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    settings = {"lr": 0.05, "temperature": 1e-5, "num_data": len(labels), "seed": 0} | settings
    sampler = AdaptiveSGHMC(net.named_parameters(), prior=5e-4 * len(labels), **settings)
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(labels), (64,), generator=g)
        net.zero_grad()
        loss = nn.functional.cross_entropy(net(images[rows]), labels[rows])
        loss.backward()
        sampler.step()
    return sampler, loss.item()


def test_a_constant_step_of_rho_overflows_at_the_papers_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the docstring says, within 30 steps; in the first five, its noise moves rho by more than 1 a step."""
    monkeypatch.setattr(adaptive_sghmc, "allowed", lambda eta, square: torch.as_tensor(eta))
    sampler, _ = mlp_at_the_papers_temperature(5)
    assert any(1e-3 * state["estimate_square"].sqrt() > 1 for _, _, state, _ in sampler.named_states())
    assert any(float(state["rho"].min()) < -10 for _, _, state, _ in sampler.named_states())
    with pytest.raises(RunError, match=r"temperature 1e-05: the noise of its curvature estimate .* lower eta"):
        mlp_at_the_papers_temperature(30)


def test_the_limited_step_of_rho_learns_and_leaves_tau_near_a_half() -> None:
    """At T = 1e-5 two hundred steps are too few to learn any curvature: SGHMC at half the step."""
    sampler, loss = mlp_at_the_papers_temperature(200)
    rho = torch.cat([state["rho"].flatten() for _, _, state, _ in sampler.named_states()])
    assert loss < 0.8
    assert float(rho.abs().max()) < 1


def test_the_released_form_is_stable_at_the_papers_temperature() -> None:
    """Its step of rho is not divided by epsilon: tau is 1 - exp(-eta t / N) / 2 here, too, data and all."""
    sampler, loss = mlp_at_the_papers_temperature(200, form="released", momentum=0.1, lr=0.5)
    tau = torch.cat([1 / state["mass"].flatten() for _, _, state, _ in sampler.named_states()])
    assert loss < 1.0
    torch.testing.assert_close(tau, torch.full_like(tau, 1 - math.exp(-0.1 * 200 / 7000) / 2), rtol=0, atol=1e-3)
