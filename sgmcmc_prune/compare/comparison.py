"""The comparison: cells (method x seed), each in a folder and a process of its own, and one table of them all.

    OUT/comparison.json                 the settings; a second call must agree with them, but for methods and seeds
    OUT/cells/METHOD-seed0/rows.json    a finished cell, which is never computed again
    OUT/search/METHOD/trial0.json       a finished trial of a method's settings, if a search was asked for
    OUT/shared/seed0/...                what several methods use
    OUT/comparison.csv                  all finished cells

An interrupted comparison continues when it is called again.
"""

import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import torch
from tqdm import tqdm

from sgmcmc_prune.chains.processes import num_workers, run_workers
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.methods import METHODS, find
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import write_csv
from sgmcmc_prune.run.checks import check_choices, check_device
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.data import load_data
from sgmcmc_prune.settings import from_json, require, to_json
from sgmcmc_prune.store.files import locked, read_json, write_json


def compare(comparison: Comparison, out: Path, jobs: int = 1, progress: bool = True) -> list[Row]:
    """Compute the cells that are missing and write the table.

    Parameters
    ----------
    comparison : Comparison
    out : Path
        A new folder, or that of the same comparison; methods and seeds may have been added.
    jobs : int
        Processes at once.
    progress : bool
        Show a bar over cells.

    Returns
    -------
    list of dict
        The rows of `comparison.csv`: all finished cells in `out`.

    Raises
    ------
    ValueError
        For bad input, before anything is computed.
    Interrupted
        After SIGINT or SIGTERM; the same call continues. The table then holds the finished cells.
    RunError
        If a cell's process crashed. A method that fails in itself is a row with its reason.
    """
    chosen = comparison.methods or tuple(METHODS)
    check_methods(chosen)
    require(jobs >= 1, f"jobs is {jobs}; it must be at least 1")
    config = run_config(comparison, comparison.seeds[0])
    check_device(config.device)
    check_choices(config)
    load_data(config)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock"):
        _agree(comparison, out)
        cells = [(method, seed) for seed in comparison.seeds for method in chosen]
        todo = [cell for cell in cells if not rows_path(out, *cell).is_file()]
        threads = max(1, torch.get_num_threads() // num_workers(jobs))
        worker = [sys.executable, "-m", "sgmcmc_prune.compare.worker", str(out)]
        commands = [[*worker, str(seed), str(threads), method] for method, seed in todo]
        try:
            with tqdm(total=len(cells), initial=len(cells) - len(todo), unit="cell", disable=not progress) as bar:
                run_workers(commands, jobs, bar)
        finally:
            rows = finished_rows(out)
            write_csv(out / "comparison.csv", rows)
    return rows


def check_methods(names: Iterable[str]) -> None:
    """ValueError if a method is unknown."""
    for name in names:
        find(name)


def rows_path(out: Path, method: str, seed: int) -> Path:
    """The file that makes a cell finished."""
    return out / "cells" / f"{method}-seed{seed}" / "rows.json"


def finished_rows(out: Path) -> list[Row]:
    """The rows of all finished cells: methods in the order of `METHODS`, then a user's own, then seeds."""
    cells = [path.parent.name.rpartition("-seed") for path in out.glob("cells/*-seed*/rows.json")]
    seeds = sorted({int(seed) for _, _, seed in cells})
    methods = [*METHODS, *sorted({method for method, _, _ in cells} - METHODS.keys())]
    paths = [rows_path(out, method, seed) for method in methods for seed in seeds]
    return [row for path in paths if path.is_file() for row in read_json(path)]


def load(out: Path) -> Comparison:
    """The settings of a comparison's folder."""
    comparison: Comparison = from_json(read_json(out / "comparison.json"), Comparison)
    return comparison


def run_config(comparison: Comparison, seed: int) -> RunConfig:
    """Data, model, device and seed of a comparison, for what builds them."""
    # The chains of a comparison never see the test split: only `score` does.
    return RunConfig(
        data=comparison.data, model=comparison.model, seed=seed, device=comparison.device, evaluate="validation"
    )


def _agree(comparison: Comparison, out: Path) -> None:
    """Write the settings, or check that they are those of the folder; ValueError names what differs."""
    path = out / "comparison.json"
    if path.is_file():
        earlier, free = load(out), {"methods": (), "seeds": comparison.seeds}
        now, then = replace(comparison, **free), replace(earlier, **free)  # type: ignore[arg-type]
        different = [f.name for f in fields(Comparison) if getattr(now, f.name) != getattr(then, f.name)]
        require(not different, f"{out} holds a comparison with other {', '.join(different)}; choose another --out")
    write_json(path, to_json(comparison))
