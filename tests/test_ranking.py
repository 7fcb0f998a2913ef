"""A ranking does not depend on the order of layers, of units or of inputs, for any criterion, group, mode and T."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sgmcmc_prune.chains.pruner import Pruner
from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.priors import GROUP_KINDS, GroupMap, SpikeSlab
from sgmcmc_prune.pruning.decision import ALLOCATIONS, target_sparsity, tied
from sgmcmc_prune.pruning.inclusion import InclusionAverage, Moments
from sgmcmc_prune.run.decide import chain_scores

Draw = dict[str, Tensor]
SHAPES = {"conv": (6, 4, 3, 3), "wide": (8, 60), "line": (5, 6, 4), "narrow": (10, 8)}
MODES = {
    "inclusion_probability": ("marginal", "gibbs"),
    "em_responsibility": ("em",),
    "expected_log_odds": ("marginal", "gibbs", "em"),
    "magnitude": ("marginal",),
    "signal_to_noise": ("marginal",),
}
CHOICES = [(criterion, mode) for criterion, modes in MODES.items() for mode in modes]
TEMPERATURES = (1.0, 1e-3, 1e-6, 0.0)


def draws_of(seed: int, width: float = 0.1) -> list[Draw]:
    """Four states of a chain around a network whose weights have sizes of many orders."""
    g = torch.Generator().manual_seed(seed)
    centre = {n: width * torch.randn(s, generator=g) * torch.rand(s[0], *[1] * (len(s) - 1), generator=g)
              for n, s in SHAPES.items()}  # fmt: skip
    return [{n: w * (1 + 0.05 * torch.randn(w.shape, generator=g)) for n, w in centre.items()} for _ in range(4)]


def prior_of(draw: Draw, group: str, mode: str) -> SpikeSlab:
    groups = {n: GroupMap(group, tuple(w.shape)) for n, w in draw.items()}
    return SpikeSlab(draw, group=groups, mode=mode, spike_variance=1e-4, slab_variance=0.05)  # type: ignore[arg-type]


def scores_post_hoc(draws: list[Draw], prior: SpikeSlab, criterion: str, temperature: float) -> Draw:
    """Scores of a finished chain, as `evaluate` computes them."""
    averages = {n: InclusionAverage() for n in draws[0]}
    moments = {n: Moments() for n in draws[0]}
    for draw in draws:
        for n, w in draw.items():
            averages[n].update(prior.log_odds(n, w), prior.indicator_temperature(temperature))
            moments[n].update(w)
    state = {"inclusion": {n: a.state_dict() for n, a in averages.items()}}
    state["moments"] = {n: m.state_dict() for n, m in moments.items()}
    return chain_scores(criterion, state, groups_of(prior), 0)


def groups_of(prior: SpikeSlab) -> dict[str, GroupMap]:
    return {n: layer.groups for n, layer in prior.layers.items()}


def mask_post_hoc(draws: list[Draw], group: str, mode: str, criterion: str, temperature: float, allocation: str) -> Any:
    prior = prior_of(draws[0], group, mode)
    scores = scores_post_hoc(draws, prior, criterion, temperature)
    # Cold draws that disagree have equal shares; there the magnitude decides, as in `evaluate`.
    sizes = magnitude({n: torch.stack([d[n] for d in draws]).mean(0) for n in draws[0]}, groups_of(prior))
    return target_sparsity(scores, groups_of(prior), 0.6, allocation, second=sizes)


def mask_in_chain(draws: list[Draw], group: str, mode: str, criterion: str, temperature: float, allocation: str) -> Any:
    prior = prior_of(draws[0], group, mode)
    pruner = Pruner(criterion, (0.6,), groups_of(prior), allocation=allocation, smoothing=0.3)
    lr = {"lr": 0.1, "lr_explore": 0.1, "lr_min": 0.1, "momentum": 0.9, "temperature": temperature}
    schedule = Cyclical(**lr, burn_in=0, cycles=1, explore=19, sample=4)  # type: ignore[arg-type]
    for step, draw in enumerate(draws[:-1], 1):
        pruner.update(step, schedule(step), draw, prior)
    return pruner.update(19, schedule(19), draws[-1], prior)


def turned(tensor: Tensor, orders: tuple[Tensor, Tensor]) -> Tensor:
    """The units and the inputs of a layer in another order."""
    return tensor[orders[0]][:, orders[1]]


@pytest.mark.parametrize("how", [mask_post_hoc, mask_in_chain])
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(CHOICES),
    st.sampled_from(GROUP_KINDS),
    st.sampled_from(TEMPERATURES),
    st.sampled_from(ALLOCATIONS),
    st.integers(0, 10**6),
)
def test_a_ranking_does_not_depend_on_any_order(
    how: Any, choice: tuple[str, str], group: str, temperature: float, allocation: str, seed: int
) -> None:
    criterion, mode = choice
    draws = draws_of(seed)
    g = torch.Generator().manual_seed(seed + 1)
    orders = {n: (torch.randperm(s[0], generator=g), torch.randperm(s[1], generator=g)) for n, s in SHAPES.items()}
    mask = how(draws, group, mode, criterion, temperature, allocation)
    names = list(reversed(SHAPES))
    other = how(
        [{n: turned(d[n], orders[n]) for n in names} for d in draws], group, mode, criterion, temperature, allocation
    )
    for n in SHAPES:
        assert torch.equal(turned(mask[n], orders[n]), other[n]), n


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("group", GROUP_KINDS)
@pytest.mark.parametrize(("criterion", "mode"), CHOICES)
def test_no_score_is_infinite_or_rounded(criterion: str, mode: str, group: str, temperature: float) -> None:
    """Log-odds in the thousands over T = 1e-6 are still apart; cold draws that disagree may have equal shares."""
    draws = draws_of(3, width=1.0)
    scores = scores_post_hoc(draws, prior_of(draws[0], group, mode), criterion, temperature)
    pooled = torch.cat(list(scores.values()))
    assert pooled.isfinite().all()
    far = pooled[pooled.abs() > math.log(len(draws)) + 1e-9]
    assert len(far) > 0.9 * len(pooled) or criterion in ("magnitude", "signal_to_noise") or temperature == 1
    assert len(far.unique()) == len(far)


@pytest.mark.parametrize("mode", ["gibbs", "em"])
def test_a_cold_chain_ranks_as_a_warm_one_where_its_draws_agree(mode: str) -> None:
    criterion = "em_responsibility" if mode == "em" else "inclusion_probability"
    draws = draws_of(5)[:1] * 4
    scores = [scores_post_hoc(draws, prior_of(draws[0], "weight", mode), criterion, t) for t in TEMPERATURES]
    for cold in scores[1:]:
        for name, warm in scores[0].items():
            assert torch.equal(cold[name].argsort(), warm.argsort()), name


def test_a_criterion_that_is_only_named_is_refused() -> None:
    with pytest.raises(ValueError, match="criterion is 'second_moment'; choose one of inclusion_probability"):
        chain_scores("second_moment", {"inclusion": {}, "moments": {}}, {}, 0)
    with pytest.raises(ValueError, match="criterion is 'second_moment'"):
        make_criterion("second_moment")


# --- ties ----------------------------------------------------------------------------------------------------------


def maps(shapes: dict[str, tuple[int, ...]]) -> dict[str, GroupMap]:
    return {name: GroupMap("weight", shape) for name, shape in shapes.items()}


def test_equal_scores_go_by_the_second_score() -> None:
    groups = maps({"a": (2, 2), "b": (1, 3)})
    scores = {"b": torch.zeros(3), "a": torch.tensor([0.0, 0.0, 0.0, -1.0])}
    second = {"a": torch.tensor([3.0, 1.0, 5.0, 9.0]), "b": torch.tensor([4.0, 0.0, 2.0])}
    mask = target_sparsity(scores, groups, 4 / 7, second=second)
    assert mask["a"].flatten().tolist() == [True, False, True, False]
    assert mask["b"].flatten().tolist() == [True, False, False]
    assert tied(scores, groups, mask) == 6
    assert tied(scores, groups, mask, "layerwise") == 3 + 3


def test_scores_that_are_equal_throughout_go_by_chance_not_by_position() -> None:
    """The mean position of the kept half is within four standard deviations of the middle: false alarm 6e-5."""
    groups = maps({"w": (100, 100)})
    scores = {"w": torch.zeros(10_000)}
    mask = target_sparsity(scores, groups, 0.5)
    where = mask["w"].flatten().nonzero().double().mean()
    assert abs(float(where) - 4999.5) < 4 * 10_000 / math.sqrt(12 * 5000)
    assert torch.equal(mask["w"], target_sparsity(scores, groups, 0.5)["w"])
    assert not torch.equal(mask["w"], target_sparsity(scores, groups, 0.5, seed=1)["w"])
    assert tied(scores, groups, mask) == 10_000


def test_what_chance_decides_in_a_layer_does_not_depend_on_the_order_of_layers() -> None:
    shapes = {"a": (4, 5), "b": (6, 3), "c": (2, 9)}
    groups, scores = maps(shapes), {name: torch.zeros(math.prod(s)) for name, s in shapes.items()}
    for allocation_ in ALLOCATIONS:
        mask = target_sparsity(scores, groups, 0.3, allocation_)
        turned = {name: groups[name] for name in ("c", "a", "b")}
        again = target_sparsity(scores, turned, 0.3, allocation_)
        assert all(torch.equal(mask[name], again[name]) for name in shapes)


def test_only_groups_with_the_score_of_an_opposite_fate_are_tied() -> None:
    groups = maps({"w": (6, 1)})
    scores = {"w": torch.tensor([1.0, 2.0, 2.0, 2.0, 3.0, 3.0])}
    masks_ = [target_sparsity(scores, groups, s) for s in (1 / 6, 2 / 6, 4 / 6)]
    assert [tied(scores, groups, m) for m in masks_] == [0, 3, 0]


def test_infinite_scores_are_ties_too() -> None:
    groups = maps({"a": (20, 10), "b": (20, 10)})
    scores = {name: torch.full((200,), math.inf) for name in groups}
    mask = target_sparsity(scores, groups, 0.5)
    assert all(60 < int(kept.sum()) < 140 for kept in mask.values())
    assert tied(scores, groups, mask) == 400


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 20, 10**6]), st.floats(0, 0.99), st.floats(0, 0.99), st.booleans())
def test_a_threshold_masks_what_the_ranking_masks(
    seed: int, values: int, sparsity: float, before: float, allow_empty: bool
) -> None:
    """Whether scores are equal in hundreds or not at all, with and without a mask that was there before."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"a": (7, 5), "b": (3, 4, 2), "c": (1, 2)}
    groups = maps(shapes) | {"c": GroupMap.from_index(torch.tensor([[1, 0]]))}
    scores = {n: torch.randint(values, (math.prod(s),), generator=g).double() for n, s in shapes.items()}
    previous = {n: torch.rand(s, generator=g) >= before for n, s in shapes.items()} if before > 0.1 else None
    with pytest.MonkeyPatch.context() as patch:
        given_twice = {"previous": previous, "allow_empty": allow_empty, "seed": seed}
        quick = target_sparsity(scores, groups, sparsity, **given_twice)  # type: ignore[arg-type]
        patch.setattr("sgmcmc_prune.pruning.decision._below_threshold", lambda *_: None)
        ranked = target_sparsity(scores, groups, sparsity, **given_twice)  # type: ignore[arg-type]
    assert all(torch.equal(quick[n], ranked[n]) for n in shapes)
