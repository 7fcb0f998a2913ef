"""The mass matrix: it reacts to gradients, respects its floor, freezes, and keeps the momentum's law."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_network import momentum_square

from sgmcmc_prune import choices
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.preconditioners import (
    Layerwise,
    Preconditioner,
    RMSprop,
    inverse_mass,
    inverse_sqrt_mass,
    sqrt_mass,
)
from sgmcmc_prune.samplers import SGHMC, SGLD
from sgmcmc_prune.samplers.checks import check_mass


def states(*gradients: list[float]) -> list[dict[str, Any]]:
    return [{"gradient": torch.tensor(g)} for g in gradients]


def masses(rms: Preconditioner, states: list[dict[str, Any]], observations: int = 1) -> Tensor:
    """All entries of M after every state has seen its gradient a few times."""
    for state in states:
        for _ in range(observations):
            rms.observe(state, state["gradient"])
    rms.refresh(states)
    return torch.cat([s["mass"].flatten() for s in states])


def set_gradient(parameter: Tensor, seed: int) -> None:
    parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))


def adapted_sampler(steps: int = 5, preconditioner: Preconditioner | None = None) -> tuple[SGHMC, Tensor]:
    """A sampler of eleven weights whose gradients have seen `steps` steps; M is not yet computed."""
    parameter = nn.Parameter(torch.zeros(11))
    sampler = SGHMC([parameter], lr=0.1, num_data=100, preconditioner=preconditioner or RMSprop())
    for t in range(steps):
        set_gradient(parameter, t)
        sampler.step()
    return sampler, parameter


@pytest.mark.parametrize("observations", [1, 2, 50])
def test_a_constant_gradient_gives_its_size_over_the_median(observations: int) -> None:
    # Also the bias correction: the number of observations does not matter.
    mass = masses(RMSprop(min_mass=0.01), states([1.0, -2.0, 4.0], [8.0, 0.5]), observations)
    torch.testing.assert_close(mass, torch.tensor([0.5, 1.0, 2.0, 4.0, 0.25]))


def test_running_mean_by_hand() -> None:
    rms, state = RMSprop(decay=0.5, min_mass=0.01), states([0.0, 0.0, 0.0])[0]
    rms.observe(state, torch.tensor([2.0, 1.0, 4.0]))
    rms.observe(state, torch.tensor([0.0, 1.0, 4.0]))
    rms.refresh([state])
    torch.testing.assert_close(state["mass"], torch.tensor([1.0, math.sqrt(3 / 4), 4 * math.sqrt(3 / 4)]))


def test_the_median_weight_has_mass_one() -> None:
    sampler, parameter = adapted_sampler()
    sampler.refresh_preconditioner()
    assert float(sampler.state[parameter]["mass"].median()) == 1.0


def test_the_floor_is_respected() -> None:
    mass = masses(RMSprop(min_mass=0.3), states([0.0, 1e-12, 1.0], [1.0, 5.0]))
    assert mass.tolist() == pytest.approx([0.3, 0.3, 1.0, 1.0, 5.0])


def test_gradients_that_are_all_zero_give_the_floor() -> None:
    assert masses(RMSprop(), states([0.0, 0.0])).tolist() == [0.25, 0.25]


def test_the_mass_of_a_network_is_alive() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=generator) * torch.tensor([0.3, 0.6, 1.0, 2.0, 4.0, 8.0])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    sampler = SGLD(model.named_parameters(), lr=1e-3, num_data=64, preconditioner=RMSprop())
    for _ in range(10):
        sampler.zero_grad()
        (model(x) - x[:, :1]).square().mean().backward()
        sampler.step()
    sampler.refresh_preconditioner()
    for p in (model[0].weight, model[2].weight):
        mass = sampler.state[p]["mass"]
        assert float(mass.std() / mass.mean()) > 0.05


def test_rescaling_an_input_rescales_its_mass() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    ratios = []
    for scale in (1.0, 10.0):
        model = nn.Linear(3, 1, bias=False)
        nn.init.zeros_(model.weight)
        sampler = SGLD(model.parameters(), lr=1e-9, num_data=40, temperature=0, preconditioner=RMSprop(min_mass=1e-6))
        (model(x * torch.tensor([scale, 1.0, 1.0])) - x.sum(1, keepdim=True)).square().mean().backward()
        sampler.step()
        sampler.refresh_preconditioner()
        mass = sampler.state[model.weight]["mass"][0]
        ratios.append(float(mass[0] / mass[1]))
    assert ratios[1] == pytest.approx(10 * ratios[0], rel=1e-5)


def test_freezing_stops_adaptation() -> None:
    sampler, parameter = adapted_sampler()
    sampler.refresh_preconditioner()
    state = sampler.state[parameter]
    sampler.freeze()
    mass, average = state["mass"].clone(), state["square_average"].clone()
    set_gradient(parameter, 99)
    sampler.step()
    sampler.refresh_preconditioner()
    assert torch.equal(state["mass"], mass)
    assert torch.equal(state["square_average"], average)


def test_a_refresh_after_freezing_changes_nothing() -> None:
    sampler, parameter = adapted_sampler()
    sampler.refresh_preconditioner()
    mass = sampler.state[parameter]["mass"].clone()
    set_gradient(parameter, 99)
    sampler.step()  # seen before the freeze, but not yet in M
    sampler.freeze()
    sampler.refresh_preconditioner()
    assert torch.equal(sampler.state[parameter]["mass"], mass)


def test_a_group_added_after_freezing_is_frozen() -> None:
    sampler, _ = adapted_sampler()
    sampler.freeze()
    late = nn.Parameter(torch.zeros(3))
    sampler.add_param_group({"params": [late]})
    set_gradient(late, 0)
    sampler.step()
    assert "square_average" not in sampler.state[late]


def test_a_refresh_rescales_the_momentum_by_the_root_of_the_mass() -> None:
    sampler, parameter = adapted_sampler()
    state = sampler.state[parameter]
    first = state["momentum_buffer"].clone()
    sampler.refresh_preconditioner()
    torch.testing.assert_close(state["momentum_buffer"], first * state["mass"].sqrt())
    set_gradient(parameter, 50)
    sampler.step()
    second, old = state["momentum_buffer"].clone(), state["mass"].clone()
    sampler.refresh_preconditioner()
    torch.testing.assert_close(state["momentum_buffer"], second * (state["mass"] / old).sqrt())


@pytest.mark.parametrize("preconditioner", [RMSprop(), Layerwise()])
def test_a_refresh_keeps_the_kinetic_temperature(preconditioner: Preconditioner) -> None:
    sampler, parameter = adapted_sampler(preconditioner=preconditioner)
    late = nn.Parameter(torch.zeros(3))
    late.grad = torch.full((3,), 5.0)
    sampler.add_param_group({"params": [late]})
    sampler.step()
    before = momentum_square(sampler)
    sampler.refresh_preconditioner()
    assert {"mass"} <= set(sampler.state[late]) & set(sampler.state[parameter])
    assert momentum_square(sampler) == pytest.approx(before)


def test_before_the_first_refresh_the_mass_is_one() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    sampler = SGLD([parameter], lr=0.1, num_data=10, preconditioner=RMSprop())
    sampler.refresh_preconditioner()
    assert "mass" not in sampler.state[parameter]


@pytest.mark.parametrize("mass", [None, torch.tensor([0.25, 1.0, 3.0, 1e4]), torch.tensor(2.5)], ids=str)
def test_verbs_are_consistent(mass: Tensor | None) -> None:
    x = torch.tensor([1.0, -2.0, 0.5, 7.0])
    torch.testing.assert_close(sqrt_mass(mass, inverse_sqrt_mass(mass, x)), x)
    torch.testing.assert_close(inverse_mass(mass, sqrt_mass(mass, sqrt_mass(mass, x))), x)
    torch.testing.assert_close(inverse_sqrt_mass(mass, inverse_sqrt_mass(mass, x)), inverse_mass(mass, x))


def test_inverse_mass_divides_by_the_mass() -> None:
    assert inverse_mass(torch.tensor([0.25, 4.0]), torch.tensor([1.0, 1.0])).tolist() == [4.0, 0.25]


def test_layerwise_is_the_root_mean_square_over_the_smallest() -> None:
    layerwise, seen = Layerwise(), states([3.0, 4.0], [0.0, 1.0], [10.0])
    for state in seen:
        layerwise.observe(state, state["gradient"])
        layerwise.observe(state, 3 * state["gradient"])  # mean squares 5 times as large
    layerwise.refresh(seen)
    expected = [math.sqrt((square + 2e-8) / (0.5 + 2e-8)) for square in (12.5, 0.5, 100.0)]
    assert [float(s["mass"]) for s in seen] == pytest.approx(expected, rel=1e-6)
    assert all(s["mass"].dim() == 0 for s in seen)


def test_layerwise_forgets_at_a_refresh_and_keeps_its_mass_without_gradients() -> None:
    layerwise, seen = Layerwise(), states([1.0], [2.0])
    masses(layerwise, seen)
    layerwise.refresh(seen)
    assert [float(s["mass"]) for s in seen] == pytest.approx([1.0, 2.0])
    for state, gradient in zip(seen, (4.0, 1.0), strict=True):
        state["gradient"] = torch.tensor([gradient])
    assert masses(layerwise, seen).tolist() == pytest.approx([4.0, 1.0])


def test_layerwise_without_any_gradient_is_the_identity() -> None:
    assert masses(Layerwise(), states([0.0], [0.0, 0.0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", choices.OURS["mass matrix"])
def test_no_mass_is_under_the_declared_floor(kind: str) -> None:
    preconditioner, seen = choices.load("mass matrix", kind)(), states([0.0, 1e-12, 1.0], [1.0, 5.0], [0.0])
    for state in seen:
        preconditioner.observe(state, state["gradient"])
    preconditioner.refresh(seen)
    smallest = min(float(s["mass"].min()) if "mass" in s else 1.0 for s in seen)
    assert smallest == pytest.approx(preconditioner.min_mass)


@pytest.mark.parametrize("floor", [0.1, 0.3, 0.7])
def test_a_mass_at_its_floor_is_taken_and_one_below_is_refused(floor: float) -> None:
    w, at_floor = torch.zeros(2), torch.tensor([1.0, floor])  # rounded to float32, to either side
    check_mass(RMSprop(min_mass=floor), "w", w, at_floor)
    with pytest.raises(RunError, match=r"RMSprop gives 'w' a mass of .*, below its min_mass"):
        check_mass(RMSprop(min_mass=floor), "w", w, 0.999 * at_floor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, r"decay is 1.0; it must be in \[0, 1\)"),
        ({"decay": -0.1}, "decay is -0.1"),
        ({"decay": math.nan}, "decay is nan"),
        ({"min_mass": 0.0}, "min_mass is 0.0"),
        ({"min_mass": 1.5}, r"min_mass is 1.5; it must be in \(0, 1\]"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RMSprop(**settings)
