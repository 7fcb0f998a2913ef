"""Accuracy and NLL of the posterior predictive against its temperature: is the posterior (T = 1) the best?

    python analysis/temperature_curve.py runs/izmailov_resnet20_frn/paper/* --out curve.png

Runs that differ only in temperature and seed make one curve: means over seeds, with 95 % Student-t intervals. T = 0 has
no place on a logarithmic axis and is drawn at its left end. The table goes to the terminal.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgmcmc_prune.predictive.intervals import mean_and_half_width
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.style import PALETTE, legend_below, line, new_figure, png, tidy
from sgmcmc_prune.settings import to_json
from sgmcmc_prune.text_table import format_rows

SCORES = {"accuracy": "accuracy", "nll": "NLL (nats per example)"}
Curves = dict[str, dict[float, list[dict[str, float]]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure and print the table; return 0, or 2 after one line about what is wrong with the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--out", required=True, type=Path, help="the picture (PNG)")
    options = parser.parse_args(argv)
    try:
        curves = read(options.runs)
        print(table(curves))
        options.out.write_bytes(png(draw(curves)))
    except (ValueError, OSError) as error:
        print(f"temperature_curve: {error}", file=sys.stderr)
        return 2
    return 0


def read(paths: Sequence[Path]) -> Curves:
    """The dense scores of finished runs by curve and temperature; ValueError if a run is not finished."""
    curves: dict[str, tuple[str, dict[float, list[dict[str, float]]]]] = {}
    for path in paths:
        run = RunData.open(path)
        if run.metrics is None:
            raise ValueError(f"{path} has no metrics.json; finish it with `sgmcmc-prune resume {path}`")
        c = run.config
        rest = to_json(c) | {"seed": None, "device": None}
        rest["sampler"] = rest["sampler"] | {"temperature": None}
        rest["data"] = rest["data"] | {"data_dir": None}
        normalisation = c.model.normalisation or "its own normalisation"
        name = f"{c.sampler.name}, {c.model.name}, {normalisation}, augmentation {c.data.augmentation}"
        _, points = curves.setdefault(json.dumps(rest, sort_keys=True), (name, {}))
        points.setdefault(c.sampler.temperature, []).append(run.metrics["dense"])
    named = list(curves.values())
    names = [name for name, _ in named]
    # Two curves of one name differ in something else: number them.
    return {f"{n} ({i})" if names.count(n) > 1 else n: points for i, (n, points) in enumerate(named, 1)}


def table(curves: Curves) -> str:
    """One row per curve and temperature, from hot to cold."""
    rows = []
    for name, points in curves.items():
        for temperature in sorted(points, reverse=True):
            runs = points[temperature]
            scores = [mean_and_half_width([r[key] for r in runs]) for key in (*SCORES, "ece", "single_accuracy")]
            shown = [f"{mean:.4f}" + ("" if np.isnan(half) else f" ± {half:.4f}") for mean, half in scores]
            rows.append([name, f"{temperature:g}", str(len(runs)), *shown])
    return format_rows(("curve", "T", "seeds", "accuracy", "NLL", "ECE", "single accuracy"), rows)


def draw(curves: Curves) -> Any:
    """One panel for accuracy and one for NLL."""
    temperatures = sorted({t for points in curves.values() for t in points})
    coldest = min((t for t in temperatures if t > 0), default=1.0)
    place = {t: t if t > 0 else coldest / 3 for t in temperatures}
    figure = new_figure(8, 3.6)
    for ax, (key, label) in zip(figure.subplots(1, 2), SCORES.items(), strict=True):
        for colour, points in zip(PALETTE, curves.values(), strict=False):
            x = [place[t] for t in sorted(points)]
            values = np.array([mean_and_half_width([r[key] for r in points[t]]) for t in sorted(points)])
            ax.errorbar(x, values[:, 0], yerr=np.nan_to_num(values[:, 1]), color=colour, marker="o", ms=4, capsize=2)
        ax.set_xscale("log")
        ax.set_xticks(list(place.values()), [f"{t:g}" for t in place])
        ax.minorticks_off()
        tidy(ax, "temperature", label)
    legend_below(figure, [line(name, color=c, marker="o") for c, name in zip(PALETTE, curves, strict=False)], 1)
    return figure


if __name__ == "__main__":
    sys.exit(main())
