"""One cell: fit one method on one seed, score its candidates, write `rows.json`."""

from pathlib import Path
from typing import Any

from torch import Tensor

from sgmcmc_prune import build
from sgmcmc_prune import data as datasets
from sgmcmc_prune.compare.comparison import rows_path, run_config
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.method import Problem
from sgmcmc_prune.compare.methods import METHODS
from sgmcmc_prune.compare.score import Row, blank, rows
from sgmcmc_prune.data import ood
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.files import finite_or_null, write_json


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
    method, path = METHODS[name], rows_path(out, name, seed)
    reason = method.applies(problem)
    found = []
    if reason is None:
        split = problem.data.test if comparison.evaluate == "test" else problem.data.validation
        try:
            for candidate in method.fit(problem, path.parent):
                found += rows(method, seed, candidate, problem.network(), split, foreign)
        except (RunError, ValueError) as error:
            found.append(blank(method, seed, f"failed: {error}"))
    else:
        found.append(blank(method, seed, f"does not apply: {reason}"))
    write_json(path, finite_or_null(found))
    return found


def load_problem(comparison: Comparison, out: Path, seed: int) -> tuple[Problem, Tensor | None]:
    """The problem of a seed, and the out-of-distribution inputs if any were named."""
    config = run_config(comparison, seed)
    data = build.load_data(config)
    problem = Problem(
        config, data, comparison.sparsities, comparison.epochs, comparison.members, out / "shared" / f"seed{seed}"
    )
    return problem, _foreign(comparison, data)


def _foreign(comparison: Comparison, data: build.Data) -> Any:
    """Test images of the foreign data set, normalised as the training images are."""
    if comparison.ood is None:
        return None
    if comparison.ood == "svhn":
        if comparison.ood_dir is None:
            raise ValueError("ood is 'svhn', whose files are never downloaded; give their folder as --ood-dir")
        images = ood.load_svhn(comparison.ood_dir)
        inputs = images.inputs(data.dataset.mean, data.dataset.std, comparison.device)
    else:
        foreign = datasets.load(comparison.ood, comparison.ood_dir).test
        inputs = foreign.inputs(data.dataset.mean, data.dataset.std, comparison.device)
    if tuple(inputs.shape[1:]) != data.input_shape:
        raise ValueError(
            f"images of {comparison.ood} have shape {tuple(inputs.shape[1:])}, those of {comparison.data.name} "
            f"{data.input_shape}; choose another ood set"
        )
    return inputs
