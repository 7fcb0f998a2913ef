"""The samplers' noise: counted by the step, keyed by seed and chain, independent of how parameters are grouped."""

from typing import Any

import numpy as np
import pytest
import torch
from lyapunov import FALSE_ALARM, Problem, random_curvature, random_mass
from scipy.stats import kstest
from torch import nn
from toy_network import SAMPLER_NAMES, assert_equal_parameters, make_sampler, momentum_square, network, train

from sgmcmc_prune.noise import Stream, standard_normal
from sgmcmc_prune.samplers import SGHMC, SGLD, MomentumSampler


def test_a_step_adds_the_noise_of_its_counter() -> None:
    w = nn.Parameter(torch.zeros(5))
    sampler = SGLD([w], lr=0.5, num_data=1, seed=4, chain=2)
    w.grad = torch.zeros(5)
    sampler.step()
    sampler.step()
    torch.testing.assert_close(w.detach(), standard_normal(4, 2, 0, 0, 5) + standard_normal(4, 2, 1, 0, 5))


@pytest.mark.parametrize("kind", SAMPLER_NAMES)
def test_chains_and_seeds_have_their_own_noise(kind: str) -> None:
    ends = []
    for seed, chain in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        model = network()
        train(model, make_sampler(kind, model.parameters(), seed=seed, chain=chain), 1)
        ends.append(model[0].weight)
    assert torch.equal(ends[0], ends[3])
    assert not torch.isclose(ends[0], ends[1]).any()
    assert not torch.isclose(ends[0], ends[2]).any()


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", ["sghmc", "released"])
def test_noise_does_not_depend_on_how_parameters_are_grouped(kind: str, cut: int, named: bool) -> None:
    ends = []
    for split in (False, True):
        model = network()
        parameters: list[Any] = list(model.named_parameters() if named else model.parameters())
        groups = [{"params": parameters[:cut]}, {"params": parameters[cut:]}] if split else parameters
        ends.append(train(model, make_sampler(kind, groups, seed=1), 10))
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


def test_a_resting_parameter_leaves_the_others_noise_alone() -> None:
    ends = []
    for resting in (False, True):
        a, b = nn.Parameter(torch.ones(3), requires_grad=not resting), nn.Parameter(torch.ones(4))
        sampler = SGLD([a, b], lr=0.1, num_data=5, seed=0)
        a.grad, b.grad = None if resting else torch.zeros(3), torch.zeros(4)
        sampler.step()
        ends.append((a.detach(), b.detach()))
    assert torch.equal(ends[1][0], torch.ones(3))
    assert torch.equal(ends[0][1], ends[1][1])


def test_the_counter_moves_at_zero_temperature_too() -> None:
    model = network()
    sampler = SGLD(model.parameters(), lr=0.1, num_data=30, temperature=0)
    train(model, sampler, 4)
    assert sampler.param_groups[0]["step"] == 4


@pytest.mark.parametrize("kind", ["sghmc", "baoab", "obabo"])
@pytest.mark.parametrize("mass", [None, random_mass(0)])
def test_momentum_is_drawn_from_its_law(kind: str, mass: np.ndarray | None) -> None:
    """Test m / sqrt(c T M) ~ N(0, 1) by Kolmogorov and Smirnov: false alarms at 1e-3 per case."""
    problem = Problem(kind, random_curvature(0), lr=0.3, momentum=0.6, mass=mass, temperature=0.7, num_data=20, seed=9)
    sampler, w = problem.sampler(replicates=3000)
    assert isinstance(sampler, MomentumSampler)
    sampler.sample_momentum()
    physical = -np.sqrt(problem.unit / problem.masses) * sampler.state[w]["momentum_buffer"].numpy()
    factor = 2 / 1.6 if kind == "sghmc" else 1.0
    assert kstest((physical / np.sqrt(factor * 0.7)).ravel(), "norm").pvalue > FALSE_ALARM
    assert momentum_square(sampler) == pytest.approx((float((physical**2).sum()), 9000))


def test_momentum_draws_use_their_own_stream() -> None:
    w = nn.Parameter(torch.zeros(5))
    sampler = SGHMC([w], lr=1.0, num_data=2, momentum=0.0, seed=4)
    sampler.sample_momentum()
    expected = standard_normal(4, 0, 0, 0, 5, stream=Stream.MOMENTUM)
    torch.testing.assert_close(sampler.state[w]["momentum_buffer"], expected)
    assert sampler.param_groups[0]["step"] == 0
