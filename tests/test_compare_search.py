"""The search: the best point of a planted grid, validation images alone, finished trials, its place in the table."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sgmcmc_prune.compare import cell
from sgmcmc_prune.compare.cell import compute, load_problem
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.method import Candidate, Cost, Method, Problem
from sgmcmc_prune.compare.methods import METHODS
from sgmcmc_prune.compare.search import EXTENSIONS, SEARCH_SEED, beyond, grid_points, of_trials, search
from sgmcmc_prune.compare.table import summary
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.run.config import DataConfig, ModelConfig
from sgmcmc_prune.run.data import Data, load_data
from sgmcmc_prune.store.files import read_json

#: The best step is inside the grid; a weight decay of zero has no ratio to go on in.
GRID = {"lr": (0.1, 0.01, 0.001), "weight_decay": (0.0, 0.5)}
BEST = {"lr": 0.01, "weight_decay": 0.5}


def linear(**changes: object) -> Comparison:
    settings: dict[str, object] = {
        "sparsities": (0.5, 0.93, 0.99),
        "seeds": (3,),
        "epochs": 40,
        "members": 2,
        "data": DataConfig(validation=6800, batch_size=20),
        "model": ModelConfig(name="linear"),
    }
    return Comparison(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """A problem whose test images are NaN: whoever looks at them gets no finite score."""
    problem, _ = load_problem(linear(), tmp_path_factory.mktemp("search"), 0)
    inputs, labels = problem.data.test
    return replace(problem, data=replace(problem.data, test=(torch.full_like(inputs, torch.nan), labels)))


class Planted:
    """A method whose prediction is right with a probability that is highest at `BEST`, and which keeps its problems."""

    def __init__(self, failing: tuple[float, ...] = (), best: dict[str, float] = BEST) -> None:
        self.seen: list[Problem] = []
        self.failing, self.best = failing, best
        self.method = Method("planted", "test", "paper", "scope", lambda problem: None, self.fit, GRID)

    def fit(self, problem: Problem, folder: Path) -> Iterator[Candidate]:
        self.seen.append(problem)
        settings = problem.settings
        if settings["lr"] in self.failing:
            raise RunError("diverged")
        right = 0.9 - 0.1 * sum(abs(math.log((settings[n] + 0.01) / (v + 0.01))) / 5 for n, v in self.best.items())

        def predict(inputs: Tensor) -> Tensor:
            assert bool(inputs.isfinite().all())
            labels = {len(split[0]): split[1] for split in (problem.data.validation, problem.data.test)}[len(inputs)]
            others = torch.full((len(inputs), 10), (1 - right) / 9, dtype=torch.float64)
            return others.scatter(1, labels[:, None], right)

        mask = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masks.prunable(problem.network()).items()}
        for target in (None, *problem.sparsities):
            yield Candidate(target, [mask], predict, predict, 1, Cost(7 * problem.epochs, 0.0))


def test_the_best_point_wins_and_every_trial_is_paid(problem: Problem, tmp_path: Path) -> None:
    planted = Planted()
    choice = search(planted.method, of_trials(problem), 6, tmp_path)
    assert choice.settings == BEST
    assert choice.gradient_evaluations == 6 * 7 * 40
    assert [seen.settings for seen in planted.seen] == grid_points(GRID, 6)
    assert {(seen.sparsities, seen.epochs) for seen in planted.seen} == {((0.93,), 40)}


def test_the_search_goes_on_beyond_the_edge_of_its_grid(problem: Problem, tmp_path: Path) -> None:
    """The best step is ten times below the grid: two more trials find it and what is beyond it."""
    planted = Planted(best={"lr": 1e-5, "weight_decay": 0.0})
    choice = search(planted.method, of_trials(problem), 3, tmp_path)
    steps = [seen.settings["lr"] for seen in planted.seen]
    assert steps[:3] == [0.1, 0.01, 0.001]
    assert steps[3:] == pytest.approx([1e-4, 1e-5, 1e-6])
    assert choice.settings == {"lr": pytest.approx(1e-5), "weight_decay": 0.0}
    assert choice.gradient_evaluations == 6 * 7 * 40
    again = Planted(best=planted.best)
    assert search(again.method, of_trials(problem), 3, tmp_path) == choice
    assert again.seen == []


def test_the_growth_of_a_grid_is_bounded(problem: Problem, tmp_path: Path) -> None:
    planted = Planted(best={"lr": 1e-30, "weight_decay": 0.0})
    search(planted.method, of_trials(problem), 3, tmp_path)
    assert len(planted.seen) == 3 + EXTENSIONS


def test_beyond_needs_an_edge_and_a_ratio() -> None:
    tried = [{"lr": lr, "decay": 0.0} for lr in (0.1, 0.03, 0.3)]
    assert beyond(tried, tried[0]) is None
    assert beyond(tried, tried[2]) == {"lr": 0.9, "decay": 0.0}
    assert beyond(tried, tried[1]) == {"lr": 0.009, "decay": 0.0}
    assert beyond([*tried, {"lr": 0.9, "decay": 0.0}], tried[2]) is None
    assert beyond(tried[:1], tried[0]) is None


def test_a_point_that_was_not_tried_is_not_chosen(problem: Problem, tmp_path: Path) -> None:
    count = grid_points(GRID, 6).index(BEST)
    assert count >= 1
    assert search(Planted().method, of_trials(problem), count, tmp_path).settings != BEST


def test_finished_trials_are_not_computed_again(problem: Problem, tmp_path: Path) -> None:
    first, again, more = Planted(), Planted(), Planted()
    chosen = search(first.method, of_trials(problem), 3, tmp_path)
    assert search(again.method, of_trials(problem), 3, tmp_path) == chosen
    search(more.method, of_trials(problem), 5, tmp_path)
    assert [len(planted.seen) for planted in (first, again, more)] == [3, 0, 2]
    assert read_json(tmp_path / "trial1.json")["settings"] == grid_points(GRID, 2)[1]


def test_one_point_is_the_default_and_costs_nothing(problem: Problem, tmp_path: Path) -> None:
    planted = Planted()
    choice = search(planted.method, of_trials(problem), 1, tmp_path)
    assert choice.settings == {"lr": 0.1, "weight_decay": 0.0}
    assert (choice.gradient_evaluations, planted.seen) == (0, [])


def test_a_trial_that_fails_is_never_chosen_but_paid(problem: Problem, tmp_path: Path) -> None:
    """The whole budget of a trial: nobody knows how far it came."""
    short = of_trials(problem)
    choice = search(Planted(failing=(0.01,)).method, short, 6, tmp_path)
    assert choice.settings["lr"] != 0.01
    assert choice.settings["weight_decay"] == 0.5
    # Four of the grid and one beyond its edge, where the best now lies.
    assert choice.gradient_evaluations == 5 * 7 * 40 + 2 * 40 * short.num_data
    everything = search(Planted(failing=(*GRID["lr"], 1.0)).method, short, 6, tmp_path / "all")
    assert everything.settings == {"lr": 0.1, "weight_decay": 0.0}


def test_grid_points_change_one_setting_first_then_more() -> None:
    points = [(p["lr"], p["weight_decay"]) for p in grid_points(GRID, 99)]
    assert points == [(0.1, 0.0), (0.01, 0.0), (0.001, 0.0), (0.1, 0.5), (0.01, 0.5), (0.001, 0.5)]
    assert grid_points(GRID, 4) == grid_points(GRID, 99)[:4]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_grid_is_small_and_starts_at_the_default(name: str) -> None:
    """A learning rate, and at most two settings more."""
    grid = METHODS[name].grid
    assert len(grid) <= 3
    assert all(len(values) == len(set(values)) >= 2 for values in grid.values())


@pytest.mark.parametrize("name", ["sgd-magnitude", "expected-log-odds"])
def test_settings_reach_the_fit_and_no_settings_are_the_default(name: str, problem: Problem, tmp_path: Path) -> None:
    """The default point changes nothing, and another point does."""
    method, fits = METHODS[name], []
    default, other = grid_points(method.grid, 2)
    for index, settings in enumerate(({}, default, other)):
        asked = replace(problem, settings=settings, epochs=8, sparsities=(0.5,), shared=tmp_path / str(index))
        candidate = next(iter(method.fit(asked, tmp_path / str(index))))
        fits.append(candidate.predict(problem.data.validation[0][:100]))
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])


def test_a_search_never_reads_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of a real method, and of a table on test images, see validation images alone."""
    original = load_data

    def without_test(config: object) -> Data:
        data = original(config)  # type: ignore[arg-type]
        return replace(data, test=(torch.full_like(data.test[0], torch.nan), data.test[1]))

    monkeypatch.setattr(cell, "load_data", without_test)
    rows: list[object] = []
    monkeypatch.setattr(cell, "rows", lambda *arguments: rows.append(arguments[4]) or [])
    compute(linear(evaluate="test", search=2, sparsities=(0.5,), epochs=8), tmp_path, "sgd-magnitude", 3)
    trials = [read_json(tmp_path / "search" / "sgd-magnitude" / f"trial{i}.json") for i in range(2)]
    assert all(0 < trial["nll"] < 10 and trial["reason"] == "" for trial in trials)
    assert all(bool(split[0].isnan().all()) for split in rows), "the table itself is of test images"  # type: ignore[index]
    assert len(rows) == 1


