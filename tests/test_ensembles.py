"""The track of ensembles: one network and several at equal weights, an equal budget, and scores of all together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.ours import ensembles
from sgmcmc_prune.compare.cell import compute, load_problem
from sgmcmc_prune.compare.comparison import compare
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.method import Problem
from sgmcmc_prune.compare.methods import TRACKS, find
from sgmcmc_prune.compare.score import COLUMNS, blank
from sgmcmc_prune.compare.table import default_reference, read_csv, summary
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.run.config import DataConfig, ModelConfig

SEVERAL = {"inclusion-draws", "inclusion-chains", "gradual-ensemble", "rigl-ensemble"}
MEMBERS = 3


def coarse(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 20), nn.ReLU(), nn.Linear(20, num_classes))


def small(**changes: object) -> Comparison:
    settings: dict[str, object] = {
        "track": "ensembles",
        "sparsities": (0.7,),
        "seeds": (0,),
        "epochs": 9,
        "members": MEMBERS,
        "data": DataConfig(validation=6500, batch_size=25),
        "model": ModelConfig(name=f"{__name__}:coarse"),
    }
    return Comparison(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    found, _ = load_problem(small(), tmp_path_factory.mktemp("ensembles"), 0)
    inputs, labels = found.data.validation
    return replace(found, data=replace(found.data, validation=(inputs[:300], labels[:300])))


@pytest.mark.parametrize("name", TRACKS["ensembles"])
def test_all_have_the_same_weights_and_the_same_budget(problem: Problem, name: str, tmp_path: Path) -> None:
    candidates, inputs = list(find(name).fit(problem, tmp_path)), problem.data.validation[0]
    assert [candidate.target for candidate in candidates] == [0.7]
    for candidate in candidates:
        assert candidate.members == (MEMBERS if name in SEVERAL else 1)
        each = [candidate.masks[m % len(candidate.masks)] for m in range(candidate.members)]
        together = sum(1 - masks.sparsity(mask) for mask in each)
        assert together == pytest.approx(1 - (candidate.target or 0), abs=0.005)
        spent = candidate.cost.gradient_evaluations / (problem.epochs * problem.num_data)
        assert spent == pytest.approx(1, abs=0.005)
        assert torch.equal(candidate.predict(inputs), candidate.single(inputs)) == (name not in SEVERAL)


@pytest.mark.parametrize("name", ["gradual-ensemble", "rigl-ensemble", "inclusion-chains"])
def test_members_start_apart(problem: Problem, name: str, tmp_path: Path) -> None:
    candidate = next(find(name).fit(problem, tmp_path))
    first, second, _ = (mask["2.weight"] for mask in candidate.masks)
    assert (first & second).sum() < 0.5 * first.sum()
    single, together = (predict(problem.data.validation[0]) for predict in (candidate.single, candidate.predict))
    assert (single - together).abs().mean() > 0.01


def test_the_table_counts_all_networks_together(tmp_path: Path) -> None:
    methods = ("gradual-magnitude", "gradual-ensemble")
    asked = small(methods=methods, sparsities=(0.7,), ood="fashion-mnist-subset")
    rows = [row for name in methods for row in compute(asked, tmp_path, name, 0)]
    said = summary(rows, default_reference(rows), "ensembles")
    table = said.split("\n\n")[0].splitlines()
    kept = {line.split()[0]: line.split()[2:4] for line in table if line.startswith("gradual")}
    assert kept["gradual-magnitude"] == ["1", "30.0%"]
    assert kept["gradual-ensemble"][0] == "3"
    assert float(kept["gradual-ensemble"][1].rstrip("%")) == pytest.approx(30, abs=0.5)
    assert "minus gradual-magnitude, paired by seed" in said
    assert "AUROC" in said.splitlines()[1]


def test_differences_are_paired_by_seed_in_every_score() -> None:
    rows = []
    for seed in (0, 1):
        for name, gap in (("gradual-magnitude", 0.0), ("rigl-ensemble", 0.1)):
            scores = {"accuracy": 0.5, "nll": 0.4, "ece": 0.3, "brier": 0.2, "ood_auroc": 0.6}
            numbers = {score: value + seed / 5 + gap for score, value in scores.items()}
            made = dict.fromkeys(COLUMNS) | blank(find(name), seed) | numbers
            made |= {"kind": "ensemble", "sparsity": 0.9, "members": 3, "achieved_sparsity": 0.97, "inference_flops": 6}
            rows.append(made | {"search_evaluations": 0})
    line = next(line for line in summary(rows, "gradual-magnitude", "ensembles").splitlines() if "rigl" in line)
    assert line.count("0.1000 ± 0.0000") == 5
    assert "0.7000 ± 1.2706" in line, "of an accuracy the scatter between seeds stays"


@pytest.mark.parametrize(("name", "track"), [("rigl-ensemble", "trained"), ("snip", "ensembles")])
def test_methods_of_another_track_are_refused(name: str, track: str, tmp_path: Path) -> None:
    """There their sparsity is of each network."""
    with pytest.raises(ValueError, match=f"method {name} is one of the track .*; the track {track} has"):
        compare(small(track=track, methods=(name,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_committed_table_has_one_budget_and_equal_weights() -> None:
    table = ensembles.RESULTS / "ensembles_mlp.csv"
    rows = [row for row in read_csv(table) if row["kind"] == "ensemble"]
    budget = ensembles.COMPARISON.epochs * 10_000
    assert {row["method"] for row in rows} == set(TRACKS["ensembles"])
    for row in rows:
        assert row["gradient_evaluations"] == pytest.approx(budget, rel=0.005)
        assert row["members"] * (1 - row["achieved_sparsity"]) == pytest.approx(1 - row["sparsity"], abs=1e-4)
    assert summary(read_csv(table), "gradual-magnitude", "ensembles") in table.with_suffix(".md").read_text()
