"""What pruning costs: error and NLL of every compared method against sparsity and against inference multiply-adds.

    python analysis/compare_pareto.py runs/compare/comparison.csv --out pareto.png
    python analysis/compare_pareto.py runs/structured/comparison.csv --cut --out pareto.png

One line per method joins its means over seeds at the target sparsities; a star is its own stopping rule. A method has
the same colour in all pictures: that of its family, or, if it removes whole units, its own. The upper row shows single
networks, the lower one ensembles, where there are any; a halo marks the Pareto front of its panel: no other point is
both cheaper (sparser) and better.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import read_csv, results
from sgmcmc_prune.report.style import DASHES, INK, legend_below, line, method_colour, new_figure, png, tidy

#: Both are better when lower, and on a logarithmic scale, so that methods that failed do not squash the others.
SCORES = {"error": "error rate", "nll": "NLL (nats per example)"}
COSTS = {"kept": "kept weights (share of the prunable)", "work": "multiply-adds per input, all members"}
KINDS = ("single", "ensemble")
#: Open, so that one shows through another.
MARKERS = ("o", "s", "^", "D", "v", "p")
HALO = {"marker": "o", "linestyle": "none", "markersize": 13, "markeredgewidth": 0, "alpha": 0.3}
STAR = {"marker": "*", "linestyle": "none", "markersize": 10, "markerfacecolor": "none"}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; return 0, or 2 after one line about what is wrong with the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="comparison.csv")
    parser.add_argument("--methods", nargs="+", help="only these methods")
    parser.add_argument("--cut", action="store_true", help="multiply-adds of the cut networks, not of the masks")
    parser.add_argument("--out", required=True, type=Path, help="the picture (PNG)")
    options = parser.parse_args(argv)
    try:
        rows = [row for row in read_csv(options.table) if row["accuracy"] is not None]
        rows = [row for row in rows if options.methods is None or row["method"] in options.methods]
        if not rows:
            raise ValueError(f"{options.table} has no results of these methods")
        if options.cut and any(row["cut_flops"] is None for row in rows):
            raise ValueError(f"{options.table} does not know the multiply-adds of every cut network; leave out --cut")
        for row in rows:
            row["work"] = row["cut_flops"] * row["members"] if options.cut else row["inference_flops"]
        options.out.write_bytes(png(draw(rows)))
    except (ValueError, OSError) as error:
        print(f"compare_pareto: {error}", file=sys.stderr)
        return 2
    for kind in kinds(rows):
        front = sorted({point["method"] for point in pareto_front(means(results(rows, kind)), "kept", "error")})
        print(f"{kind}: on the front of accuracy against sparsity: {', '.join(front)}")
    return 0


def kinds(rows: Sequence[Row]) -> list[str]:
    """The kinds of which there are rows: a network that was given has no ensemble."""
    return [kind for kind in KINDS if results(rows, kind)]


def means(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One point per method and target: means over seeds of scores and costs, targets falling (own rule last)."""
    keys = dict.fromkeys((row["method"], row["family"], row["sparsity"]) for row in rows)
    points = []
    for method, family, target in keys:
        own = [row for row in rows if (row["method"], row["sparsity"]) == (method, target)]
        values = {name: float(np.mean([row[name] for row in own])) for name in ("nll", "work")}
        values |= {
            "error": 1 - float(np.mean([row["accuracy"] for row in own])),
            "kept": 1 - float(np.mean([row["achieved_sparsity"] for row in own])),
        }
        points.append({"method": method, "family": family, "target": target, **values})
    return points


def pareto_front(points: Sequence[dict[str, Any]], cost: str, score: str) -> list[dict[str, Any]]:
    """The points that no other beats: none is at most as costly and better, or cheaper and at least as good."""

    def beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
        no_worse = a[cost] <= b[cost] and a[score] <= b[score]
        return no_worse and (a[cost] < b[cost] or a[score] < b[score])

    return [point for point in points if not any(beats(other, point) for other in points)]


def draw(rows: Sequence[Row]) -> Any:
    """Rows of four panels: each score against each cost, for single networks and, where there are any, ensembles."""
    looks, shown = _looks(rows), kinds(rows)
    figure = new_figure(14, 3.75 * len(shown) + 0.2 * len(looks) / 4)
    axes = figure.subplots(len(shown), 4, squeeze=False)
    for axis_row, kind in zip(axes, shown, strict=True):
        points = means(results(rows, kind))
        panels = [(cost, score) for cost in COSTS for score in SCORES]
        for ax, (cost, score) in zip(axis_row, panels, strict=True):
            _panel(ax, points, cost, score, looks)
            tidy(ax, COSTS[cost], SCORES[score], "single networks" if kind == "single" else "ensembles")
    lines = {row["method"] for row in rows if row["sparsity"] is not None}
    handles = [
        line(name, **(look if name in lines else {"color": look["color"]} | STAR)) for name, look in looks.items()
    ]
    if any(row["sparsity"] is None for row in rows):
        handles += [line("own stopping rule", color=INK, **STAR)]
    handles += [line("Pareto front", color=INK, **HALO)]
    legend_below(figure, handles, 5)
    return figure


def _panel(ax: Any, points: Sequence[dict[str, Any]], cost: str, score: str, looks: dict[str, dict[str, Any]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for method, look in looks.items():
        own = [p for p in points if p["method"] == method]
        path = sorted((p[cost], p[score]) for p in own if p["target"] is not None)
        if path:
            ax.plot(*zip(*path, strict=True), **look)
        for x, y in [(p[cost], p[score]) for p in own if p["target"] is None]:
            ax.plot(x, y, color=look["color"], **STAR)
    for p in pareto_front(points, cost, score):
        ax.plot(p[cost], p[score], color=looks[p["method"]]["color"], **HALO)
    ax.set(xscale="log", yscale="log")
    wide, narrow = (
        ((1.0, 3.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
        ((1.0, 2.0, 3.0, 5.0, 7.0), (1.0, 1.1, 1.2, 1.5, 3.0, 9.0)),
    )
    for place, axis in enumerate((ax.xaxis, ax.yaxis)):
        low, high = axis.get_view_interval()
        subs = (narrow if high < 10 ** (1 - place / 2) * low else wide)[place]
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{x:g}" if x < 1000 else f"{x / 1000:g}k" if x < 1e6 else f"{x / 1e6:g}M")
        )
        axis.set_minor_locator(NullLocator())


def _looks(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """A colour, a dash and a marker per method; in a family the same dash and marker come again after twelve."""
    looks, count = {}, dict.fromkeys((row["family"] for row in rows), 0)
    for method, family in dict.fromkeys((row["method"], row["family"]) for row in rows):
        looks[method] = {
            "color": method_colour(method, family),
            "linestyle": DASHES[count[family] % len(DASHES)],
            "linewidth": 1.1,
            "alpha": 0.8,
            "marker": MARKERS[count[family] % len(MARKERS)],
            "markersize": 5,
            "markerfacecolor": "none",
        }
        count[family] += 1
    return looks


if __name__ == "__main__":
    sys.exit(main())
