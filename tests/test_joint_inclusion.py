"""Joint inclusion from draws of mode `gibbs`, against the enumeration of all models of correlated regressions."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune.certify.enumeration import ExactPosterior, all_models, enumerate_models
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.pruning.joint_inclusion import co_inclusion, frequent_masks
from sgmcmc_prune.samplers import SGHMC

NUM_DATA, REPLICATES, CHAINS = 40, 1024, 256
PRIOR = {"inclusion_rate": 0.3, "spike_variance": 0.02, "slab_variance": 1.0}
#: Features, and the correlation of neighbours.
DESIGNS = [(8, 0.8), (12, 0.9)]
TOLERANCE = 0.02


@cache
def problem(features: int, correlation: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(NUM_DATA, features, generator=generator, dtype=torch.float64)
    for j in range(1, features):
        x[:, j] = correlation * x[:, j - 1] + (1 - correlation**2) ** 0.5 * x[:, j]
    w = torch.zeros(features, dtype=torch.float64)
    w[::3] = torch.linspace(1.0, 0.4, len(w[::3]), dtype=torch.float64)
    return x, x @ w + torch.randn(NUM_DATA, generator=generator, dtype=torch.float64)


def exact(features: int, correlation: float) -> ExactPosterior:
    return enumerate_models(*problem(features, correlation), noise_variance=1.0, **PRIOR)


@cache
def drawn(features: int, correlation: float) -> tuple[Tensor, Tensor]:
    """Weights by exact Gibbs sampling, w | gamma and gamma | w in turn, (S, p), and their conditional log-odds."""
    x, y = problem(features, correlation)
    generator = torch.Generator().manual_seed(1)
    w = torch.zeros(REPLICATES, features, dtype=torch.float64)
    prior = SpikeSlab({"weight": w}, mode="gibbs", **PRIOR, seed=2)
    found, odds = [], []
    for sweep in range(150):
        eta = prior.log_odds("weight", w).view(w.shape)
        included = torch.rand(w.shape, generator=generator, dtype=torch.float64) < eta.sigmoid()
        variance = torch.where(included, PRIOR["slab_variance"], PRIOR["spike_variance"])
        root = torch.linalg.cholesky(x.T @ x + torch.diag_embed(1 / variance))
        noise = torch.randn(*w.shape, 1, generator=generator, dtype=torch.float64)
        mean = torch.cholesky_solve((x.T @ y).expand_as(w)[:, :, None], root)
        w = (mean + torch.linalg.solve_triangular(root.mT, noise, upper=True))[:, :, 0]
        if sweep >= 50:
            found.append(w)
            odds.append(prior.log_odds("weight", w).view(w.shape))
    return torch.cat(found), torch.cat(odds)


def chain_odds(features: int, correlation: float) -> Tensor:
    """Conditional log-odds of the draws of a chain in mode gibbs, of independent replicates, (S, p)."""
    x, y = problem(features, correlation)
    model = nn.Linear(features, CHAINS, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    params = dict(model.named_parameters())
    prior = SpikeSlab(params, mode="gibbs", **PRIOR, seed=2)
    lr = 0.0003 * NUM_DATA
    sampler = SGHMC(params.items(), lr=lr, momentum=0.9, num_data=NUM_DATA, prior=prior, seed=2)
    steps = {"lr": lr, "lr_explore": lr, "lr_min": lr, "momentum": 0.9, "temperature": 1.0}
    schedule = Cyclical(**steps, burn_in=1000, cycles=1, explore=0, sample=2500, thin=25)
    stream = MinibatchStream(x, y[:, None].expand(-1, CHAINS), NUM_DATA, seed=0, chain=0)
    chain = Chain(0, model, sampler, schedule, stream, lambda f, t: (f - t).square().sum(1) / 2)
    odds = []
    while not chain.finished:
        if chain.advance().collect:
            odds.append(prior.log_odds("weight", model.weight.detach()).view(CHAINS, features))
    return torch.cat(odds)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_design_needs_more_than_single_probabilities(design: tuple[int, float]) -> None:
    """Some pair is in together with another probability than independent ones would be."""
    truth = exact(*design)
    single = truth.inclusion_probability
    apart = (truth.co_inclusion - torch.outer(single, single)).fill_diagonal_(0)
    assert float(apart.abs().max()) > 0.05
    torch.testing.assert_close(truth.co_inclusion.diagonal(), single)


@pytest.mark.parametrize("design", DESIGNS)
def test_co_inclusion_is_that_of_all_models(design: tuple[int, float]) -> None:
    """Within 0.02, four standard errors of 0.005: a false alarm in under 0.005 of seeds, for 78 pairs."""
    found = co_inclusion(drawn(*design)[1])
    assert float((found - exact(*design).co_inclusion).abs().max()) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_co_inclusion_from_a_chain_is_that_of_all_models_too(design: tuple[int, float]) -> None:
    """Within 0.02, step-size bias included."""
    found = co_inclusion(chain_odds(*design))
    assert float((found - exact(*design).co_inclusion).abs().max()) < TOLERANCE


@pytest.mark.parametrize("design", DESIGNS)
def test_the_most_frequent_masks_are_the_most_probable_models(design: tuple[int, float]) -> None:
    truth, found = exact(*design).model_probability, frequent_masks(drawn(*design)[1], 5)
    models = all_models(design[0])
    own = torch.stack([truth[(models == mask).all(1)][0] for mask in found.masks])
    assert float((found.probability - own).abs().max()) < TOLERANCE
    assert float(truth.max() - own[0]) < TOLERANCE
    assert bool((found.probability.diff() <= 0).all())


def test_the_average_over_masks_is_that_of_the_models() -> None:
    """The mean weights under the five most probable masks, against those of the models by their posterior weights."""
    x, y = problem(8, 0.8)
    weights, odds = drawn(8, 0.8)
    found = frequent_masks(odds, 5)
    average = found.weights.sum(0) @ weights
    models = [
        _mean_given(x, y, mask.double() * PRIOR["slab_variance"] + (~mask).double() * PRIOR["spike_variance"])
        for mask in found.masks
    ]
    shares = found.probability / found.probability.sum()
    assert float(found.weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(average, shares @ torch.stack(models), rtol=0, atol=TOLERANCE)


def _mean_given(x: Tensor, y: Tensor, variance: Tensor) -> Tensor:
    return torch.linalg.solve(x.T @ x + (1 / variance).diag(), x.T @ y)


def test_two_certain_masks_are_told_apart() -> None:
    """Features that stand for each other: each is in half of the draws, and never both."""
    odds = torch.tensor([[50.0, -50.0], [-50.0, 50.0]])
    torch.testing.assert_close(co_inclusion(odds), 0.5 * torch.eye(2, dtype=torch.float64))
    found = frequent_masks(odds, 3)
    assert sorted(found.masks.tolist()) == [[False, True], [True, False]]
    torch.testing.assert_close(found.probability, torch.full((2,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("odds", "message"),
    [
        (torch.zeros(0, 3), "one draw at least"),
        (torch.zeros(3), r"\(3,\)"),
        (torch.full((2, 2), torch.nan), "hold NaN"),
        (torch.zeros(1, 5001), "at most 5000"),
    ],
)
def test_bad_log_odds_are_refused(odds: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        co_inclusion(odds)


def test_no_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="one mask at least"):
        frequent_masks(torch.zeros(2, 2), 0)
