"""What figure scripts of result files share: find `benchmarks/PATTERN`, draw each, write it under `runs/figures`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from sgmcmc_prune.files import read_json


def main(description: str | None, pattern: str, made_by: str, draw: Callable[[Any], Any]) -> None:
    """Draw every result that is there.

    Parameters
    ----------
    description : str or None
        For --help.
    pattern : str
        Name of the result files, with wildcards.
    made_by : str
        The script that writes them.
    draw : callable
        From the content of a file to a figure.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--results", type=Path, default=Path("benchmarks"))
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
