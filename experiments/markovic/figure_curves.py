"""Accuracy, calibration, NLL and pruned fraction by round: after figures 1 and 2 of Markovic et al. Our figures.

    python -m experiments.markovic.figure_curves runs/markovic_fashion_mnist --recipe B --out curves.png

One row per network, one line per seed, thin but for the first.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.figures import COLOURS, WIDTH
from sgmcmc_prune.report.style import legend_below, line, new_figure, png, tidy
from sgmcmc_prune.store.files import read_json

METHODS = {
    "flat-map": "Flat-MAP",
    "flat-ff": "Flat-FF",
    "tiered-ff": "Tiered-FF",
    "bmr-spike-slab": "BMR-S&S",
    "bmr-horseshoe": "BMR-RHS",
}
NETWORKS = ("mlp", "lenet", "vit", "mixer")
COLUMNS = {"accuracy": "accuracy", "ece": "ECE (20 bins)", "nll": "NLL (nats)"}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; return 0, or 2 after one line about what is wrong with the input."""
    options = parser(__doc__ or "").parse_args(argv)
    try:
        options.out.write_bytes(png(draw(read(options.runs, options.recipe))))
    except (ValueError, OSError) as error:
        print(f"markovic_curves: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that the figures of this paper share."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", type=Path, metavar="RUNS", help="directory of an experiment, one cell in each subdirectory")
    p.add_argument("--recipe", default="B", help="A, B or short")
    p.add_argument("--out", required=True, type=Path, help="the picture (PNG)")
    return p


def read(runs: Path, recipe: str) -> list[dict[str, Any]]:
    """Read the finished cells of a recipe, by seed.

    Raises
    ------
    ValueError
        If there are none.
    """
    cells = [read_json(path) for path in sorted(runs.glob("*/metrics.json"))]
    cells = [cell for cell in cells if cell["cell"]["recipe"] == recipe]
    if not cells:
        raise ValueError(f"{runs} holds no finished cell of recipe {recipe!r}; run experiments/markovic_*.py first")
    return sorted(cells, key=lambda cell: cell["seed"])


def of_recipe(content: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The cells of a file of results: of recipe B, or of whichever there is."""
    cells = sorted((cell for runs in content.values() for cell in runs), key=lambda cell: cell["seed"])
    return [cell for cell in cells if cell["cell"]["recipe"] == "B"] or cells


def networks(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The networks of some cells, in the paper's order."""
    found = {cell["cell"]["network"] for cell in cells}
    return [name for name in NETWORKS if name in found]


def colour(method: str) -> str:
    """The colour of a method, the same in every picture."""
    return COLOURS[method]


def draw(cells: Sequence[dict[str, Any]]) -> Any:
    """Draw one row per network: three scores, and the pruned fraction of the reducing methods."""
    rows = networks(cells)
    figure = new_figure(WIDTH + 1, 0.8 + 1.8 * len(rows))
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for axes, network in zip(grid, rows, strict=True):
        here = [cell for cell in cells if cell["cell"]["network"] == network]
        for ax, (key, label) in zip(axes, COLUMNS.items(), strict=False):
            draw_curves(ax, here, key)
            tidy(ax, "round", label, network)
        draw_curves(axes[3], [c for c in here if c["cell"]["method"].startswith("bmr")], "pruned_fraction")
        tidy(axes[3], "round", "pruned fraction", network)
        axes[3].set_ylim(-0.02, 1.02)
    present = [m for m in METHODS if any(cell["cell"]["method"] == m for cell in cells)]
    legend_below(figure, [line(METHODS[m], color=colour(m)) for m in present], 5)
    recipe, split, seeds = cells[0]["cell"]["recipe"], cells[0]["split"], {cell["seed"] for cell in cells}
    many = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    figure.suptitle(f"{cells[0]['dataset']}, recipe {recipe}, {split} split, {many}", fontsize=10)
    return figure


def draw_curves(ax: Any, cells: Sequence[dict[str, Any]], key: str) -> None:
    """Draw one score of every cell against the round."""
    first = min((cell["seed"] for cell in cells), default=0)
    for cell in cells:
        rounds = cell["rounds"]
        width = 1.6 if cell["seed"] == first else 0.6
        values = [r[key] for r in rounds]
        ax.plot([r["round"] for r in rounds], values, color=colour(cell["cell"]["method"]), linewidth=width)


if __name__ == "__main__":
    sys.exit(main())
