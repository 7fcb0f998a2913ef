"""Sparse grouped linear regression: the chain and EM together find the active groups."""

import pytest
import torch
from torch import Tensor, nn

from sgmcmc_prune import likelihoods
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.priors import GroupMap, SpikeSlab
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.samplers import SGHMC

NUM_DATA, GROUPS, SIZE, ACTIVE = 500, 50, 4, 5
NOISE = 1.0


def regression(seed: int) -> tuple[Tensor, Tensor]:
    """Features with correlation 1/2 in every pair, and a response to the first five groups (weights 1 or -1)."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(NUM_DATA, GROUPS * SIZE, generator=generator)
    shared = torch.randn(NUM_DATA, 1, generator=generator)
    x = (own + shared) / 2**0.5
    sign = torch.randint(0, 2, (ACTIVE * SIZE,), generator=generator).float().mul(2).sub(1)
    y = x[:, : ACTIVE * SIZE] @ sign + NOISE**0.5 * torch.randn(NUM_DATA, generator=generator)
    return x, y


def fitted(mode: str, seed: int) -> Chain:
    """A finished chain: soft EM of the inclusion rate in burn-in, then draws at fixed hyperparameters."""
    x, y = regression(seed)
    model = nn.Linear(GROUPS * SIZE, 1, bias=False)
    nn.init.zeros_(model.weight)
    params = dict(model.named_parameters())
    groups = {"weight": GroupMap.from_index(torch.arange(GROUPS * SIZE).view(1, -1) // SIZE)}
    prior = SpikeSlab(
        params, mode=mode, group=groups, inclusion_rate=0.5, spike_variance=1e-2, slab_variance=1.0, seed=seed
    )
    sampler = SGHMC(params.items(), lr=0.004, num_data=NUM_DATA, prior=prior, momentum=0.9, seed=seed)
    schedule = Cyclical(
        lr=0.004,
        lr_explore=0.001,
        lr_min=0.001,
        momentum=0.9,
        temperature=1.0,
        burn_in=1500,
        cycles=1,
        explore=0,
        sample=500,
    )
    em = EM(EMSettings("soft", every=20, learn_variances="none", complexity=0.0), prior)
    stream = MinibatchStream(x, y, NUM_DATA, seed=seed, chain=0)
    chain = Chain(0, model, sampler, schedule, stream, likelihoods.gaussian(NOISE), em=em)
    while not chain.finished:
        chain.advance()
    return chain


def check_recovery(mode: str, seed: int) -> None:
    """All five active groups, at most two of the 45 others, and an inclusion rate that fell from 1/2 to near 0.1."""
    chain = fitted(mode, seed)
    selected = chain.inclusion["weight"].included > 0.5
    assert selected[:ACTIVE].all()
    assert selected[ACTIVE:].sum() <= 2
    assert isinstance(chain.prior, SpikeSlab)
    assert 0.05 < chain.prior.layers["weight"].inclusion_rate < 0.2


@pytest.mark.parametrize("mode", ["em", "marginal"])
def test_the_active_groups_are_found(mode: str) -> None:
    check_recovery(mode, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["em", "marginal", "gibbs"])
def test_the_active_groups_are_found_in_other_data(mode: str, seed: int) -> None:
    check_recovery(mode, seed)
