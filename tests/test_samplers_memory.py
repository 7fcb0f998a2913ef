"""Kernels read and write what belongs to a parameter, wherever it lies; a state that does not fit is refused."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_network import SAMPLER_NAMES, make_sampler

from sgmcmc_prune import native
from sgmcmc_prune.native.memory import is_dense, pointer
from sgmcmc_prune.preconditioners import Layerwise, RMSprop
from sgmcmc_prune.priors import Gaussian, SpikeSlab
from sgmcmc_prune.samplers import SGHMC, SGLD, Sampler

TIERS = ["reference", "compiled"]
pytestmark = pytest.mark.usefixtures("kernels")

# ---------------------------------------------------------------- any layout, shape, group, mask and type


@dataclass
class Drawn:
    """A parameter of a random problem: its group, shape, type, mask, and memory orders (None leaves gaps)."""

    group: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    masked: bool
    frozen: bool
    orders: tuple[list[int] | None, ...]


@st.composite
def drawn_parameter(draw: Callable[..., Any]) -> Drawn:
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=4)))
    order = st.permutations(range(len(shape))) | (st.none() if draw(st.integers(0, 9)) == 0 else st.nothing())
    double, frozen, masked = (draw(st.integers(0, 9)) == 0 for _ in range(3))
    orders = tuple(draw(order) for _ in range(3))
    return Drawn(draw(st.integers(0, 2)), shape, torch.float64 if double else torch.float32, masked, frozen, orders)


def lay(x: Tensor, order: list[int] | None) -> Tensor:
    """The same entries in another memory order, or with gaps between them."""
    if order is None:
        return torch.stack([x, x], dim=-1)[..., 0]
    return x.permute(order).contiguous().permute([order.index(k) for k in range(x.dim())])


PRIORS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "flat": lambda params: None,
    "gaussian": lambda params: Gaussian(0.1),
    "mixture": lambda params: SpikeSlab(params, spike_variance=1e-3),
    "held": lambda params: SpikeSlab(params, mode="em", group="filter", spike_variance=1e-2),
}
KINDS = (SGHMC, SGLD)
PRECONDITIONERS = {"identity": lambda: None, "rmsprop": RMSprop, "layerwise": Layerwise}


def trajectory(kind: type[Sampler], tier: str, drawn: list[Drawn], prior: str, mass: str, noise: Any) -> list[Tensor]:
    """Where some steps lead; on the way come a mask, a fresh momentum, another layout, and a saved state."""
    generator = torch.Generator().manual_seed(0)

    def normal(d: Drawn) -> Tensor:
        return torch.randn(d.shape, generator=generator).to(d.dtype)

    named = {f"p{i}": nn.Parameter(lay(0.1 * normal(d), d.orders[0])) for i, d in enumerate(drawn)}
    pairs = list(zip(named.items(), drawn, strict=True))
    groups = [{"params": [pair for pair, d in pairs if d.group == g]} for g in range(3)]
    options: dict[str, Any] = {"prior": PRIORS[prior](named), "preconditioner": PRECONDITIONERS[mass](), "noise": noise}
    sampler = kind(groups, lr=0.01, num_data=50, seed=3, implementation=tier, **options)
    for step in range(6):
        if step == 2:
            sampler.refresh_preconditioner()
            sampler.freeze()
            sampler.set_mask({n: torch.rand(d.shape, generator=generator) > 0.5 for (n, _), d in pairs if d.masked})
        if step == 3:
            for (_, p), d in pairs:
                p.data = lay(p.data, d.orders[1])
                p.requires_grad_(not d.frozen)
        if step == 4 and isinstance(sampler, SGHMC):
            sampler.sample_momentum()
        if step == 5:
            sampler.load_state_dict(copy.deepcopy(sampler.state_dict()))
        for (_, p), d in pairs:
            p.grad = lay(0.3 * normal(d), d.orders[2])
        sampler.step()
    return [p.detach() for p in named.values()]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.sampled_from(KINDS),
    st.lists(drawn_parameter(), min_size=1, max_size=6),
    st.sampled_from(list(PRIORS)),
    st.sampled_from(list(PRECONDITIONERS)),
    st.sampled_from(["gaussian", "rademacher"]),
)
def test_the_fastest_tier_is_the_reference_whatever_lies_where(
    kind: type[Sampler], drawn: list[Drawn], prior: str, mass: str, noise: str
) -> None:
    try:
        ours = trajectory(kind, "auto", drawn, prior, mass, noise)
    except ValueError as refused:  # a weight that got gaps on the way: said, not done
        assert "does not fill its memory" in str(refused)  # noqa: PT017
        return
    for x, y in zip(ours, trajectory(kind, "reference", drawn, prior, mass, noise), strict=True):
        torch.testing.assert_close(x, y, rtol=5e-5, atol=5e-6)


# ---------------------------------------------------------------- layouts that change


def convolution(tier: str, **settings: Any) -> tuple[nn.Conv2d, SGHMC]:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3, bias=False)
    return model, SGHMC(model.named_parameters(), lr=0.01, num_data=10, seed=0, implementation=tier, **settings)  # type: ignore[arg-type]


def rest(model: nn.Conv2d, sampler: Sampler, steps: int) -> None:
    for _ in range(steps):
        model.weight.grad = torch.zeros_like(model.weight)
        sampler.step()


@pytest.mark.parametrize("tier", TIERS)
def test_a_mask_stays_on_its_weights_when_memory_is_reordered(tier: str) -> None:
    model, sampler = convolution(tier)
    mask = torch.rand(4, 3, 3, 3) > 0.5
    sampler.set_mask({"weight": mask})
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rest(model, sampler, 2)
    assert torch.equal(model.weight != 0, mask)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("tier", TIERS)
def test_a_momentum_stays_with_its_weights_when_memory_is_reordered(tier: str, fresh: bool) -> None:
    ends = []
    for last in (False, True):
        model, sampler = convolution(tier, temperature=1.0 if fresh else 0.0)
        if fresh:
            sampler.sample_momentum()
            sampler.configure(temperature=0.0)
        model.weight.grad = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
        sampler.step()
        if last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rest(model, sampler, 2)
        assert sampler.state[model.weight]["momentum_buffer"].stride() == model.weight.stride()
        ends.append(model.weight.detach())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-7)


def test_a_weight_that_gets_gaps_is_named_before_anything_moves() -> None:
    w = nn.Parameter(torch.ones(4))
    sampler = SGHMC([("w", w)], lr=0.1, num_data=10, implementation="compiled")
    w.data = torch.ones(4, 2)[:, 0]
    w.grad = torch.ones(4)
    with pytest.raises(ValueError, match="a parameter does not fill its memory"):
        sampler.step()
    assert torch.equal(w, torch.ones(4))


@pytest.mark.parametrize("tier", TIERS)
def test_a_weight_of_another_shape_is_named(tier: str) -> None:
    w = nn.Parameter(torch.ones(4))
    sampler = SGHMC([("w", w)], lr=0.1, num_data=10, implementation=tier)  # type: ignore[arg-type]
    w.data = torch.ones(2)
    w.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"'w' is torch\.float32 of shape \(2,\) on cpu, but was .* of shape \(4,\)"):
        sampler.step()


def test_a_buffer_from_elsewhere_is_not_written_to() -> None:
    w = nn.Parameter(torch.ones(4))
    sampler = SGHMC([("w", w)], lr=0.1, num_data=10, implementation="compiled")
    w.grad = torch.ones(4)
    sampler.step()
    for other in (torch.zeros(3), torch.zeros(4, dtype=torch.float64), torch.zeros(4, 2)[:, 0]):
        sampler.state[w]["momentum_buffer"] = other
        with pytest.raises(ValueError, match="buffer does not lie in memory like its weight"):
            sampler.step()


@pytest.mark.parametrize("kind", SAMPLER_NAMES)
@pytest.mark.parametrize("tier", TIERS)
def test_an_empty_tensor_keeps_nothing_from_moving(tier: str, kind: str) -> None:
    empty, w = nn.Parameter(torch.empty(0, 4)), nn.Parameter(torch.ones(3))
    groups = [{"params": [("empty", empty)]}, {"params": []}, {"params": [("w", w)]}]
    sampler = make_sampler(kind, groups, implementation=tier)
    for _ in range(2):
        empty.grad, w.grad = torch.zeros(0, 4), torch.ones(3)
        sampler.step()
        sampler.refresh_preconditioner()
    assert bool((w != 1).all())
    assert bool(w.isfinite().all())


@pytest.mark.parametrize("preconditioner", [RMSprop, Layerwise])
def test_preconditioners_pass_over_empty_tensors(preconditioner: Any) -> None:
    ends = []
    for shapes in ([(3,)], [(0, 2), (3,)]):
        named = [(f"p{len(shape)}", nn.Parameter(torch.ones(shape))) for shape in shapes]
        sampler = SGLD(named, lr=0.1, num_data=10, temperature=0.0, preconditioner=preconditioner())
        for _ in range(3):
            for _, p in named:
                p.grad = torch.arange(p.numel()).view_as(p) + 1.0
            sampler.step()
            sampler.refresh_preconditioner()
        ends.append(named[-1][1].detach())
    assert torch.equal(*ends)


# ---------------------------------------------------------------- saved states


def linear(outputs: int, tier: str, dtype: torch.dtype = torch.float32, steps: int = 1) -> tuple[nn.Linear, SGHMC]:
    torch.manual_seed(0)
    model = nn.Linear(4, outputs).to(dtype)
    settings: dict[str, Any] = {"lr": 0.01, "num_data": 300, "prior": 1.0, "temperature": 0.0, "implementation": tier}
    sampler = SGHMC(model.named_parameters(), **settings)
    for _ in range(steps):
        train(model, sampler)
    return model, sampler


def train(model: nn.Linear, sampler: Sampler) -> None:
    sampler.zero_grad()
    x = torch.linspace(-1, 1, 8, dtype=model.weight.dtype).view(2, 4)
    model(x).square().mean().backward()
    sampler.step()


@pytest.mark.parametrize("outputs", [2, 5, 5000])
@pytest.mark.parametrize("tier", TIERS)
def test_a_state_of_another_shape_is_refused_and_nothing_changes(tier: str, outputs: int) -> None:
    _, small = linear(3, tier)
    model, sampler = linear(outputs, tier)
    before = copy.deepcopy(sampler.state_dict())
    with pytest.raises(ValueError, match=r"saved momentum_buffer of 'weight' has shape \(3, 4\); the parameter has \("):
        sampler.load_state_dict(small.state_dict())
    after = sampler.state_dict()
    assert torch.equal(before["state"][0]["momentum_buffer"], after["state"][0]["momentum_buffer"])
    assert before["param_groups"] == after["param_groups"]
    train(model, sampler)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_a_state_of_another_type_is_cast(tier: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    model, sampler = linear(3, "reference", dtypes[0], 5)
    other, its = linear(3, tier if dtypes[1] == torch.float32 else "reference", dtypes[1], 0)
    other.load_state_dict(model.state_dict())
    its.load_state_dict(sampler.state_dict())
    for _ in range(5):
        train(model, sampler)
        train(other, its)
    torch.testing.assert_close(other.weight.double(), model.weight.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("tier", TIERS)
def test_a_loaded_state_lies_like_its_weights(tier: str) -> None:
    model, sampler = convolution(tier)
    rest(model, sampler, 2)
    sampler.set_mask({"weight": torch.rand(4, 3, 3, 3) > 0.5})
    state = copy.deepcopy(sampler.state_dict())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sampler.load_state_dict(state)
    for value in (sampler.state[model.weight][key] for key in ("mask", "momentum_buffer")):
        assert value.stride() == model.weight.stride()


def changed(state: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    state = copy.deepcopy(state)
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s["state"][0].update(mask=torch.ones(3, 4)), TypeError, r"mask of 'weight' is torch\.float32"),
        (lambda s: s["state"][1].update(momentum_buffer=torch.ones(3, dtype=torch.bool)), TypeError, "torch.bool"),
        (lambda s: s["state"][1].update(thermostat=torch.ones(())), ValueError, "'thermostat', which this sampler has"),
        (lambda s: s["state"][1].update(time_step="long"), TypeError, "time_step of 'bias' is 'long'"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), ValueError, "lr is -1"),
        (lambda s: s["param_groups"][0].pop("lr"), ValueError, "lacks the settings 'lr'"),
        (
            lambda s: s["param_groups"][0].update(param_names=["w", "bias"]),
            ValueError,
            "has the parameters 'w', 'bias'",
        ),
        (lambda s: s["param_groups"][0]["param_names"].reverse(), ValueError, "in the same order"),
        (lambda s: s["param_groups"].append(s["param_groups"][0]), ValueError, "2 parameter groups, this one 1"),
    ],
)
def test_a_state_that_is_no_state_of_this_sampler_is_refused(change: Any, error: type, message: str) -> None:
    _, sampler = linear(3, "reference")
    with pytest.raises(error, match=message):
        sampler.load_state_dict(changed(sampler.state_dict(), change))


def test_a_state_without_what_the_sampler_learned_is_refused() -> None:
    w = nn.Parameter(torch.zeros(2))
    sampler = make_sampler("adaptive_sghmc", [("w", w)])
    with pytest.raises(ValueError, match="the saved state of 'w' lacks 'mass', 'rho'"):
        sampler.load_state_dict(changed(sampler.state_dict(), lambda s: s["state"][0].clear()))


def test_what_a_prior_held_is_cast_and_compared_in_shape() -> None:
    wide = {"w": torch.zeros(3, 4, dtype=torch.float64)}
    state = SpikeSlab(wide, mode="em").state_dict()
    prior = SpikeSlab({"w": torch.zeros(3, 4)}, mode="em")
    prior.load_state_dict(state)
    assert prior.layers["w"].held.dtype == torch.float32
    with pytest.raises(ValueError, match=r"held of 'w' has shape \(12,\); this one's has \(6,\)"):
        SpikeSlab({"w": torch.zeros(3, 2)}, mode="em").load_state_dict(state)
    del state["layers"]["w"]["alive"]
    with pytest.raises(ValueError, match=r"this one has .*'alive'"):
        prior.load_state_dict(state)


# ---------------------------------------------------------------- what kernels are told


def test_a_table_takes_what_lies_like_its_weights() -> None:
    w = torch.zeros(2, 3)
    table = native.TensorTable([w], [0])
    mass = torch.full((2, 3), 2.0).t().contiguous().t()
    table.point(mass=[mass], mask=[torch.ones(2, 3)], gradient=[torch.ones(2, 3, dtype=torch.float64)])
    assert table.rows["mass"][0] != mass.data_ptr()  # a copy
    with pytest.raises(ValueError, match=r"shape \(3, 2\) belongs to a parameter of shape \(2, 3\)"):
        table.point(gradient=[torch.zeros(3, 2)])
    for bad in (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 6)[:, ::2], torch.zeros(1).expand(4)):
        with pytest.raises(ValueError, match="kernels need float32, on one device, without gaps"):
            native.TensorTable([bad], [0])


def test_a_copied_source_is_read_again_at_every_step() -> None:
    w = torch.zeros(2, 3)
    table = native.TensorTable([w], [0])
    mass = torch.ones(())
    for value in (1.0, 5.0):
        mass.fill_(value)
        table.point(mass=[mass])
        assert bool((table._kept["mass"][0] == value).all())


@pytest.mark.parametrize(
    "bad", [torch.zeros(4), torch.zeros(3, dtype=torch.float64), torch.zeros(6)[::2], torch.ones(3, dtype=torch.bool)]
)
def test_a_pointer_is_given_to_fitting_tensors_alone(bad: Tensor) -> None:
    assert pointer(None, 3) == 0
    with pytest.raises(ValueError, match="a kernel needs 3 contiguous entries"):
        pointer(bad, 3)


@pytest.mark.parametrize(
    ("x", "dense"),
    [
        (torch.zeros(2, 3), True),
        (torch.zeros(2, 3).t(), True),
        (torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), True),
        (torch.zeros(2, 6)[:, ::2], False),
        (torch.zeros(1).expand(3), False),
        (torch.zeros(0, 3), True),
    ],
)
def test_dense_means_without_gaps_or_overlaps(x: Tensor, dense: bool) -> None:
    assert is_dense(x) == dense
