"""A mass that moves with the position: SGLD keeps its target with Gamma, and samples another without.

The drift and the diffusion of one step are read off the code; the density pi is stationary for the diffusion they
belong to if the integral of pi (drift f' + diffusion^2 / 2 f'') is zero for all test functions f. No statistics are
needed.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.noise import standard_normal
from sgmcmc_prune.preconditioners import PositionDependent
from sgmcmc_prune.samplers import SGLD

NUM_DATA, TEMPERATURE, LR = 7, 0.6, 0.3
GRID = np.linspace(-12, 12, 4001)
#: f' and f'' of sin w, w^2 / 2, cos 2w and exp(-w^2 / 2).
TEST_FUNCTIONS = (
    (np.cos(GRID), -np.sin(GRID)),
    (GRID, np.ones_like(GRID)),
    (-2 * np.sin(2 * GRID), -4 * np.cos(2 * GRID)),
    (-GRID * np.exp(-(GRID**2) / 2), (GRID**2 - 1) * np.exp(-(GRID**2) / 2)),
)


def potential_gradient(w: Tensor) -> Tensor:
    """U / N = w^2 / 8 + sin w / 10: a potential without symmetry."""
    return w / 4 + w.cos() / 10


def log_target(w: np.ndarray) -> np.ndarray:
    return -NUM_DATA / TEMPERATURE * (w**2 / 8 + np.sin(w) / 10)


def mass(w: Tensor) -> Tensor:
    return 1.5 + (w - 0.3).tanh()


def gamma(w: Tensor) -> Tensor:
    """d(1 / M) / dw."""
    return -(1 - (w - 0.3).tanh().square()) / mass(w).square()


def drift_and_diffusion(correction: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """What one step adds to every point of the grid: without noise, and per unit of its known noise."""
    start, moves = torch.from_numpy(GRID), []
    for seed in (0, 1):
        w = nn.Parameter(start.clone())
        w.grad = potential_gradient(start)
        preconditioner = PositionDependent(mass, correction)
        SGLD([w], lr=LR, num_data=NUM_DATA, temperature=TEMPERATURE, preconditioner=preconditioner, seed=seed).step()
        moves.append((w.detach() - start).numpy())
    noises = [standard_normal(seed, 0, 0, 0, len(GRID)).double().numpy() for seed in (0, 1)]
    diffusion = (moves[0] - moves[1]) / (noises[0] - noises[1])
    return moves[0] - diffusion * noises[0], diffusion


def flows(correction: Callable[[Tensor], Tensor], log_density: np.ndarray) -> list[float]:
    """Rate of change of the mean of every test function under a density."""
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    drift, diffusion = drift_and_diffusion(correction)
    return [float((density * (drift * f1 + diffusion**2 / 2 * f2)).sum()) for f1, f2 in TEST_FUNCTIONS]


def test_gamma_is_the_derivative_of_the_inverse_mass() -> None:
    w = torch.from_numpy(GRID).requires_grad_()
    (derivative,) = torch.autograd.grad((1 / mass(w)).sum(), w)
    torch.testing.assert_close(gamma(w.detach()), derivative)


def test_with_gamma_the_target_is_stationary() -> None:
    assert flows(gamma, log_target(GRID)) == pytest.approx([0, 0, 0, 0], abs=1e-9)


def test_without_gamma_it_is_not() -> None:
    assert max(np.abs(flows(torch.zeros_like, log_target(GRID)))) > 1e-3


def test_without_gamma_the_mass_multiplies_the_density() -> None:
    wrong = log_target(GRID) + np.log(mass(torch.from_numpy(GRID)).numpy())
    assert flows(torch.zeros_like, wrong) == pytest.approx([0, 0, 0, 0], abs=1e-9)
    assert max(np.abs(flows(gamma, wrong))) > 1e-3
