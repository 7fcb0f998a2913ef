"""Accuracy against sparsity of an experiment's variants, with the figures that its paper printed.

    python analysis/against_the_literature.py sun_deng/deng_resnet20 runs/deng_resnet20/paper/* --out deng.png

The first argument names a script in `experiments/` (`ke_fan/cifar10`, `sun_deng/sun_resnet`, ...);
what it lists as published is drawn in grey. Lines are means over seeds, of masks that grew in the chain; the dense
predictive is drawn at 0 %. Where the images were not the official ones, the title says that nothing is comparable.
"""

import argparse
import importlib
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.style import PALETTE, legend_below, line, new_figure, png, tidy

ROOT = Path(__file__).resolve().parents[1]
Point = tuple[float, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; return 0, or 2 after one line about what is wrong with the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="name of the script")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--out", required=True, type=Path, help="the picture (PNG)")
    options = parser.parse_args(argv)
    try:
        ours, official = read(options.runs)
        options.out.write_bytes(png(draw(options.experiment, ours, published(options.experiment), official)))
    except (ValueError, OSError) as error:
        print(f"against_the_literature: {error}", file=sys.stderr)
        return 2
    return 0


def read(paths: Sequence[Path]) -> tuple[dict[str, list[Point]], bool]:
    """Mean accuracy (%) at each sparsity (%) by variant, and whether all data were official."""
    cells: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        run = RunData.open(path)
        if run.metrics is None:
            raise ValueError(f"{path} has no metrics.json; finish it with `sgmcmc-prune resume {path}`")
        cells[path.name.rpartition("-seed")[0]].append(run.metrics)
    return means(cells)


def means(cells: Mapping[str, Sequence[dict[str, Any]]]) -> tuple[dict[str, list[Point]], bool]:
    """The same of metrics by variant, as the file of results has them."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for variant, runs in cells.items():
        for run in runs:
            found[variant][0.0].append(100 * run["dense"]["accuracy"])
            for row in run["pruned"]:
                if row["when"] == "in_chain":
                    found[variant][100 * row["target"]].append(100 * row["accuracy"])
    official = all(run["data"]["official"] for runs in cells.values() for run in runs)
    return {v: sorted((s, float(np.mean(a))) for s, a in points.items()) for v, points in found.items()}, official


def published(experiment: str) -> dict[str, list[Point]]:
    """What the experiment's script lists as published; ValueError if there is no such script."""
    script = ROOT / "experiments" / f"{experiment}.py"
    if not script.is_file():
        raise ValueError(f"there is no experiments/{experiment}.py")
    sys.path.insert(0, str(ROOT))
    module = ".".join(script.relative_to(ROOT).with_suffix("").parts)
    listed = getattr(importlib.import_module(module), "EXPERIMENT", None)
    if listed is None:
        raise ValueError(f"experiments/{experiment}.py lists no published figures")
    return {method: list(zip(_numbers(s), _numbers(a), strict=True)) for method, s, a in listed.published}


def _numbers(text: str) -> list[float]:
    """The first number of each part of "91.26 (.02) / 92.32"; "dense" is a sparsity of 0."""
    return [0.0 if part.strip() == "dense" else float(part.split()[0]) for part in text.split("/")]


def draw(experiment: str, ours: dict[str, list[Point]], theirs: dict[str, list[Point]], official: bool) -> Any:
    """Lines for ours, grey marks for the paper's."""
    figure = new_figure(6, 4)
    ax = figure.subplots()
    handles = []
    for colour, (variant, points) in zip(PALETTE, ours.items(), strict=False):
        ax.plot(*zip(*points, strict=True), color=colour, marker="o", ms=4)
        handles.append(line(variant, color=colour, marker="o"))
    for marker, (method, points) in zip("sD^vPX", theirs.items(), strict=False):
        ax.plot(*zip(*points, strict=True), color="#888888", marker=marker, ms=5, ls=":", lw=1)
        handles.append(line(f"published: {method}", color="#888888", marker=marker, ls=":"))
    title = experiment if official else f"{experiment}: not the official images, not comparable with the paper"
    tidy(ax, "pruned weights (%)", "accuracy (%)", title)
    legend_below(figure, handles, 1)
    return figure


if __name__ == "__main__":
    sys.exit(main())