def test_rows_say_what_was_chosen_and_what_it_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = Planted()
    monkeypatch.setitem(METHODS, "planted", planted.method)
    asked = linear(search=6)
    rows = [row for seed in (3, 4) for row in compute(asked, tmp_path, "planted", seed)]
    assert {row["settings"] for row in rows} == {"lr=0.01, weight_decay=0.5"}
    assert {row["search_evaluations"] for row in rows} == {6 * 7 * 40}
    assert {row["gradient_evaluations"] for row in rows} == {7 * 40}
    assert [seen.seed for seen in planted.seen] == [SEARCH_SEED] * 6 + [3, 4], "one search for all seeds"
    table = summary(rows, "planted")
    assert "chosen on validation images" in table
    assert "planted                  1680  lr=0.01, weight_decay=0.5" in table


@pytest.mark.parametrize("network", ["lenet", "mlp"])
def test_committed_trials_are_read_and_none_is_computed_again(network: str, problem: Problem, tmp_path: Path) -> None:
    stored = Path(__file__).resolve().parents[1] / "benchmarks" / "comparison_long" / network
    count, folders = read_json(stored / "comparison.json")["search"], sorted((stored / "search").iterdir())
    assert len(folders) > 5
    for folder in folders:
        copy, none = tmp_path / folder.name, Planted(failing=())
        shutil.copytree(folder, copy)
        choice = search(replace(METHODS[folder.name], fit=none.fit), of_trials(problem), count, copy)
        trials = [read_json(path) for path in folder.glob("*.json")]
        scores = {str(trial["settings"]): trial["nll"] for trial in trials if trial["nll"] is not None}
        assert none.seen == [], folder.name
        assert scores[str(choice.settings)] == min(scores.values())
        assert choice.gradient_evaluations == sum(trial["gradient_evaluations"] for trial in trials)


def test_a_trial_of_another_grid_is_refused(problem: Problem, tmp_path: Path) -> None:
    planted = Planted()
    search(planted.method, of_trials(problem), 2, tmp_path)
    other = replace(planted.method, grid={"lr": (0.2, 0.01)})
    with pytest.raises(
        ValueError, match=r"trial0.json is of a cell with other settings \(.*0.1.*\); choose another folder"
    ):
        search(other, of_trials(problem), 2, tmp_path)
