"""What the samplers refuse, in one line, before anything moves."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_network import SAMPLER_NAMES, WITH_MOMENTUM, make_sampler, network, set_gradients, train

from sgmcmc_prune.errors import RunError
from sgmcmc_prune.preconditioners import PositionDependent, RMSprop
from sgmcmc_prune.samplers import SGHMC, SGLD


def everything(model: nn.Module, sampler: torch.optim.Optimizer) -> list[Any]:
    """Copies of all parameters, all state and the counters."""
    state = [v.clone() if isinstance(v, Tensor) else v for s in sampler.state.values() for v in s.values()]
    return [p.detach().clone() for p in model.parameters()] + state + [g["step"] for g in sampler.param_groups]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [*SAMPLER_NAMES, "released"])
def test_a_gradient_that_is_not_finite_moves_nothing(kind: str, value: float) -> None:
    model = network()
    sampler = make_sampler(
        kind, [{"params": [(f"{i}.{n}", p) for n, p in model[i].named_parameters()]} for i in (0, 2)]
    )
    train(model, sampler, 3)
    before = everything(model, sampler)
    set_gradients(model, 3)
    model[2].bias.grad[0] = value  # in the last tensor of the last group
    with pytest.raises(RunError, match=r"gradient of '2\.bias' is not finite at step 3; no parameter was moved"):
        sampler.step()
    after = everything(model, sampler)
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(before, after, strict=True))
    set_gradients(model, 3)
    sampler.step()


def test_huge_gradients_are_finite() -> None:
    # Their sum is not.
    w = nn.Parameter(torch.zeros(3))
    w.grad = torch.full((3,), 3e38)
    SGLD([w], lr=1e-40, num_data=1, temperature=0).step()
    assert bool(w.isfinite().all())


@pytest.mark.parametrize("kind", ["sgld", "sghmc"])
def test_a_parameter_without_a_gradient_is_named(kind: str) -> None:
    model = network()
    sampler = make_sampler(kind, model.named_parameters())
    set_gradients(model, 0)
    model[2].weight.grad = None
    before = everything(model, sampler)
    with pytest.raises(ValueError, match=r"parameter '2\.weight' has no gradient at step 0"):
        sampler.step()
    assert all(torch.equal(a, b) for a, b in zip(before[:4], everything(model, sampler)[:4], strict=True))
    model[2].weight.requires_grad_(False)
    sampler.step()
    assert torch.equal(model[2].weight, before[2])


def test_a_sparse_gradient_is_refused() -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="gradient of 'weight' is sparse"):
        SGLD(embedding.named_parameters(), lr=0.1, num_data=10).step()


@pytest.mark.parametrize("kind", SAMPLER_NAMES)
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
        ({"prior": True}, TypeError, "prior precision is True; it must be a number"),
        ({"prior": "gaussian"}, TypeError, "prior precision is 'gaussian'; it must be a number"),
        ({"temperature": True}, TypeError, "temperature is True; it must be a number"),
        ({"lr": "a"}, TypeError, "lr is 'a'; it must be a number"),
    ],
)
def test_settings_out_of_range_are_refused(
    kind: str, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_sampler(kind, [nn.Parameter(torch.zeros(2))], **settings)


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        ("sgnht", {"momentum": 0.0}, ValueError, "momentum is 0"),
        ("sgnht", {"rate": 0.0}, ValueError, "rate is 0.0"),
        ("sgnht", {"rate": 1.0}, ValueError, "rate is 1.0"),
        ("adaptive_sghmc", {"form": "published"}, ValueError, "choose one of corrected, released"),
        ("adaptive_sghmc", {"eta": 0.0}, ValueError, "eta is 0.0"),
        ("adaptive_sghmc", {"curvature": math.inf}, ValueError, "curvature is inf"),
        ("adaptive_sghmc", {"preconditioner": RMSprop()}, ValueError, "learns its own mass"),
        ("sgld", {"preconditioner": "rmsprop"}, TypeError, "preconditioner is 'rmsprop'; it must be"),
        ("sgnht", {"rate": True}, TypeError, "rate is True; it must be a number"),
        ("adaptive_sghmc", {"eta": "a"}, TypeError, "eta is 'a'; it must be a number"),
        ("baoab", {"preconditioner": PositionDependent(torch.ones_like, torch.zeros_like)}, TypeError, "use SGLD"),
    ],
)
def test_settings_of_one_sampler(kind: str, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_sampler(kind, [nn.Parameter(torch.zeros(2))], **settings)


@pytest.mark.parametrize(("value", "error"), [(True, TypeError), ("a", TypeError), (math.nan, ValueError)])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("decay", lambda value: RMSprop(decay=value)),
        ("min_mass", lambda value: RMSprop(min_mass=value)),
        ("min_mass", lambda value: PositionDependent(torch.ones_like, torch.zeros_like, value)),
    ],
)
def test_the_numbers_of_a_mass_matrix_are_checked(
    name: str, make: Callable[[Any], Any], value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"{name} is {value!r}; it must be"):
        make(value)


@pytest.mark.parametrize("momentum", [1.0, -0.1, math.nan])
@pytest.mark.parametrize("kind", WITH_MOMENTUM)
def test_momentum_out_of_range_is_refused(kind: str, momentum: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        make_sampler(kind, [nn.Parameter(torch.zeros(2))], momentum=momentum)


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


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ({"v": torch.ones(2, dtype=torch.bool)}, ValueError, "names 'v', which is no parameter"),
        ({"w": torch.ones(3, dtype=torch.bool)}, ValueError, r"has shape \(3,\), not \(2,\)"),
        ({"w": torch.ones(2)}, TypeError, "must be torch.bool"),
    ],
)
def test_masks_are_checked(mask: dict[str, Tensor], error: type[Exception], message: str) -> None:
    w = nn.Parameter(torch.ones(2))
    with pytest.raises(error, match=message):
        SGHMC([("w", w)], lr=0.1, num_data=10).set_mask(mask)
