"""One cell: choose a method's settings, fit it on one seed, score its candidates."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.method import Method, Problem, in_words
from sgmcmc_prune.compare.methods import find
from sgmcmc_prune.compare.score import Row, blank, rows
from sgmcmc_prune.compare.search import SEARCH_SEED, Choice, of_trials, search
from sgmcmc_prune.data import ood
from sgmcmc_prune.errors import first_line
from sgmcmc_prune.machine.progress import tell
from sgmcmc_prune.run.config import PriorConfig, RunConfig
from sgmcmc_prune.run.data import load_data
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import from_json
from sgmcmc_prune.store.files import read_json


def rows_path(out: Path, name: str, seed: int) -> Path:
    """The file that makes a cell finished."""
    return out / "cells" / f"{name}-seed{seed}" / "rows.json"


def load(out: Path) -> Comparison:
    """The settings of a comparison's folder."""
    comparison: Comparison = from_json(read_json(out / "comparison.json"), Comparison)
    return comparison


def compute_stored(out: str, name: str, seed: int) -> list[Row]:
    """Compute a cell of the comparison in a folder."""
    return compute(load(Path(out)), Path(out), name, seed)


def compute(comparison: Comparison, out: Path, name: str, seed: int) -> list[Row]:
    """Compute a cell; a method that does not apply, or fails, leaves one row with the reason.

    Raises
    ------
    ValueError
        If data or model cannot be loaded.
    Interrupted
        If a Markov chain was told to stop.
    """
    problem, foreign = load_problem(comparison, out, seed)
    method, folder = find(name), rows_path(out, name, seed).parent
    reason = method.applies(problem)
    if reason is not None:
        return [blank(method, seed, f"does not apply: {reason}")]
    choice = _choose(comparison, out, method)
    read = choice.settings
    if problem.start is not None:
        read = {name: value for name, value in read.items() if name in method.untrained}
    chosen = {"settings": in_words(read), "search_evaluations": choice.gradient_evaluations}
    found = _fit(method, replace(problem, settings=choice.settings), folder, comparison.evaluate, foreign)
    return [row | chosen for row in found]


def _choose(comparison: Comparison, out: Path, method: Method) -> Choice:
    """The settings that all seeds of a method share."""
    folder = out / "search"
    problem, _ = load_problem(replace(comparison, ood=None), folder, SEARCH_SEED)
    return search(method, of_trials(problem), comparison.search, folder / method.name)


def _fit(method: Method, problem: Problem, folder: Path, evaluate: str, foreign: Tensor | None) -> list[Row]:
    """The rows of a method's candidates, and one with the reason if it fails."""
    split, found = problem.data.test if evaluate == "test" else problem.data.validation, []
    try:
        for candidate in method.fit(problem, folder):
            found += rows(method, problem.seed, candidate, problem.network(), split, foreign)
            tell(f"{len(found) // 2} networks are finished")
    except Exception as error:  # a method may meet a network that nobody thought of; the others go on
        found.append(blank(method, problem.seed, f"failed: {first_line(error)}"))
    return found


def run_config(comparison: Comparison, seed: int) -> RunConfig:
    """Data, model, device and seed of a comparison, for what builds them."""
    # The chains of a comparison never see the test split: only `score` does.
    return RunConfig(
        data=comparison.data,
        model=comparison.model,
        prior=PriorConfig(group="filter" if comparison.track == "structured" else "weight"),
        seed=seed,
        device=comparison.device,
        evaluate="validation",
    )


def load_problem(comparison: Comparison, out: Path, seed: int) -> tuple[Problem, Tensor | None]:
    """The problem of a seed, and the out-of-distribution inputs if any were named."""
    config = run_config(comparison, seed)
    data = load_data(config)
    data = replace(data, train=Run(config, data=data).train)
    problem = Problem(
        *(config, data, comparison.sparsities, comparison.epochs, comparison.members),
        shared=out / "shared" / f"seed{seed}",
        start=comparison.start,
    )
    foreign = None
    if comparison.ood is not None:
        shape, device = data.input_shape, comparison.device
        foreign = ood.foreign_inputs(comparison.ood, comparison.ood_dir, data.dataset, shape, device)
    return problem, foreign
