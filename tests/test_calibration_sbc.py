"""Simulation-based calibration of mode `gibbs`: weights drawn from the prior rank uniformly among posterior draws.

Talts, Betancourt, Simpson, Vehtari, Gelman: Validating Bayesian inference algorithms with simulation-based calibration
(2018). All simulated data sets are the rows of one parameter tensor.
"""

import math

import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.samplers import SGHMC

NUM_SETS, NUM_DATA, FEATURES = 640, 12, 4
DRAWS = 15
RATE, SPIKE, SLAB = 0.3, 0.05, 1.0
#: Every weight's 16 ranks are tested at a quarter of this: the false-alarm rate of all four.
LEVEL = 1e-3


def simulate() -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, p), weights from the prior (sets, p), and responses with unit noise (sets, n)."""
    generator = torch.Generator().manual_seed(17)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = normal(NUM_DATA, FEATURES)
    x[:, 1] += x[:, 0]
    included = torch.rand(NUM_SETS, FEATURES, generator=generator, dtype=torch.float64) < RATE
    w = torch.where(included, math.sqrt(SLAB), math.sqrt(SPIKE)) * normal(NUM_SETS, FEATURES)
    return x, w, w @ x.T + normal(NUM_SETS, NUM_DATA)


def ranks(thin: int = 60, burn_in: int = 300, **wrong: float) -> Tensor:
    """How many of the draws lie under each true weight, shape (sets, p).

    Draws are `thin` steps apart: correlated ones would pile ranks up at both ends, and fail the test. Indicators are
    redrawn every 10 steps.
    """
    x, truth, y = simulate()
    gram, score = x.T @ x, y @ x
    w = nn.Parameter(torch.zeros_like(truth))
    hyperparameters = {"inclusion_rate": RATE, "spike_variance": SPIKE, "slab_variance": SLAB} | wrong
    prior = SpikeSlab({"w": w}, mode="gibbs", seed=1, **hyperparameters)  # type: ignore[arg-type]
    stiffest = float(torch.linalg.eigvalsh(gram)[-1]) + 1 / SPIKE
    lr = 0.1 * NUM_DATA / stiffest
    sampler = SGHMC([("w", w)], lr=lr, momentum=0.8, num_data=NUM_DATA, prior=prior, seed=1)
    below = torch.zeros_like(truth)
    for step in range(burn_in + DRAWS * thin):
        if step % 10 == 0:
            prior.sample_latent({"w": w}, step)
        w.grad = (w.detach() @ gram - score) / NUM_DATA
        sampler.step()
        if step >= burn_in and (step - burn_in + 1) % thin == 0:
            below += w.detach() < truth
    return below.long()


def p_values(counted: Tensor) -> list[float]:
    """Chi-square test of uniform ranks 0, ..., DRAWS, weight by weight."""
    return [chisquare(torch.bincount(column, minlength=DRAWS + 1)).pvalue for column in counted.T]


def test_ranks_are_uniform() -> None:
    assert min(p_values(ranks())) > LEVEL / FEATURES


def test_a_wrong_prior_shows() -> None:
    """Sampled under another inclusion rate than the weights were drawn with."""
    assert min(p_values(ranks(inclusion_rate=0.02))) < 1e-6
