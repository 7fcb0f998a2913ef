"""At temperature zero every sampler is SGD: to the bit in symplectic Euler, to rounding in the splittings."""

from typing import Any

import pytest
import torch
from torch import nn
from toy_network import assert_equal_parameters, make_sampler, network, set_gradients, train

from sgmcmc_prune.priors.gaussian import Gaussian
from sgmcmc_prune.samplers import SGHMC, SGLD


def layer_groups(model: nn.Sequential) -> list[dict[str, Any]]:
    return [{"params": list(model[0].parameters()), "lr": 0.3}, {"params": list(model[2].parameters())}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_cold_sghmc_is_sgd_to_the_bit(momentum: float, dtype: torch.dtype) -> None:
    model, other = network(dtype), network(dtype)
    settings = {"num_data": 123, "temperature": 0, "implementation": "reference"}
    sampler = SGHMC(layer_groups(model), lr=0.1, momentum=momentum, **settings)
    train(model, sampler, 200)
    train(other, torch.optim.SGD(layer_groups(other), lr=0.1, momentum=momentum, foreach=False), 200)
    assert_equal_parameters(model, other)


def test_cold_sgld_is_sgd_to_the_bit() -> None:
    model, other = network(), network()
    settings = {"num_data": 123, "temperature": 0, "implementation": "reference"}
    train(model, SGLD(layer_groups(model), lr=0.1, **settings), 200)
    train(other, torch.optim.SGD(layer_groups(other), lr=0.1, foreach=False), 200)
    assert_equal_parameters(model, other)


@pytest.mark.parametrize("momentum", [0.9, 0.3])
@pytest.mark.parametrize("kind", ["baoab", "obabo", "sgnht"])
def test_a_cold_splitting_is_sgd_with_the_same_step(kind: str, momentum: float) -> None:
    model, other = network(torch.float64), network(torch.float64)
    sampler = make_sampler(kind, layer_groups(model), momentum=momentum, temperature=0)
    train(model, sampler, 100)
    train(other, torch.optim.SGD(layer_groups(other), lr=0.1, momentum=momentum), 100)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_cold_adaptive_sghmc_is_sgd_at_half_the_step() -> None:
    # Without noise nothing is learned: tau stays at 1/2.
    model, other = network(torch.float64), network(torch.float64)
    train(model, make_sampler("adaptive_sghmc", model.parameters(), temperature=0), 100)
    train(other, torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9), 100)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["sghmc", "obabo"])
def test_without_momentum_it_is_sgld(kind: str) -> None:
    model, other = network(torch.float64), network(torch.float64)
    train(model, make_sampler(kind, model.parameters(), momentum=0.0, seed=3), 20)
    train(other, make_sampler("sgld", other.parameters(), seed=3), 20)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["sgld", "sghmc", "baoab"])
def test_a_gaussian_prior_is_weight_decay(kind: str) -> None:
    model, named, other = (network(torch.float64) for _ in range(3))
    train(model, make_sampler(kind, model.parameters(), num_data=50, prior=4.0, temperature=0), 50)
    prior = Gaussian(variance=0.25)
    train(named, make_sampler(kind, named.named_parameters(), num_data=50, prior=prior, temperature=0), 50)
    momentum = 0.0 if kind == "sgld" else 0.9
    train(other, torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=4.0 / 50, momentum=momentum), 50)
    assert_equal_parameters(model, named)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["sgld", "sghmc"])
def test_a_learning_rate_scheduler_sets_the_step(kind: str) -> None:
    # Without momentum the momentum's rescaling cannot show, and both are plain SGD.
    ends = []
    for cold in (True, False):
        model = network(torch.float64)
        optimizer: torch.optim.Optimizer = (
            make_sampler(kind, model.parameters(), temperature=0, momentum=0.0)
            if cold
            else torch.optim.SGD(model.parameters(), lr=0.1)
        )
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01)
        for t in range(10):
            train(model, optimizer, 1, start=t)
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
        ends.append(model)
    for a, b in zip(*(m.parameters() for m in ends), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_closure_is_evaluated_with_gradients() -> None:
    model, other = network(), network()
    sampler = SGHMC(model.parameters(), lr=0.1, num_data=10, seed=0)
    losses = [sampler.step(lambda t=t: set_gradients(model, t)) for t in range(3)]
    train(other, SGHMC(other.parameters(), lr=0.1, num_data=10, seed=0), 3)
    assert_equal_parameters(model, other)
    assert losses[0] == set_gradients(network(), 0)
