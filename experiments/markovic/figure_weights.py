"""Where the posterior mean weights are: after figures 3 and 4 of Markovic et al. Our figures.

    python -m experiments.markovic.figure_weights RUNS --recipe B --network lenet --out weights.png

Above, the distribution of |E w| in every layer (the first seed); below, the input weights of the first six units.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.figures import WIDTH
from experiments.markovic.figure_curves import METHODS, NETWORKS, colour, parser, read
from sgmcmc_prune.report.style import legend_below, line, new_figure, png, tidy

#: Natural logarithms at which the distribution was read.
GRID = range(-16, 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; return 0, or 2 after one line about what is wrong with the input."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--network", choices=NETWORKS, default="lenet")
    options = arguments.parse_args(argv)
    try:
        cells = [c for c in read(options.runs, options.recipe) if c["cell"]["network"] == options.network]
        if not cells:
            raise ValueError(f"{options.runs} holds no finished {options.network} of recipe {options.recipe!r}")
        options.out.write_bytes(png(draw(cells)))
    except (ValueError, OSError) as error:
        print(f"markovic_weights: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


def draw(cells: Sequence[dict[str, Any]]) -> Any:
    """Draw distributions above, first-layer weights below: the first seed of each method."""
    by_method = {c["cell"]["method"]: c for c in reversed(cells)}
    by_method = {m: by_method[m] for m in METHODS if m in by_method}
    figure = new_figure(WIDTH + 1, 2.8 + 1.2 * len(by_method))
    above, below = figure.subfigures(2, 1, height_ratios=(2.8, 1.2 * len(by_method)))
    draw_distributions(above, by_method)
    draw_first_layer(below, by_method)
    return figure


def draw_distributions(figure: Any, by_method: dict[str, dict[str, Any]]) -> None:
    """One panel per layer (at most eight): the fraction of weights with |E w| below x."""
    layers = list(next(iter(by_method.values()))["weights"]["layers"])[:8]
    axes = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for ax, layer in zip(axes, layers, strict=True):
        for method, cell in by_method.items():
            ax.plot(GRID, cell["weights"]["layers"][layer]["below"], color=colour(method))
        tidy(ax, "log |E w|", "", layer.removesuffix(".weight"))
        ax.set_ylim(-0.02, 1.02)
    axes[0].set_ylabel("share of weights below")
    legend_below(figure, [line(METHODS[m], color=colour(m)) for m in by_method], 5)


def draw_first_layer(figure: Any, by_method: dict[str, dict[str, Any]]) -> None:
    """One row per method: six units' weights as images, on one colour scale (the 99th percentile of all)."""
    units = {m: np.array(cell["weights"]["first"]) for m, cell in by_method.items()}
    limit = float(np.quantile(np.abs(np.concatenate([u.ravel() for u in units.values()])), 0.99)) or 1.0
    grid = figure.subplots(len(units), max(map(len, units.values())), squeeze=False)
    for row, (method, weights) in zip(grid, units.items(), strict=True):
        shape = next(iter(by_method[method]["weights"]["layers"].values()))["shape"][1:]
        for ax, unit in zip(row, weights, strict=True):
            shown = ax.imshow(as_image(unit, shape), cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_xticks([])
            ax.set_yticks([])
        row[0].set_ylabel(METHODS[method], fontsize=9)
    figure.colorbar(shown, ax=grid, shrink=0.8).ax.tick_params(labelsize=8)


def as_image(unit: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A kernel as it is, averaged over channels; a row of a linear layer as a square, if it can be."""
    if len(shape) == 3:
        return unit.reshape(shape).mean(0)
    side = math.isqrt(unit.size)
    return unit.reshape(side, side) if side * side == unit.size else unit[None]


if __name__ == "__main__":
    sys.exit(main())
