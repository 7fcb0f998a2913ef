r"""EM against a grid maximisation of its objective, J = T log Z(theta) + log p(theta), in a conjugate model, at any T.

J is the tempered evidence of independent weights w_j, each observed once: N * NLL = sum_j (y_j - w_j)^2 / (2 s^2).
Z factorises, and each factor is a quadrature. The E-step is exact, too: instead of random draws EM sees, for every
weight, many evenly spaced quantiles of its tempered posterior. At EM's fixed point no neighbour on a grid is better.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sgmcmc_prune.priors import Laplace, SpikeSlab, StudentT
from sgmcmc_prune.priors.em import EM, ScaleEM, sufficient_statistics
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.scale_family import ScaleFamily

NOISE = 0.02
GRID = np.linspace(-4, 4, 16_001)
#: Quantiles a weight; their average is an expectation to about 1e-4.
POINTS = 400
Y = np.array([-1.6, -0.9, -0.35, -0.2, -0.1, -0.04, 0.02, 0.06, 0.12, 0.25, 0.5, 1.3])
RATE, SPIKE, SLAB = 0.4, 0.01, 0.5
A, B = 1.5, 2.0


def log_gaussian(variance: float) -> np.ndarray:
    return -(GRID**2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)


def log_spike(kind: str, variance: float) -> np.ndarray:
    """Log density of the spike on the grid."""
    b = math.sqrt(variance / 2)
    return log_gaussian(variance) if kind == "gaussian" else -np.abs(GRID) / b - math.log(2 * b)


def log_tempered_prior(theta: tuple[float, ...], mode: str, spike: str, temperature: float) -> np.ndarray:
    """What the prior contributes to log of the integrand of Z, on the grid: shape (1, grid) or (weight, grid)."""
    rate, v0, v1 = theta
    inside = math.log(rate) + log_gaussian(v1)
    outside = math.log1p(-rate) + log_spike(spike, v0)
    if mode == "marginal":
        return np.logaddexp(inside, outside)[None] / temperature
    if mode == "gibbs":
        return np.logaddexp(inside / temperature, outside / temperature)[None]
    return (HELD[:, None] * inside + (1 - HELD[:, None]) * outside) / temperature


#: Responsibilities that mode `em` holds.
HELD = np.abs(Y) / (np.abs(Y) + 0.4)


def integrand(log_prior: np.ndarray, temperature: float) -> np.ndarray:
    """Log integrand of Z for each weight, shape (weight, grid)."""
    return -((Y[:, None] - GRID) ** 2) / (2 * NOISE**2 * temperature) + log_prior


def log_evidence(log_prior: np.ndarray, temperature: float) -> float:
    """Sum over weights of T log Z."""
    values = integrand(log_prior, temperature)
    top = values.max(1)
    return temperature * float((top + np.log(np.exp(values - top[:, None]).sum(1))).sum())


def draws(log_prior: np.ndarray, temperature: float) -> Tensor:
    """Even quantiles of the tempered posterior of every weight: shape (weight, POINTS)."""
    values = integrand(log_prior, temperature)
    mass = np.exp(values - values.max(1, keepdims=True)).cumsum(1)
    levels = (np.arange(POINTS) + 0.5) / POINTS
    return torch.tensor(np.stack([np.interp(levels, m / m[-1], GRID) for m in mass]))


def is_highest(objective: Any, theta: tuple[float, ...], which: int) -> bool:
    """Whether no value of one hyperparameter on a grid around its own has a higher objective.

    The grid goes 15 per cent to either side in steps of one: cold indicators flip farther away, to other maxima.
    """
    ratios = np.geomspace(0.85, 1 / 0.85, 33)
    values = [objective((*theta[:which], theta[which] * ratio, *theta[which + 1 :])) for ratio in ratios]
    return abs(int(np.argmax(values)) - 16) <= 1


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("spike", ["gaussian", "laplace"])
@pytest.mark.parametrize("mode", ["marginal", "gibbs", "em"])
def test_the_fixed_point_of_em_maximises_the_tempered_evidence(mode: str, spike: str, temperature: float) -> None:
    w = torch.zeros(len(Y), POINTS, dtype=torch.float64)
    prior = SpikeSlab({"w": w}, mode=mode, spike=spike, inclusion_rate=RATE, spike_variance=SPIKE, slab_variance=SLAB)
    # POINTS copies of each weight: the exponents of the Beta prior are as many times as large.
    settings = EMSettings(
        "soft",
        learn_variances="both",
        beta_a=1 + POINTS * (A - 1),
        beta_b=1 + POINTS * (B - 1),
        complexity=0.0,
        variance_ratio=1.001,
    )
    layer, em = prior.layers["w"], EM(settings, prior)

    def theta() -> tuple[float, ...]:
        return layer.inclusion_rate, layer.spike_variance, layer.slab_variance

    def objective(at: tuple[float, ...]) -> float:
        hyper = (A - 1) * math.log(at[0]) + (B - 1) * math.log1p(-at[0])
        return log_evidence(log_tempered_prior(at, mode, spike, temperature), temperature) + hyper

    path = [objective(theta())]
    for _ in range(60):
        w = draws(log_tempered_prior(theta(), mode, spike, temperature), temperature)
        if mode == "em":  # the responsibilities are held, so this is the M-step alone
            held = torch.tensor(HELD).repeat_interleave(POINTS)
            em.statistics["w"] = sufficient_statistics(layer, w, held)
            em._m_step()
        else:
            em.update({"w": w}, temperature)
        path.append(objective(theta()))
    assert min(np.diff(path)) > -2e-4  # it climbs, to the error of the quantiles
    assert path[-1] > path[0] + 0.01
    for which, name in enumerate(("rate", "spike", "slab")):
        assert is_highest(objective, theta(), which), (name, theta())


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("prior", [Laplace(0.5), StudentT(0.5, 3.0)], ids=["laplace", "student_t"])
def test_the_fixed_point_of_scale_em_maximises_the_tempered_evidence(prior: ScaleFamily, temperature: float) -> None:
    prior.scales = {}
    em, grid = ScaleEM(EMSettings("soft"), prior), torch.tensor(GRID)

    def log_prior(scale: float) -> np.ndarray:
        return prior.log_densities(grid, scale).numpy()[None] / temperature

    for _ in range(60):
        em.update({"w": draws(log_prior(prior.scale_of("w")), temperature)}, temperature)
    assert is_highest(lambda at: log_evidence(log_prior(at[0]), temperature), (prior.scale_of("w"),), 0)


def test_a_learned_slab_does_not_depend_on_the_temperature_where_the_data_decide() -> None:
    """Sharp data leave the weights no room: every temperature learns the variance of the slab's own weights."""
    generator = torch.Generator().manual_seed(3)
    inside = torch.rand(400, generator=generator) < 0.3
    truth = torch.where(inside, torch.randn(400, generator=generator), 0.03 * torch.randn(400, generator=generator))
    w, found = truth.double().view(1, -1), []
    for temperature in (1.0, 0.1, 0.001):
        prior = SpikeSlab({"w": w}, mode="marginal", inclusion_rate=0.5, spike_variance=1e-3, slab_variance=1.0)
        em = EM(EMSettings("soft", complexity=0.0), prior)
        for _ in range(50):
            em.update({"w": w}, temperature)
        found.append(prior.layers["w"].slab_variance)
    assert found == pytest.approx([float(truth[inside].square().mean())] * 3, rel=0.1)
