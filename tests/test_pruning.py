"""Scores to masks: exact counts, whole groups, monotone, and the definitions of the Bayesian decisions."""

import copy
import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sgmcmc_prune.criteria.expected_loss import expected_loss
from sgmcmc_prune.criteria.inclusion import inclusion_log_odds
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.criteria.random import random
from sgmcmc_prune.criteria.signal_to_noise import SMALLEST_DEVIATION, signal_to_noise
from sgmcmc_prune.priors.groups import GROUP_KINDS, GroupMap
from sgmcmc_prune.pruning import allocation, batchnorm, decision, masks, schedule

quick = settings(max_examples=40, deadline=None, derandomize=True)

KINDS = (*GROUP_KINDS, "index")
SEEDS = st.integers(0, 2**31)
SPARSITIES = st.floats(0, 0.999)
SHAPES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
)
CONV = {"conv": (6, 3, 3, 3), "fc": (5, 24)}


def make_groups(shapes: dict[str, tuple[int, ...]], kind: str = "weight", seed: int = 0) -> dict[str, GroupMap]:
    if kind != "index":
        return {name: GroupMap(kind, shape) for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(seed)
    maps = {}
    for name, shape in shapes.items():
        raw = torch.randint(0, 5, shape, generator=generator)
        maps[name] = GroupMap.from_index(raw.unique(return_inverse=True)[1].view(shape))
    return maps


def count(mask: dict[str, Tensor]) -> int:
    return sum(int((~kept).sum()) for kept in mask.values())


def total(groups: dict[str, GroupMap]) -> int:
    return sum(int(group.group_size.sum()) for group in groups.values())


def group_kept(mask: dict[str, Tensor], groups: dict[str, GroupMap]) -> dict[str, Tensor]:
    """Per group: kept or not; fails unless whole groups were decided together."""
    kept = {}
    for name, group in groups.items():
        fraction = group.sum(mask[name].double()) / group.group_size
        assert set(fraction.tolist()) <= {0.0, 1.0}
        kept[name] = fraction == 1
    return kept


class TestCriteria:
    def test_magnitude_of_a_weight_is_its_absolute_value(self) -> None:
        weight = torch.randn(4, 3) * 1e-30
        score = magnitude({"w": weight}, make_groups({"w": (4, 3)}))["w"]
        torch.testing.assert_close(score, weight.abs().double().flatten(), rtol=1e-15, atol=0)

    def test_magnitude_of_a_group_is_its_root_mean_square(self) -> None:
        weight = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
        score = magnitude({"w": weight, "bias": torch.ones(2)}, make_groups({"w": (2, 2)}, "node"))["w"]
        torch.testing.assert_close(score, torch.tensor([12.5**0.5, 1.0]).double(), check_dtype=False)

    def test_signal_to_noise(self) -> None:
        mean, variance = torch.tensor([[0.0, -2.0], [0.0, 3.0]]), torch.tensor([[0.0, 0.0], [4.0, 4.0]])
        groups = make_groups({"w": (2, 2)})
        still = 2 / SMALLEST_DEVIATION  # finite, and above every weight that moved
        assert signal_to_noise({"w": mean}, {"w": variance}, groups)["w"].tolist() == [0, still, 0, 1.5]
        node = signal_to_noise({"w": mean}, {"w": variance}, make_groups({"w": (2, 2)}, "node"))["w"]
        assert node.tolist() == pytest.approx([still / math.sqrt(2), math.sqrt(1.5**2 / 2)])

    def test_expected_loss_of_a_linear_regression(self) -> None:
        """An orthogonal design. The exact rise is E[-w dL/dw] more, and that is -(1 - a E[w^2]) by equipartition."""
        generator, precision = torch.Generator().manual_seed(0), 0.7
        q, _ = torch.linalg.qr(torch.randn(9, 4, generator=generator, dtype=torch.float64))
        design = q * torch.tensor([3.0, 1.0, 0.3, 0.0])
        y = torch.randn(9, generator=generator, dtype=torch.float64)
        curvature = design.square().sum(0)
        variance = 1 / (curvature + precision)
        mean = variance * (design.T @ y)

        def loss(kept: list[float]) -> float:
            """The expectation over the posterior of half the sum of squares, the others at zero."""
            on = torch.tensor(kept, dtype=torch.float64)
            return float((y - design @ (on * mean)).square().sum() + (curvature * on * variance).sum()) / 2

        # Two draws at mean +- standard deviation have the moments of the posterior.
        draws = [{"w": (mean + sign * variance.sqrt()).view(2, 2)} for sign in (-1, 1)]
        at_draws = [{"w": curvature.view(2, 2)}] * 2
        first_order = precision * (mean.square() + variance) - 1
        score = expected_loss(draws, at_draws, make_groups({"w": (2, 2)}))["w"]
        rises = [loss([float(i != j) for i in range(4)]) - loss([1, 1, 1, 1]) for j in range(4)]
        assert (score + first_order).tolist() == pytest.approx([*rises[:3], float(first_order[3])], abs=1e-12)
        assert float(score[3]) == rises[3] == 0, "a weight that the data do not see"
        node = expected_loss(draws, at_draws, make_groups({"w": (2, 2)}, "node"))["w"]
        assert node.tolist() == pytest.approx([float(score[:2].sum()), float(score[2:].sum())])
        with pytest.raises(ValueError, match="2 draws and 1 curvatures"):
            expected_loss(draws, at_draws[:1], make_groups({"w": (2, 2)}))

    def test_log_odds_rank_where_the_probability_saturates(self) -> None:
        excluded = torch.tensor([-1e3, -1e6, -0.7, 0.0, -1e9], dtype=torch.float64)
        included = torch.tensor([0.0, 0.0, -0.7, -1e4, 0.0], dtype=torch.float64)
        score = inclusion_log_odds({"w": included}, {"w": excluded})["w"]
        assert score.argsort().tolist() == [3, 2, 0, 1, 4]
        mask = decision.target_sparsity({"w": score}, make_groups({"w": (5, 1)}), 0.6)
        assert mask["w"].flatten().tolist() == [False, True, False, False, True]

    @quick
    @given(SEEDS)
    def test_random_is_a_function_of_the_seed_alone(self, seed: int) -> None:
        groups, state = make_groups(CONV), torch.get_rng_state()
        first, again, other = (random(groups, s) for s in (seed, seed, seed + 1))
        assert torch.equal(torch.get_rng_state(), state)
        for name in groups:
            assert torch.equal(first[name], again[name])
            assert not torch.equal(first[name], other[name])

    def test_bad_input(self) -> None:
        groups, weight, double = make_groups({"w": (2, 2)}), torch.ones(2, 2), torch.ones(4, dtype=torch.float64)
        with pytest.raises(ValueError, match="no values for prunable parameter 'w'"):
            magnitude({}, groups)
        with pytest.raises(ValueError, match=re.escape("'w' has shape (4,); its groups need (2, 2)")):
            magnitude({"w": torch.ones(4)}, groups)
        with pytest.raises(ValueError, match="variance of 'w' is negative"):
            signal_to_noise({"w": weight}, {"w": -weight}, groups)
        with pytest.raises(ValueError, match="give the same"):
            inclusion_log_odds({"w": double}, {})
        with pytest.raises(TypeError, match=re.escape("excluded['w'] is torch.float32; average in torch.float64")):
            inclusion_log_odds({"w": -double}, {"w": -double.float()})
        for wrong in (double, double - math.inf):
            with pytest.raises(ValueError, match=re.escape("included['w'] is infinite or above 0")):
                inclusion_log_odds({"w": wrong}, {"w": -double})
        with pytest.raises(ValueError, match=re.escape("included has shape (4,), excluded (3,)")):
            inclusion_log_odds({"w": -double}, {"w": -double[:3]})


class TestAllocation:
    @quick
    @given(SHAPES, SPARSITIES)
    def test_erk_keeps_the_target_in_total(self, shapes: dict[str, tuple[int, ...]], sparsity: float) -> None:
        density = allocation.erdos_renyi_kernel(shapes, sparsity)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        assert all(0 < d <= 1 for d in density.values())
        kept = sum(density[name] * sizes[name] for name in shapes)
        assert kept == pytest.approx((1 - sparsity) * sum(sizes.values()), rel=1e-9)
        scale = {n: density[n] * sizes[n] / sum(shapes[n]) for n in shapes}
        sparse = [scale[name] for name in shapes if density[name] < 1]
        assert sparse == pytest.approx([sparse[0]] * len(sparse)) if sparse else True
        # A dense layer's share by the rule would have been at least 1.
        assert all(scale[n] <= min(sparse, default=math.inf) * (1 + 1e-9) for n in shapes if density[n] == 1)

    def test_erk_against_hand_calculation(self) -> None:
        # 'small' is made dense (6 weights); 'large' then keeps 110 - 6 of 1050... of its 1000 weights.
        density = allocation.erdos_renyi_kernel({"small": (2, 3), "large": (20, 50)}, 1 - 110 / 1006)
        assert density == {"small": 1.0, "large": pytest.approx(104 / 1000)}

    @pytest.mark.parametrize("sparsity", [-0.1, 1.0, math.nan])
    def test_bad_sparsity(self, sparsity: float) -> None:
        for allocate in (allocation.uniform, allocation.erdos_renyi_kernel):
            with pytest.raises(ValueError, match=re.escape("it is the fraction of weights to mask, in [0, 1)")):
                allocate(CONV, sparsity)


class TestTargetSparsity:
    @quick
    @given(SHAPES, SPARSITIES, st.sampled_from(decision.ALLOCATIONS), SEEDS, st.booleans())
    def test_weight_counts_are_exact(
        self, shapes: dict[str, tuple[int, ...]], sparsity: float, allocate: str, seed: int, allow_empty: bool
    ) -> None:
        groups = make_groups(shapes)
        scores = random(groups, seed)
        mask = decision.target_sparsity(scores, groups, sparsity, allocate, allow_empty=allow_empty)
        reachable = total(groups) - (0 if allow_empty else len(groups))
        assert count(mask) == min(round(sparsity * total(groups)), reachable)
        assert allow_empty or all(bool(kept.any()) for kept in mask.values())

    @quick
    @given(st.sampled_from(KINDS), SPARSITIES, st.sampled_from(decision.ALLOCATIONS), SEEDS)
    def test_whole_groups_and_nearly_the_target(self, kind: str, sparsity: float, allocate: str, seed: int) -> None:
        groups = make_groups(CONV, kind, seed)
        mask = decision.target_sparsity(random(groups, seed), groups, sparsity, allocate)
        kept = group_kept(mask, groups)
        assert all(bool(k.any()) for k in kept.values())
        largest = max(float(group.group_size.max()) for group in groups.values())
        budget = round(sparsity * total(groups))
        assert count(mask) <= budget
        # Unless only the best group of each layer is left, less than one group is missing.
        assert count(mask) > budget - largest or all(int(k.sum()) == 1 for k in kept.values())

    @quick
    @given(st.sampled_from(KINDS), SPARSITIES, SEEDS)
    def test_global_masks_the_lowest_scores(self, kind: str, sparsity: float, seed: int) -> None:
        groups = make_groups(CONV, kind, seed)
        scores = random(groups, seed)
        mask = decision.target_sparsity(scores, groups, sparsity, allow_empty=True)
        kept = torch.cat(list(group_kept(mask, groups).values()))
        pooled = torch.cat(list(scores.values()))
        if kept.any() and not kept.all():
            assert pooled[~kept].max() < pooled[kept].min()

    @quick
    @given(SPARSITIES, SEEDS)
    def test_layers_get_their_share(self, sparsity: float, seed: int) -> None:
        shapes = {"a": (20, 30), "b": (8, 4, 3, 3), "c": (10, 20)}
        groups = make_groups(shapes)
        scores = random(groups, seed)
        for allocate, rule in (("layerwise", allocation.uniform), ("erk", allocation.erdos_renyi_kernel)):
            density = rule(shapes, sparsity)
            mask = decision.target_sparsity(scores, groups, sparsity, allocate, allow_empty=True)
            for name, kept in mask.items():
                # Rounding one total over L layers moves a layer by at most 1 + L / 2 weights.
                assert abs(int(kept.sum()) - density[name] * kept.numel()) <= 2.5
                lost, left = scores[name][~kept.flatten()].tolist(), scores[name][kept.flatten()].tolist()
                assert max(lost, default=0.0) < min(left, default=1.0)

    @quick
    @given(st.sampled_from(KINDS), st.sampled_from(decision.ALLOCATIONS), SEEDS)
    def test_monotone_along_the_cubic_schedule(self, kind: str, allocate: str, seed: int) -> None:
        groups = make_groups(CONV, kind, seed)
        previous = None
        for step in range(0, 60, 10):
            sparsity = schedule.cubic_sparsity(step, 5, 45, 0.1, 0.95)
            scores = random(groups, seed + step)  # the ranking changes entirely
            mask = decision.target_sparsity(scores, groups, sparsity, allocate, previous=previous)
            group_kept(mask, groups)
            assert previous is None or not any(bool((kept & ~previous[name]).any()) for name, kept in mask.items())
            assert all(bool(kept.any()) for kept in mask.values())
            assert kind != "weight" or count(mask) == round(sparsity * total(groups))
            previous = mask

    def test_previous_stays_masked_above_the_target_and_with_high_scores(self) -> None:
        groups = make_groups({"w": (2, 2)})
        scores = {"w": torch.tensor([9.0, 8.0, 1.0, 2.0])}
        previous = {"w": torch.tensor([[False, False], [True, True]])}
        assert torch.equal(decision.target_sparsity(scores, groups, 0.0, previous=previous)["w"], previous["w"])
        mask = decision.target_sparsity(scores, groups, 0.75, previous=previous)
        assert mask["w"].flatten().tolist() == [False, False, False, True]

    def test_infinite_and_half_precision_scores_are_ranked(self) -> None:
        groups = make_groups({"w": (2, 2)}, "node")
        mask = decision.target_sparsity({"w": torch.tensor([math.inf, -math.inf]).bfloat16()}, groups, 0.5)
        assert mask["w"].tolist() == [[True, True], [False, False]]

    def test_bad_input(self) -> None:
        groups, scores = make_groups({"w": (2, 2)}, "node"), {"w": torch.tensor([1.0, 2.0])}
        with pytest.raises(ValueError, match=re.escape("sparsity is 1.0")):
            decision.target_sparsity(scores, groups, 1.0)
        with pytest.raises(ValueError, match="allocation is 'local'; choose one of global, layerwise, erk"):
            decision.target_sparsity(scores, groups, 0.5, "local")
        with pytest.raises(ValueError, match=re.escape("scores are for ['v'], groups for ['w']")):
            decision.target_sparsity({"v": scores["w"]}, groups, 0.5)
        with pytest.raises(ValueError, match="one at least"):
            decision.target_sparsity({}, {}, 0.5)
        with pytest.raises(ValueError, match=re.escape("scores of 'w' have shape (4,); give (2,)")):
            decision.target_sparsity({"w": torch.ones(4)}, groups, 0.5)
        with pytest.raises(ValueError, match="scores of 'w' hold NaN"):
            decision.target_sparsity({"w": scores["w"] * math.nan}, groups, 0.5)
        torn = {"w": torch.tensor([[True, False], [True, True]])}
        with pytest.raises(ValueError, match="masks a part of a node group"):
            decision.target_sparsity(scores, groups, 0.5, previous=torn)
        for wrong in ({}, {"w": torn["w"].float()}, {"w": torn["w"][0]}):
            with pytest.raises(ValueError, match=re.escape("no boolean tensor of shape (2, 2) for 'w'")):
                decision.target_sparsity(scores, groups, 0.5, previous=wrong)
            with pytest.raises(ValueError, match=re.escape("no boolean tensor of shape (2, 2) for 'w'")):
                decision.match_layer_sparsity(scores, groups, wrong)


class TestBayesianDecisions:
    @quick
    @given(st.sampled_from(GROUP_KINDS), SPARSITIES, SEEDS)
    def test_random_control_matches_every_layer(self, kind: str, sparsity: float, seed: int) -> None:
        groups = make_groups(CONV, kind)
        weights = {
            name: torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for name, shape in CONV.items()
        }
        reference = decision.target_sparsity(magnitude(weights, groups), groups, sparsity, allow_empty=True)
        control = decision.match_layer_sparsity(random(groups, seed), groups, reference)
        group_kept(control, groups)
        counts = [{name: int(kept.sum()) for name, kept in mask.items()} for mask in (control, reference)]
        assert counts[0] == counts[1]

    @quick
    @given(st.sampled_from(KINDS), SEEDS)
    def test_median_model(self, kind: str, seed: int) -> None:
        groups = make_groups(CONV, kind, seed)
        inclusion = random(groups, seed)
        inclusion["fc"][0] = 0.5
        kept = group_kept(decision.median_probability_model(inclusion, groups), groups)
        assert all(torch.equal(kept[name], inclusion[name] >= 0.5) for name in groups)

    @quick
    @given(st.sampled_from(KINDS), st.floats(0, 1), SEEDS)
    def test_false_discovery_rate_is_met_by_a_maximal_set(self, kind: str, level: float, seed: int) -> None:
        groups = make_groups(CONV, kind, seed)
        inclusion = {name: p**0.3 for name, p in random(groups, seed).items()}
        decided = group_kept(decision.bayesian_false_discovery_rate(inclusion, groups, level), groups)
        kept = torch.cat([decided[name] for name in groups])
        exclusion = 1 - torch.cat([inclusion[name] for name in groups])
        assert not kept.any() or float(exclusion[kept].mean()) <= level + 1e-12
        if not kept.all():
            # The cheapest set with one more group breaks the bound, so every such set does.
            assert float(exclusion.sort().values[: int(kept.sum()) + 1].mean()) > level - 1e-12

    def test_false_discovery_rate_at_the_ends(self) -> None:
        groups = make_groups({"w": (1, 3)})
        inclusion = {"w": torch.tensor([1.0, 0.75, 0.0])}
        expected = {0.0: [True, False, False], 0.125: [True, True, False], 1.0: [True, True, True]}
        for level, kept in expected.items():
            mask = decision.bayesian_false_discovery_rate(inclusion, groups, level)
            assert mask["w"].flatten().tolist() == kept
        nothing = decision.bayesian_false_discovery_rate({"w": torch.zeros(3)}, groups, 0.5)
        assert not nothing["w"].any()

    def test_bad_input(self) -> None:
        groups = make_groups({"w": (1, 2)})
        with pytest.raises(ValueError, match=re.escape("false discovery level is 1.5; it must be in [0, 1]")):
            decision.bayesian_false_discovery_rate({"w": torch.ones(2)}, groups, 1.5)
        with pytest.raises(ValueError, match=re.escape("inclusion of 'w' leaves [0, 1]; give probabilities")):
            decision.median_probability_model({"w": torch.tensor([-3.0, 3.0])}, groups)


class TestSchedule:
    @quick
    @given(st.integers(-100, 100), st.integers(1, 100), st.floats(0, 0.5), st.floats(0.5, 0.99))
    def test_cubic_is_exact_at_the_ends_and_rises(self, begin: int, length: int, initial: float, final: float) -> None:
        end = begin + length
        values = [schedule.cubic_sparsity(t, begin, end, initial, final) for t in range(begin - 2, end + 3)]
        assert values[:3] == [initial] * 3
        assert values[-3:] == [final] * 3
        assert all(later >= earlier - 1e-15 for earlier, later in itertools.pairwise(values))

    def test_halfway(self) -> None:
        assert schedule.cubic_sparsity(50, 0, 100, 0.0, 0.8) == pytest.approx(0.7)

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="begins at step 5 and ends at 5; begin must be before end"):
            schedule.cubic_sparsity(0, 5, 5, 0.0, 0.5)
        with pytest.raises(ValueError, match=re.escape("initial sparsity 0.6 is above final sparsity 0.5")):
            schedule.cubic_sparsity(0, 0, 5, 0.6, 0.5)
        with pytest.raises(ValueError, match=re.escape("sparsity is 1.0")):
            schedule.cubic_sparsity(0, 0, 5, 0.6, 1.0)


