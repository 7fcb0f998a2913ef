"""The structured track: whole units go, the same share of every layer, and what is left after the cut is counted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sgmcmc_prune import cli
from sgmcmc_prune.baselines.taylor import Taylor
from sgmcmc_prune.compare.cell import load_problem
from sgmcmc_prune.compare.comparison import compare
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.method import Problem
from sgmcmc_prune.compare.methods import ALL, TRACKS, find
from sgmcmc_prune.compare.score import blank, rows
from sgmcmc_prune.compare.table import default_reference
from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.report.style import FAMILIES, OWN, UNITS, method_colour
from sgmcmc_prune.run.config import DataConfig, ModelConfig

GATED = {"ss-ig", "ss-gl", "ss-ghs"}


def small(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 10), nn.Tanh(), nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 10)
    )


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    comparison = Comparison(
        track="structured",
        sparsities=(0.5,),
        seeds=(0,),
        epochs=8,
        members=3,
        data=DataConfig(validation=6500, batch_size=25),
        model=ModelConfig(name=f"{__name__}:small"),
    )
    found, _ = load_problem(comparison, tmp_path_factory.mktemp("structured"), 0)
    inputs, labels = found.data.validation
    return replace(found, data=replace(found.data, validation=(inputs[:300], labels[:300])))


@pytest.mark.parametrize("name", sorted(TRACKS["structured"].keys() - GATED - {"dense"}))
def test_half_of_the_units_of_every_layer_go(problem: Problem, name: str, tmp_path: Path) -> None:
    """So one network of each method has one cost: what is left is 49 x 5 + 5 x 3 + 3 x 10 multiply-adds."""
    (candidate,) = find(name).fit(problem, tmp_path)
    (mask,) = candidate.masks
    for layer, units in (("2.weight", 5), ("4.weight", 3)):
        assert torch.equal(mask[layer].any(1), mask[layer].all(1)), "whole units"
        assert int(mask[layer].all(1).sum()) == units
    assert bool(mask["6.weight"].all()), "outputs stay"
    assert abs(candidate.cost.gradient_evaluations / (problem.epochs * problem.num_data) - 1) <= 0.005
    single, _ = rows(find(name), 0, candidate, problem.network(), problem.data.validation, None)
    assert single["cut_flops"] == 49 * 5 + 5 * 3 + 3 * 10
    assert single["flops"] == 49 * 5 + 10 * 3 + 6 * 10
    assert single["accuracy"] > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GATED))
def test_methods_with_gates_lose_units_too(problem: Problem, name: str, tmp_path: Path) -> None:
    candidate = next(c for c in find(name).fit(problem, tmp_path) if c.target == 0.5)
    single, _ = rows(find(name), 0, candidate, problem.network(), problem.data.validation, None)
    assert single["cut_flops"] < multiply_adds(problem.network(), problem.data.validation[0][:1])


def test_dense_keeps_everything(problem: Problem, tmp_path: Path) -> None:
    (candidate,) = find("dense").fit(problem, tmp_path)
    single, _ = rows(find("dense"), 0, candidate, problem.network(), problem.data.validation, None)
    assert (single["sparsity"], single["achieved_sparsity"]) == (None, 0)
    assert single["cut_flops"] == single["flops"] == 49 * 10 + 10 * 6 + 6 * 10


def test_taylor_is_the_squared_change_of_the_loss_to_first_order() -> None:
    """A loss that is linear in the weights changes by exactly that much; the mean runs over two minibatches."""
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    groups, slopes = {"w": GroupMap("filter", (3, 4))}, torch.randn(2, 3, 4, dtype=torch.float64)
    taylor, changes = Taylor(groups, decay=0.75), []
    for slope in slopes:
        w.grad = None
        (slope * w).sum().backward()
        taylor.observe({"w": w})
        changes.append((slope * w).sum(1).detach().square())  # of the loss, without this row
    expected = 0.75 * changes[0] + 0.25 * changes[1]
    torch.testing.assert_close(taylor({"w": w}, groups)["w"], expected)


def test_methods_of_single_weights_are_refused(tmp_path: Path) -> None:
    comparison = Comparison(track="structured", methods=("snip",), data=DataConfig(name="fashion-mnist"))
    with pytest.raises(
        ValueError, match="method snip is one of the track trained; the track structured has filter-norm, "
    ):
        compare(comparison, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_comparison_without_a_result_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = [blank(find("synflow"), 0, "does not apply: it bends")]
    monkeypatch.setattr("sgmcmc_prune.compare.comparison.compare", lambda *_: empty)
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", "--methods", "synflow"])
    assert stop.value.code == 1
    assert "synflow, seed 0: does not apply: it bends" in capsys.readouterr().out
    assert default_reference(empty) == "synflow"


def test_methods_are_told_apart_by_colour_and_have_it_everywhere() -> None:
    ours = {name: method_colour(name, method.family) for name, method in ALL.items()}
    units = [colour for name, colour in ours.items() if name.startswith("filter-") or name == "dense"]
    assert len(units) == len(set(units)) == 6
    families = {method.family: ours[name] for name, method in ALL.items() if name not in UNITS}
    assert len(set(families.values())) == len(families) == len(FAMILIES)
    assert not {ours[name] for name in GATED} & {*units}
    assert method_colour("own_method:fit", "own") in OWN
