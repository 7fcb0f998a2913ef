"""Hyperparameters: the same small search for every method, on validation images.

    OUT/search/METHOD/trial0.json   a finished trial, which is never computed again
    OUT/search/METHOD/edge0.json    the same, beyond the edge of the grid
    OUT/search/shared/seed0/...     what several methods use

A trial is a cell (`sgmcmc_prune.cells`), computed in the process of the cell that needs it. It fits one point of the
method's grid at one seed and one target sparsity, at the whole budget: a shorter training would choose a larger step.
The lowest NLL of the ensemble wins (of the single network, where that is all there is), and all seeds and targets get
its settings. A winner at the edge of what was tried says that the grid was too small: the search then goes one value
further, in the same ratio, as long as that wins, up to `EXTENSIONS` trials.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from sgmcmc_prune.cells import Cell, Files, computed
from sgmcmc_prune.compare.method import Method, Problem, Settings
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.store.files import locked

#: The seed of all trials. No table has it: settings must not be chosen on the validation images that a table reports.
SEARCH_SEED = 2**16 - 1
#: Trials prune to the target that is closest to this.
SEARCH_SPARSITY = 0.95
#: Validation images that score a trial, at most: enough for an NLL to about 0.01.
IMAGES = 10_000
#: Trials beyond the edges of a grid, at most.
EXTENSIONS = 4


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

    Raises
    ------
    ValueError
        If a trial in the folder is of another point than the grid's.
    """
    points = grid_points(method.grid, count)
    if len(points) == 1:
        return Choice(points[0], 0)
    grid = Files([], lambda cell: folder / f"{cell.name}.json", folder / ".claims")

    def tried(name: str, settings: Settings) -> dict[str, Any]:
        places = {"method": method, "problem": problem, "folder": folder / name}
        found: dict[str, Any] = computed(grid, Cell(name, trial, {"settings": dict(settings)}, places))
        return found

    with locked(folder / ".lock", wait_seconds=math.inf):
        trials = [tried(f"trial{i}", point) for i, point in enumerate(points)]
        for i in range(EXTENSIONS):
            further = beyond([each["settings"] for each in trials], _best(trials)["settings"])
            if further is None:
                break
            trials.append(tried(f"edge{i}", further))
    return Choice(_best(trials)["settings"], sum(each["gradient_evaluations"] for each in trials))


def beyond(tried: Sequence[Settings], best: Settings) -> dict[str, float] | None:
    """The best point with one setting moved on, past the edge of the values tried, in their ratio; None if inside.

    Only positive values have a ratio, and only a setting of which two were tried has an edge.
    """
    for name, value in best.items():
        values = sorted({point[name] for point in tried})
        if len(values) < 2 or value <= 0:
            continue
        neighbour = {values[0]: values[1], values[-1]: values[-2]}.get(value, 0.0)
        further = {**best, name: float(f"{value * value / neighbour:.6g}")} if neighbour > 0 else None
        if further is not None and further not in tried:
            return further
    return None


def _best(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The trial of the lowest score; the first, if every trial failed."""
    return min(trials, key=lambda each: math.inf if each["nll"] is None else each["nll"])


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


def trial(method: Method, problem: Problem, folder: Path, settings: Settings) -> dict[str, Any]:
    """Fit a method with some settings, and score it; one that fails has no score, and is charged its whole budget."""
    made: dict[str, Any] = {"settings": settings, "nll": math.nan, "reason": ""}
    made["gradient_evaluations"] = problem.epochs * problem.num_data
    try:
        candidates = method.fit(replace(problem, settings=settings), folder)
        found = next(candidate for candidate in candidates if candidate.target is not None)
        inputs, labels = (part[:IMAGES] for part in problem.data.validation)
        made["nll"] = summarise(found.predict(inputs), labels)["nll"]
        made["gradient_evaluations"] = found.cost.gradient_evaluations
    except (RunError, ValueError) as error:
        made["reason"] = str(error)
    return made