class TestMasks:
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))

    def mask(self) -> masks.Mask:
        return {"0.weight": torch.arange(18).view(2, 1, 3, 3) % 3 == 0, "3.weight": torch.ones(2, 8, dtype=torch.bool)}

    def test_prunable_leaves_out_vectors(self) -> None:
        assert list(masks.prunable(self.model())) == ["0.weight", "3.weight"]

    def test_apply_gives_positive_zeros_and_leaves_the_rest(self) -> None:
        model, mask = self.model(), self.mask()
        parameters = masks.prunable(model)
        with torch.no_grad():
            parameters["0.weight"][0, 0, 0, 1] = math.nan
        before = {name: p.detach().clone() for name, p in parameters.items()}
        masks.apply(mask, dict(model.named_parameters()))
        for name, kept in mask.items():
            assert torch.equal(parameters[name][kept], before[name][kept])
            assert torch.equal(
                parameters[name][~kept].view(torch.int32), torch.zeros(int((~kept).sum()), dtype=torch.int32)
            )

    def test_sparsities(self) -> None:
        model, mask = self.model(), self.mask()
        assert masks.sparsity(mask) == 12 / 34
        assert masks.total_sparsity(mask, model) == 12 / (34 + 2 + 4 + 2)
        assert masks.sparsity({}) == 0

    def test_a_layer_is_starved_when_one_input_or_one_output_is_left(self) -> None:
        mask = self.mask()
        assert masks.starved(mask) == []
        one_output, one_input = (torch.zeros(2, 8, dtype=torch.bool) for _ in range(2))
        one_output[1] = True
        one_input[:, 3] = True
        for kept in (one_output, one_input, torch.zeros_like(one_input)):
            assert masks.starved({**mask, "3.weight": kept}) == ["3.weight"]
        assert masks.starved({"only input": torch.ones(4, 1, dtype=torch.bool)}) == []

    @given(SEEDS, SPARSITIES, st.sampled_from(KINDS))
    @settings(max_examples=10, deadline=None, derandomize=True)
    def test_save_and_load(
        self, tmp_path_factory: pytest.TempPathFactory, seed: int, sparsity: float, kind: str
    ) -> None:
        groups = make_groups(CONV, kind, seed)
        mask = decision.target_sparsity(random(groups, seed), groups, sparsity)
        path = tmp_path_factory.mktemp("mask") / "chain0-0.90.safetensors"
        masks.save(path, {name: ~kept for name, kept in mask.items()})
        masks.save(path, mask)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        loaded = masks.load(path)
        assert loaded.keys() == mask.keys()
        assert all(torch.equal(loaded[name], mask[name]) for name in mask)

    def test_a_failed_save_keeps_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, mask = tmp_path / "mask.safetensors", self.mask()
        masks.save(path, mask)

        def fail(_: int) -> None:
            raise OSError("disk full")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            masks.save(path, {name: ~kept for name, kept in mask.items()})
        assert list(tmp_path.iterdir()) == [path]
        assert torch.equal(masks.load(path)["0.weight"], mask["0.weight"])

    def test_bad_input(self, tmp_path: Path) -> None:
        weight = {"w": torch.ones(2, 2)}
        with pytest.raises(ValueError, match=re.escape("the mask names 'v', which is no parameter")):
            masks.apply({"v": torch.ones(2, 2, dtype=torch.bool)}, weight)
        with pytest.raises(TypeError, match=re.escape("the mask of 'w' is torch.float32; it must be torch.bool")):
            masks.apply(weight, weight)
        with pytest.raises(ValueError, match=re.escape("the mask of 'w' has shape (2,), not (2, 2)")):
            masks.apply({"w": torch.ones(2, dtype=torch.bool)}, weight)
        with pytest.raises(TypeError, match=re.escape("must be torch.bool")):
            masks.save(tmp_path / "mask", weight)
        (tmp_path / "broken").write_bytes(b"not a mask")
        with pytest.raises(ValueError, match="broken is not a whole file of tensors"):
            masks.load(tmp_path / "broken")
        with pytest.raises(FileNotFoundError):
            masks.load(tmp_path / "absent")


