"""The comparison: cells (method x seed), each in a folder and a process of its own, and one table of them all.

    OUT/comparison.json                 the settings; a second call must agree with them, but for methods and seeds
    OUT/cells/METHOD-seed0/rows.json    a finished cell, which is never computed again
    OUT/search/METHOD/trial0.json       a finished trial of a method's settings, if a search was asked for
    OUT/shared/seed0/...                what several methods use
    OUT/comparison.csv                  all finished cells

An interrupted comparison continues when it is called again. Several processes may be called at once, with the same
settings: each cell is computed by one of them.
"""

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from sgmcmc_prune.cells import Files, complete, product
from sgmcmc_prune.compare.cell import compute_stored, load, rows_path, run_config
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.methods import ALL, TRACKS, check_track, find
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import write_csv
from sgmcmc_prune.data.batches import Augmented
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.run.checks import check_choices, check_device
from sgmcmc_prune.run.data import load_data
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.settings import require, to_json
from sgmcmc_prune.store.files import locked, read_json, write_json
from sgmcmc_prune.store.given_weights import load_given_weights
from sgmcmc_prune.store.result_table import data_label


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
        If a cell's process crashed, when the others are finished. A method that fails is a row with its reason.
    """
    chosen = comparison.methods or tuple(TRACKS[comparison.track])
    for name in chosen:
        find(name)
        check_track(name, comparison.track)
    require(jobs >= 1, f"jobs is {jobs}; it must be at least 1")
    config = run_config(comparison, comparison.seeds[0])
    check_device(config.device)
    check_choices(config)
    run = Run(config, data=load_data(config))
    network = run.model(0)  # a network that cannot be built is refused before any cell
    if comparison.start is not None:
        load_given_weights(network, comparison.start)
        if progress:
            print(_as_given(network, run, comparison), flush=True)
    trained_on = data_label(**run.data.dataset.origin)
    if isinstance(run.train, Augmented):
        trained_on += f", {config.data.augmentation}"
    judged = {"split": comparison.evaluate, "data": trained_on}
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", wait_seconds=30):
        _agree(comparison, out)
    cells = product(compute_stored, {"seed": comparison.seeds, "name": chosen}, places={"out": str(out)})
    try:
        grid = Files(cells, lambda cell: rows_path(out, **cell.settings), out / ".claims")
        complete(grid, jobs, progress=progress, device=comparison.device)
    finally:
        rows = [row | judged for row in finished_rows(out)]
        if comparison.start is not None:  # one network: as an ensemble it would stand there twice
            rows = [row for row in rows if (row["kind"], row["members"]) != ("ensemble", 1)]
        write_csv(out / "comparison.csv", rows)
    return rows


def _as_given(network: nn.Module, run: Run, comparison: Comparison) -> str:
    """How good a network is before anything is done to it: whoever normalised its inputs otherwise sees it here."""
    inputs, labels = run.data.test if comparison.evaluate == "test" else run.data.validation
    scores = summarise(class_probabilities(network, inputs), labels)
    moments = zip(run.data.dataset.mean, run.data.dataset.std, strict=True)
    pixels = ", ".join(f"(x - {mean:.4g}) / {std:.4g}" for mean, std in moments)
    inputs_are = f"; inputs are {pixels}" if pixels else ""
    return (
        f"{comparison.start} as given: accuracy {scores['accuracy']:.4f}, NLL {scores['nll']:.4f} on the "
        f"{comparison.evaluate} split{inputs_are}"
    )


def finished_rows(out: Path) -> list[Row]:
    """The rows of all finished cells: methods in the order of `ALL`, then a user's own, then seeds."""
    cells = [path.parent.name.rpartition("-seed") for path in out.glob("cells/*-seed*/rows.json")]
    seeds = sorted({int(seed) for _, _, seed in cells})
    methods = [*ALL, *sorted({method for method, _, _ in cells} - ALL.keys())]
    paths = [rows_path(out, method, seed) for method in methods for seed in seeds]
    return [row for path in paths if path.is_file() for row in read_json(path)]


def _agree(comparison: Comparison, out: Path) -> None:
    """Write the settings, or check that they are those of the folder; ValueError names what differs."""
    path, weights = out / "comparison.json", out / "start.json"
    digest = None if comparison.start is None else _digest(comparison.start)
    if path.is_file():
        earlier = load(out)
        free: dict[str, Any] = {"methods": (), "seeds": comparison.seeds}
        if digest is not None and earlier.start is not None:
            same = read_json(weights) == digest
            require(same, f"{out} holds a comparison that starts from other weights; choose another --out")
            free["start"] = None  # wherever the file lies now
        now, then = replace(comparison, **free), replace(earlier, **free)
        different = [f.name for f in fields(Comparison) if getattr(now, f.name) != getattr(then, f.name)]
        require(not different, f"{out} holds a comparison with other {', '.join(different)}; choose another --out")
    write_json(path, to_json(comparison))
    if digest is not None:
        write_json(weights, digest)


def _digest(start: Path) -> dict[str, str]:
    """What tells the content of a file from another's."""
    with start.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
