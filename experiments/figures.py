"""What figure scripts of result files share: find results by their names, draw each, write it under `runs/figures`."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from sgmcmc_prune.store.files import read_json


def of_one_setting(runs: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The runs whose values of these settings are the commonest: a file may hold others beside them."""
    settings = [tuple(run.get(name) for name in names) for run in runs]
    (commonest, _), *_ = Counter(settings).most_common(1)
    return [run for run, setting in zip(runs, settings, strict=True) if setting == commonest]


def main(description: str | None, pattern: str, made_by: Path, draw: Callable[[Any], Any]) -> None:
    """Draw every result that is there.

    Parameters
    ----------
    description : str or None
        For --help.
    pattern : str
        Name of the result files, with wildcards.
    made_by : Path
        The script that writes them, beside its folder `results`.
    draw : callable
        From the content of a file to a figure.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--results", type=Path, default=made_by.parent / "results")
    parser.add_argument("--out", type=Path, default=Path("runs/figures"))
    args = parser.parse_args()
    paths = sorted(args.results.glob(pattern))
    if not paths:
        raise SystemExit(f"{args.results} holds no {pattern}; run {made_by} first")
    args.out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        target = args.out / f"{path.stem}.png"
        figure = draw(read_json(path))
        figure.savefig(target, dpi=130)
        plt.close(figure)
        print(target)