class TestBatchNorm:
    def model(self) -> nn.Sequential:
        return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.3))

    def test_equals_the_moments_of_the_data(self) -> None:
        model, batches = self.model(), [torch.randn(16, 3) * 5 + 2 for _ in range(4)]
        assert batchnorm.reestimate(model, iter(batches)) == 2
        data, first = torch.cat(batches), model[0]
        torch.testing.assert_close(first.running_mean, data.mean(0))
        torch.testing.assert_close(first.running_var, torch.stack([batch.var(0) for batch in batches]).mean(0))
        batchnorm.reestimate(model, [data])
        torch.testing.assert_close(first.running_var, data.var(0))
        # No dropout in between: the second layer sees the first one's standardised output.
        second = model[2]
        torch.testing.assert_close(second.running_mean, torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(second.running_var, torch.full((3,), 64 / 63), atol=1e-4, rtol=0)

    def test_restores_modes_and_momenta(self) -> None:
        model = self.model().train()
        model[2].eval()
        batchnorm.reestimate(model, [torch.randn(4, 3)])
        assert [module.training for module in model.modules()] == [True, True, True, False]
        assert [model[0].momentum, model[2].momentum] == [0.1, 0.3]
        with pytest.raises(RuntimeError, match="running_mean"):
            batchnorm.reestimate(model, [torch.randn(4, 5)])
        assert [module.training for module in model.modules()] == [True, True, True, False]
        assert model[0].momentum == 0.1

    def test_without_batchnorm_nothing_is_read(self) -> None:
        untracked = nn.BatchNorm1d(2, track_running_stats=False)
        assert batchnorm.reestimate(nn.Sequential(nn.Linear(2, 2), untracked), []) == 0

    def test_without_batches_the_old_statistics_stay(self) -> None:
        model = self.model()
        batchnorm.reestimate(model, [torch.randn(4, 3)])
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match="no batch to re-estimate BatchNorm from"):
            batchnorm.reestimate(model, [])
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
