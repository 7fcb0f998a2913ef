"""Samplers, priors and masks are joined by the names of parameters, or refused; a copy is another sampler."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_network import SAMPLER_NAMES, make_sampler, network, train

from sgmcmc_prune import names
from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.priors import Gaussian, Horseshoe, Laplace, Prior, SpikeSlab
from sgmcmc_prune.samplers import SGHMC, SGLD, Sampler

TIERS = ["reference", "compiled"]
Named = list[tuple[str, Tensor]]


def named(model: nn.Module, prefix: str = "") -> Named:
    return [(prefix + n, p) for n, p in model.named_parameters()]


def prior_force(params: Any, prior: Prior, w: Tensor) -> Tensor:
    """What one cold step without a gradient takes off a weight, over the step."""
    sampler = SGLD(params, lr=1e-3, num_data=10, prior=prior, temperature=0.0)
    for _, p, _, _ in sampler.named_states():
        p.grad = torch.zeros_like(p)
    before = w.detach().clone()
    sampler.step()
    return (before - w.detach()) / 1e-3


MADE_FOR: dict[str, Callable[[dict[str, Tensor]], Prior]] = {
    "marginal": lambda params: SpikeSlab(params, spike_variance=1e-2, slab_variance=1.0),
    "em": lambda params: SpikeSlab(params, mode="em", spike_variance=1e-2, slab_variance=1.0),
    "horseshoe": Horseshoe,
}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("prior", list(MADE_FOR))
def test_the_words_of_wrappers_do_not_matter(prior: str, prefix: str) -> None:
    forces = []
    for ours, theirs in (("", ""), ("", prefix), (prefix, "")):
        torch.manual_seed(0)
        model = nn.Linear(6, 2)
        made = MADE_FOR[prior](dict(named(model, ours)))
        forces.append(prior_force(named(model, theirs), made, model.weight))
    assert bool((forces[0] != 0).all())
    assert torch.equal(forces[0], forces[1])
    assert torch.equal(forces[0], forces[2])


@pytest.mark.parametrize("prior", list(MADE_FOR))
def test_a_prior_of_other_parameters_is_refused_with_both_sides(prior: str) -> None:
    one, other = nn.Linear(6, 2), nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 1))
    made = MADE_FOR[prior](dict(one.named_parameters()))
    with pytest.raises(ValueError, match=r"made for 'weight', 'bias', and the sampler has '0'"):
        SGHMC(one.parameters(), lr=0.1, num_data=5, prior=made)
    with pytest.raises(ValueError, match=r"made for 'weight', 'bias', and the sampler has '0\.weight'"):
        SGHMC(other.named_parameters(), lr=0.1, num_data=5, prior=made)
    with pytest.raises(ValueError, match=r"made for 'weight' of shape \(2, 6\), and the sampler's 'weight' has shape"):
        SGHMC(nn.Linear(6, 3).named_parameters(), lr=0.1, num_data=5, prior=made)


def test_a_group_that_the_prior_does_not_know_is_not_added() -> None:
    first, second = nn.Linear(6, 2), nn.Linear(2, 1)
    sampler = SGHMC(
        named(first, "0."), lr=0.1, num_data=5, prior=SpikeSlab(dict(named(first, "0.") + named(second, "1.")))
    )
    sampler.add_param_group({"params": named(second, "1.")})
    with pytest.raises(
        ValueError, match=r"the sampler has '0\.weight', '0\.bias', '1\.weight', '1\.bias', '2\.weight'"
    ):
        sampler.add_param_group({"params": named(nn.Linear(2, 2), "2.")})
    assert len(sampler.param_groups) == 2


def test_a_prior_for_any_parameter_takes_all() -> None:
    model = nn.Linear(6, 2)
    for prior in (Gaussian(1.0), Laplace(1.0)):
        assert bool((prior_force(model.parameters(), prior, model.weight) != 0).all())


def test_learned_scales_belong_to_their_parameters() -> None:
    model, prior = nn.Linear(6, 2), Laplace(1.0)
    prior.scales["weight"] = 0.1
    force = prior_force(named(model, "module."), prior, model.weight)
    assert float(force.abs().mean()) == pytest.approx(1 / 0.1 / 10, rel=1e-3)
    with pytest.raises(ValueError, match="learned scales or masks of 'weight', and the sampler has '0', '1'"):
        SGHMC(model.parameters(), lr=0.1, num_data=5, prior=prior)


@pytest.mark.parametrize("kind", SAMPLER_NAMES)
def test_two_parameters_of_one_name_are_refused(kind: str) -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ValueError, match="two parameters are named 'weight'"):
        make_sampler(kind, named(first) + named(second))
    sampler = make_sampler(kind, named(first))
    with pytest.raises(ValueError, match="two parameters are named 'weight'"):
        sampler.add_param_group({"params": named(second)})
    assert len(sampler.param_groups) == 1
    train(nn.Sequential(nn.Linear(3, 1)), sampler, 0)


def test_one_parameter_of_two_names_is_refused() -> None:
    w = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="'a' and 'b' are one parameter"):
        SGLD([("a", w), ("b", w)], lr=0.1, num_data=5)


def test_masks_are_matched_by_name() -> None:
    model = nn.Linear(2, 2)
    prior = SpikeSlab(dict(model.named_parameters()))
    sampler = SGHMC(model.named_parameters(), lr=0.1, num_data=5, prior=prior)
    mask = {"module.weight": torch.tensor([[True, False], [True, True]])}
    sampler.set_mask(mask)
    prior.set_mask(mask)
    assert torch.equal(model.weight != 0, mask["module.weight"])
    assert torch.equal(prior.layers["weight"].alive, mask["module.weight"].flatten())
    for taker in (sampler, prior, Horseshoe(dict(model.named_parameters()))):
        with pytest.raises(ValueError, match="'w', which is no parameter; the parameters are 'bias', 'weight'"):
            taker.set_mask({"w": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="names one parameter twice"):
        check_mask({**mask, "weight": mask["module.weight"]}, dict(model.named_parameters()))


@pytest.mark.parametrize(
    ("given", "known", "found"),
    [
        (["a"], ["a", "module.a"], {"a": "a"}),
        (["module.a"], ["a", "module.a"], {"module.a": "module.a"}),
        (["_orig_mod.a"], ["a", "module.a"], {}),  # which of them?
        (["a.module.b"], ["a.b"], {}),  # a module of that name within a network
        (["layer._orig_mod.w"], ["layer.w"], {"layer._orig_mod.w": "layer.w"}),
        (["module.w"], ["module.w"], {"module.w": "module.w"}),
    ],
)
def test_names_are_matched_exactly_or_as_the_one_that_is_meant(
    given: list[str], known: list[str], found: dict[str, str]
) -> None:
    assert names.match(given, known) == found


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("kind", [*SAMPLER_NAMES, "released"])
@pytest.mark.parametrize("setting", ["weight_decay", "temprature", "nesterov", "foreach"])
def test_an_unknown_setting_is_refused_wherever_it_enters(kind: str, setting: str) -> None:
    w, v = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    with pytest.raises(TypeError, match=f"takes no setting '{setting}'"):
        make_sampler(kind, [("w", w)], **{setting: 1.0})
    with pytest.raises(TypeError, match=f"a parameter group takes no setting '{setting}'"):
        make_sampler(kind, [{"params": [("w", w)], setting: 1.0}])
    sampler = make_sampler(kind, [("w", w)])
    with pytest.raises(TypeError, match=f"configure takes no setting '{setting}'"):
        sampler.configure(**{setting: 1.0})
    with pytest.raises(TypeError, match=f"takes no setting '{setting}'"):
        sampler.add_param_group({"params": [("v", v)], setting: 1.0})


def test_what_may_have_been_meant_is_said() -> None:
    with pytest.raises(TypeError, match="'temprature'; did you mean 'temperature'"):
        SGHMC([nn.Parameter(torch.zeros(2))], lr=0.1, num_data=5, temprature=0.0)
    with pytest.raises(TypeError, match=r"SGLD takes no setting 'momentum'(\.|; did you mean '\w+'\?) It takes lr"):
        SGLD([nn.Parameter(torch.zeros(2))], lr=0.1, num_data=5, momentum=0.9)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"lr": 0.0}, ValueError, "lr is 0"),
        ({"lr": "fast"}, TypeError, "lr is 'fast'; it must be a number"),
        ({"temperature": -1.0}, ValueError, "temperature is -1"),
        ({"momentum": 1.0}, ValueError, "momentum is 1"),
        ({"momentum": True}, TypeError, "momentum is True"),
        ({"num_data": 10.0}, TypeError, "num_data is 10.0"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"chain": 1.5}, TypeError, "chain is 1.5"),
    ],
)
def test_a_step_refuses_what_a_scheduler_left(changed: dict[str, Any], error: type, message: str) -> None:
    w = nn.Parameter(torch.zeros(3))
    sampler = SGHMC([("w", w)], lr=0.1, num_data=10)
    w.grad = torch.ones(3)
    sampler.param_groups[0].update(changed)
    with pytest.raises(error, match=message):
        sampler.step()
    assert torch.equal(w, torch.zeros(3))


def test_settings_of_a_group_are_those_of_its_sampler() -> None:
    groups = [{"params": [("w", nn.Parameter(torch.zeros(3)))], "momentum": 0.0}]
    with pytest.raises(ValueError, match="momentum is 0"):
        make_sampler("sgnht", groups)
    with pytest.raises(TypeError, match="takes no setting 'num_data'"):
        make_sampler("sghmc", [{**groups[0], "num_data": 3}])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32])
def test_parameters_below_float32_are_refused_with_the_reason(dtype: torch.dtype) -> None:
    w = nn.Parameter(torch.zeros(3, dtype=dtype), requires_grad=False)
    with pytest.raises(TypeError, match=r"'w' is torch\..*run the network under torch\.autocast"):
        SGHMC([("w", w)], lr=0.1, num_data=5)


# ---------------------------------------------------------------- copies, keys, rest


@pytest.mark.parametrize("how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("kind", SAMPLER_NAMES)
def test_a_copy_goes_on_by_itself_as_the_original_does(kind: str, how: Callable[[Any], Any]) -> None:
    model = network()
    sampler = make_sampler(kind, model.named_parameters(), prior=SpikeSlab(dict(model.named_parameters())))
    train(model, sampler, 2)
    other, its = how((model, sampler))
    before = [p.detach().clone() for p in model.parameters()]
    train(other, its, 3, start=2)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert not any(torch.equal(p, old) for p, old in zip(other.parameters(), before, strict=True))
    train(model, sampler, 3, start=2)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def moved(make: Callable[[Tensor], Sampler]) -> Tensor:
    w = nn.Parameter(torch.zeros(50))
    sampler = make(w)
    for _ in range(3):
        w.grad = torch.zeros(50)
        sampler.step()
    return w.detach()


@pytest.mark.parametrize("kind", SAMPLER_NAMES)
def test_samplers_have_keys_of_their_own_unless_told(kind: str) -> None:
    def chain(**key: Any) -> Tensor:
        return moved(lambda w: make_sampler(kind, [("w", w)], prior=1.0, **{"seed": None, **key}))

    torch.manual_seed(0)
    first, second = chain(), chain()
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(chain(), first)
    assert torch.equal(chain(seed=3), chain(seed=3))
    assert not torch.equal(chain(seed=3), chain(seed=3, chain=1))


@pytest.mark.parametrize("make", [lambda p, **key: SpikeSlab(p, mode="gibbs", **key), Horseshoe])
def test_priors_with_gibbs_steps_have_keys_of_their_own_unless_told(make: Any) -> None:
    params = {"w": torch.full((20, 20), 0.025)}

    def drawn(**key: Any) -> Tensor:
        prior = make(params, **key)
        prior.sample_latent(params, 0)
        return prior.potential_gradient("w", params["w"])

    torch.manual_seed(0)
    first, second = drawn(), drawn()
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(drawn(), first)
    assert torch.equal(drawn(seed=3), drawn(seed=3))
    one, other = make(params), make(params)
    other.load_state_dict(one.state_dict())  # a resumed chain goes on with its key
    for prior in (one, other):
        prior.sample_latent(params, 1)
    assert torch.equal(one.potential_gradient("w", params["w"]), other.potential_gradient("w", params["w"]))


def test_a_sampler_without_a_seed_takes_the_key_that_it_loads() -> None:
    model, other = network(), network()
    sampler, resumed = (SGHMC(m.named_parameters(), lr=0.1, num_data=20) for m in (model, other))
    train(model, sampler, 3)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(sampler.state_dict())
    train(model, sampler, 3, start=3)
    train(other, resumed, 3, start=3)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", SAMPLER_NAMES)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("left", [0.0, 7.0, float("nan")])
def test_a_frozen_parameter_rests_whatever_is_left_in_its_gradient(tier: str, left: float, kind: str) -> None:
    w, v = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    sampler = make_sampler(kind, [("w", w), ("v", v)], prior=1.0, implementation=tier)
    for _ in range(2):
        w.grad, v.grad = torch.ones(5), torch.ones(5)
        sampler.step()
    v.requires_grad_(False)
    before = v.clone()
    v.grad = torch.full((5,), left)
    for _ in range(3):
        w.grad = torch.ones(5)
        sampler.step()
    assert torch.equal(v, before)
    assert "v" not in sampler.momentum_squares()


# ---------------------------------------------------------------- precision


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("mode", ["marginal", "em"])
@pytest.mark.parametrize(
    ("spike_kind", "group"), [("gaussian", "weight"), ("gaussian", "filter"), ("laplace", "weight")]
)
@pytest.mark.parametrize(("spike", "slab"), [(1e-8, 1.0), (1e-7, 10.0), (1e-9, 0.05), (1e-4, 0.05)])
def test_a_weight_in_the_slab_feels_the_slab_alone(
    tier: str, mode: Any, spike_kind: Any, group: str, spike: float, slab: float
) -> None:
    w = nn.Parameter(torch.full((4, 4), 0.5))
    prior = SpikeSlab({"w": w}, mode=mode, spike=spike_kind, group=group, spike_variance=spike, slab_variance=slab)
    sampler = SGLD([("w", w)], lr=1.0, num_data=1, temperature=0.0, prior=prior, implementation=tier)  # type: ignore[arg-type]
    w.grad = torch.zeros_like(w)
    sampler.step()
    torch.testing.assert_close((0.5 - w) * slab / 0.5, torch.ones(4, 4), rtol=1e-5 / min(slab, 1), atol=0)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("tier", TIERS)
def test_the_force_is_that_in_double_precision_from_spike_to_slab(tier: str) -> None:
    """Where 1 - r is as small as 1e-12, it still has its digits: the spike's share of the force is (1 - r) / v0."""
    w = torch.linspace(3e-4, 9e-4, 200).view(20, 10)
    forces = []
    for dtype, implementation in ((torch.float32, tier), (torch.float64, "reference")):
        p = nn.Parameter(w.to(dtype, copy=True))
        prior = SpikeSlab({"w": p}, spike_variance=1e-8, slab_variance=1.0)
        sampler = SGLD([("w", p)], lr=1.0, num_data=1, temperature=0.0, prior=prior, implementation=implementation)  # type: ignore[arg-type]
        p.grad = torch.zeros_like(p)
        sampler.step()
        forces.append(w.double() - p.detach().double())
    torch.testing.assert_close(*forces, rtol=2e-4, atol=1e-9)


def test_a_prior_that_is_set_later_is_asked_for_its_names_too() -> None:
    model, other = torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Linear(3, 2))
    sampler = SGHMC(model.named_parameters(), lr=0.01, num_data=np.int64(10))
    with pytest.raises(ValueError, match=r"the prior was made for '0.weight', '0.bias', and the sampler has 'weight'"):
        sampler.prior = SpikeSlab(dict(other.named_parameters()))
    assert sampler.prior is None
    sampler.prior = SpikeSlab({f"module.{name}": p for name, p in model.named_parameters()})
    assert sampler.prior_names == {"weight": "module.weight", "bias": "module.bias"}


def test_a_state_from_before_a_scheduler_is_loaded() -> None:
    model = torch.nn.Linear(3, 2)
    before = SGHMC(model.named_parameters(), lr=0.01, num_data=10, seed=1).state_dict()
    sampler = SGHMC(model.named_parameters(), lr=0.01, num_data=10, seed=1)
    torch.optim.lr_scheduler.OneCycleLR(sampler, 0.1, total_steps=10, cycle_momentum=False)
    sampler.load_state_dict(before)
    assert sampler.param_groups[0]["lr"] == 0.01
