"""Hyperparameters: the same small search for every method, on validation images.

    OUT/search/METHOD/trial0.json   a finished trial, which is never computed again
    OUT/search/shared/seed0/...     what several methods use

A trial fits one point of the method's grid at one seed and one target sparsity, at the whole budget: a shorter training
would choose a larger step. The lowest NLL of the ensemble wins (of the single network, where that is all there is), and
all seeds and targets get its settings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from sgmcmc_prune.compare.method import Method, Problem, Settings
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.files import finite_or_null, locked, read_json, write_json
from sgmcmc_prune.metrics import summarise

#: The seed of all trials. No table has it: settings must not be chosen on the validation images that a table reports.
SEARCH_SEED = 2**16 - 1
#: Trials prune to the target that is closest to this.
SEARCH_SPARSITY = 0.95
#: Validation images that score a trial, at most: enough for an NLL to about 0.01.
IMAGES = 10_000


@dataclass(frozen=True)
class Choice:
    """The settings that a method gets, and the gradient evaluations that choosing them took."""

    settings: Settings
    gradient_evaluations: int


def search(method: Method, problem: Problem, count: int, folder: Path) -> Choice:
    """Try the first points of a method's grid, take the best on validation images.

    Parameters
    ----------
    method : Method
    problem : Problem
        As `of_trials` gives it.
    count : int
        Points to try. One point is the default, and needs no trial.
    folder : Path
        A file for each finished trial; what is there is not computed again.

    Returns
    -------
    Choice
        The default, if every trial fails.
    """
    points = grid_points(method.grid, count)
    if len(points) == 1:
        return Choice(points[0], 0)
    with locked(folder / ".lock", wait_seconds=math.inf):
        trials = [_trial(method, replace(problem, settings=p), folder / f"trial{i}") for i, p in enumerate(points)]
    scores = [math.inf if trial["nll"] is None else trial["nll"] for trial in trials]
    best = scores.index(min(scores))
    return Choice(points[best], sum(trial["gradient_evaluations"] for trial in trials))


def of_trials(problem: Problem) -> Problem:
    """The problem of a trial: one target."""
    target = min(problem.sparsities, key=lambda sparsity: abs(sparsity - SEARCH_SPARSITY))
    return replace(problem, sparsities=(target,))


def grid_points(grid: Mapping[str, tuple[float, ...]], count: int) -> list[dict[str, float]]:
    """The first points of a grid: the default, then one change at a time in the grid's order, then more changes."""
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]

    def changes(point: Settings) -> tuple[int, list[bool]]:
        kept = [point[name] == values[0] for name, values in grid.items()]
        return kept.count(False), kept

    return sorted(points, key=changes)[:count]


def _trial(method: Method, problem: Problem, folder: Path) -> dict[str, Any]:
    """Compute a trial, or read it; one that fails has no score, and is charged its whole budget."""
    path = folder.with_suffix(".json")
    if not path.is_file():
        whole = problem.epochs * problem.num_data
        trial = {"settings": dict(problem.settings), "nll": math.nan, "gradient_evaluations": whole, "reason": ""}
        try:
            candidates = method.fit(problem, folder)
            found = next(candidate for candidate in candidates if candidate.target is not None)
            inputs, labels = (part[:IMAGES] for part in problem.data.validation)
            trial["nll"] = summarise(found.ensemble(inputs), labels)["nll"]
            trial["gradient_evaluations"] = found.cost.gradient_evaluations
        except (RunError, ValueError) as error:
            trial["reason"] = str(error)
        write_json(path, finite_or_null(trial))
    return dict(read_json(path))
