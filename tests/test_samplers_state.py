"""What a sampler carries from step to step: momentum under a changing step, masks, and a resume."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_network import (
    SAMPLER_NAMES,
    assert_equal_parameters,
    half_mask,
    make_sampler,
    momentum_square,
    network,
    train,
)

from sgmcmc_prune.preconditioners import Layerwise, RMSprop
from sgmcmc_prune.priors import Prior
from sgmcmc_prune.priors.base import total
from sgmcmc_prune.samplers import SGHMC, MomentumSampler, Sampler

ALL = (*SAMPLER_NAMES, "released")


def preconditioned(kind: str, model: nn.Module, **settings: Any) -> Sampler:
    """A sampler with RMSprop, or with its own mass if it learns one."""
    own = {} if kind in ("adaptive_sghmc", "released") else {"preconditioner": RMSprop()}
    return make_sampler(kind, model.named_parameters(), prior=1.0, **own, **settings)


@pytest.mark.parametrize(
    ("change", "ratio"), [({"lr": 0.1}, 2.0), ({"momentum": 0.5}, 1.0), ({"lr": 0.1, "momentum": 0.2}, 2.0)]
)
@pytest.mark.parametrize("kind", ["sghmc", "baoab", "obabo", "sgnht"])
def test_a_change_of_step_keeps_the_physical_momentum(kind: str, change: dict[str, float], ratio: float) -> None:
    # h is sqrt(l / N), or sqrt(2 l / (N (1 + beta))) in the splittings; the buffer is -m / (N h).
    w = nn.Parameter(torch.zeros(4))
    sampler = make_sampler(kind, [w], lr=0.4, momentum=0.8, temperature=0)
    assert isinstance(sampler, MomentumSampler)
    w.grad = torch.tensor([1.0, -2.0, 3.0, 0.5])
    sampler.step()
    buffer, square = sampler.state[w]["momentum_buffer"].clone(), momentum_square(sampler)
    for group in sampler.param_groups:  # as a scheduler does
        group.update(change)
    assert momentum_square(sampler) == square
    w.grad.zero_()
    sampler.step()
    beta = change.get("momentum", 0.8)
    ratio *= 1 if kind == "sghmc" else ((1 + beta) / 1.8) ** 0.5
    torch.testing.assert_close(sampler.state[w]["momentum_buffer"], beta * ratio * buffer)
    assert momentum_square(sampler)[0] == pytest.approx(beta**2 * square[0])


def test_the_released_form_keeps_its_momentum_in_units_of_displacement() -> None:
    w = nn.Parameter(torch.zeros(4))
    sampler = make_sampler("released", [w], lr=0.4, momentum=0.8, temperature=0)
    w.grad = torch.tensor([1.0, -2.0, 3.0, 0.5])
    sampler.step()
    buffer = sampler.state[w]["momentum_buffer"].clone()
    sampler.configure(lr=0.1)
    w.grad.zero_()
    sampler.step()
    torch.testing.assert_close(sampler.state[w]["momentum_buffer"], 0.8 * buffer)


@pytest.mark.parametrize("kind", ALL)
def test_masked_weights_and_momenta_are_exactly_zero_forever(kind: str) -> None:
    model = network()
    sampler = preconditioned(kind, model)
    train(model, sampler, 5)
    mask = half_mask(model)
    sampler.set_mask(mask)
    for t in range(20):
        train(model, sampler, 1, start=5 + t)
        if t == 3:
            sampler.refresh_preconditioner()
        if t == 6 and isinstance(sampler, MomentumSampler) and kind != "released":
            sampler.sample_momentum()
        for name, p, state, _ in sampler.named_states():
            if name in mask:
                assert torch.equal(p != 0, mask[name])
                assert torch.equal(state.get("momentum_buffer", p) != 0, mask[name])
            else:
                assert bool((p != 0).all())


@pytest.mark.parametrize("kind", ALL)
def test_a_tensor_may_be_masked_altogether(kind: str) -> None:
    model = network()
    sampler = preconditioned(kind, model)
    sampler.set_mask({"0.weight": torch.zeros(5, 3, dtype=torch.bool)})
    train(model, sampler, 30)
    assert torch.equal(model[0].weight, torch.zeros(5, 3))
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_mask_takes_effect_at_once() -> None:
    model = network()
    sampler = make_sampler("sghmc", model.named_parameters())
    train(model, sampler, 2)
    mask = half_mask(model)
    sampler.set_mask(mask)
    for name, p, state, _ in sampler.named_states():
        if name in mask:
            assert torch.equal(p != 0, mask[name])
            assert torch.equal(state["momentum_buffer"] != 0, mask[name])


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_weights_do_not_count_as_dimensions(dtype: torch.dtype, reloaded: bool) -> None:
    w = nn.Parameter(torch.ones(40, 30, dtype=dtype))
    sampler = make_sampler("sghmc", [("w", w)])
    assert momentum_square(sampler) == (0.0, 0)
    sampler.set_mask({"w": (torch.arange(1200) < 999).view(40, 30)})
    w.grad = torch.ones_like(w)
    sampler.step()
    if reloaded:
        sampler.load_state_dict(copy.deepcopy(sampler.state_dict()))
    square, dimension = momentum_square(sampler)
    assert dimension == 999
    assert square == pytest.approx(float(sampler.state[w]["momentum_buffer"].double().square().sum()) * 2, rel=0.01)
    assert sampler.momentum_squares() == {"w": (square, 999)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ALL)
def test_a_resumed_sampler_continues_to_the_bit(kind: str, dtype: torch.dtype) -> None:
    key = {"num_data": 30, "seed": 5, "chain": 3}
    model = network(dtype)
    sampler = preconditioned(kind, model, **key)
    train(model, sampler, 6)
    sampler.refresh_preconditioner()
    sampler.configure(lr=0.05)
    sampler.set_mask(half_mask(model))
    train(model, sampler, 5, start=6)

    other = copy.deepcopy(model)
    resumed = preconditioned(kind, other, lr=0.7, **key)
    resumed.load_state_dict(copy.deepcopy(sampler.state_dict()))
    for m, s in [(model, sampler), (other, resumed)]:
        train(m, s, 4, start=11)
        s.refresh_preconditioner()
        s.configure(lr=0.02, temperature=0.5)
        train(m, s, 4, start=15)
    assert_equal_parameters(model, other)


def test_a_resume_shares_no_memory() -> None:
    model = network()
    sampler = preconditioned("sghmc", model)
    train(model, sampler, 3)
    saved = sampler.state_dict()
    before = saved["state"][0]["momentum_buffer"].clone()
    other = network()
    resumed = preconditioned("sghmc", other)
    resumed.load_state_dict(saved)
    train(other, resumed, 3)
    assert torch.equal(saved["state"][0]["momentum_buffer"], before)


def test_the_state_dict_carries_the_noise_counter_and_key() -> None:
    model = network()
    sampler = make_sampler("sghmc", model.named_parameters(), seed=5, chain=3)
    train(model, sampler, 6)
    group = sampler.state_dict()["param_groups"][0]
    assert (group["seed"], group["chain"], group["step"], group["offset"]) == (5, 3, 6, 0)


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        ("sghmc", {"num_data": 31}, "num_data 30, this one 31"),
        ("sghmc", {"seed": 1}, "seed 0, this one 1"),
        ("sghmc", {"chain": 1}, "chain 0, this one 1"),
        ("sghmc", {"preconditioner": Layerwise()}, "preconditioner 'Identity', this one 'Layerwise'"),
        ("baoab", {}, "sampler 'sghmc', this one 'baoab'"),
        ("adaptive_sghmc", {}, "sampler 'sghmc', this one 'adaptive_sghmc'"),
    ],
)
def test_another_chains_state_is_refused(kind: str, change: dict[str, Any], field: str) -> None:
    model = network()
    saved = make_sampler("sghmc", model.named_parameters(), num_data=30).state_dict()
    with pytest.raises(ValueError, match=field):
        make_sampler(kind, model.named_parameters(), **{"num_data": 30, **change}).load_state_dict(saved)


def test_another_form_is_refused() -> None:
    model = network()
    saved = make_sampler("released", model.named_parameters()).state_dict()
    with pytest.raises(ValueError, match="form 'released', this one 'corrected'"):
        make_sampler("adaptive_sghmc", model.named_parameters()).load_state_dict(saved)


class Pole(Prior):
    """A force that is infinite at zero."""

    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        return total(-1e-4 * w.double().abs().log() for w in params.values())

    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        return 1e-4 / w


@pytest.mark.parametrize("implementation", ["auto", "reference"])
@pytest.mark.parametrize("kind", ALL)
def test_masked_weights_stay_zero_under_a_prior_that_is_infinite_there(kind: str, implementation: Any) -> None:
    model = network()
    sampler = make_sampler(kind, model.named_parameters(), prior=Pole(), implementation=implementation)
    train(model, sampler, 2)
    mask = half_mask(model)
    sampler.set_mask(mask)
    train(model, sampler, 5, start=2)
    for name, p, state, _ in sampler.named_states():
        if name in mask:
            assert torch.equal(p != 0, mask[name])
            assert torch.equal(state.get("momentum_buffer", p) != 0, mask[name])
        assert bool(p.isfinite().all())


def test_a_class_without_a_name_of_its_own_refuses_its_parents_state() -> None:
    class Half(SGHMC):
        pass

    model = network()
    parent = SGHMC(model.named_parameters(), lr=0.1, num_data=20, seed=0)
    train(model, parent, 1)
    own = Half(model.named_parameters(), lr=0.1, num_data=20, seed=0)
    with pytest.raises(ValueError, match=r"the saved sampler has sampler 'sghmc', this one '.*Half'"):
        own.load_state_dict(parent.state_dict())
    train(model, own, 1)
    own.load_state_dict(own.state_dict())
