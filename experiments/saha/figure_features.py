"""Draw the feature-selection experiments from their results alone: inclusion, true and false positives, error.

    python -m experiments.saha.figure_features [--results DIR] [--out DIR]

One picture for each of `saha_features.json` and `saha_features_hard.json`.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.figures import COLOURS, WIDTH, main
from sgmcmc_prune.report.style import DASHES, legend_below, line, tidy

RELEVANT = 5


def rates(runs: list[dict[str, Any]], thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positive rate at each threshold, averaged over data sets."""
    found = np.stack([np.array(run["inclusion"])[None] > thresholds[:, None] for run in runs]).mean(0)
    return found[:, :RELEVANT].mean(1), found[:, RELEVANT:].mean(1)


def draw(results: dict[str, Any]) -> plt.Figure:
    """Inclusion of the first data set by method; rates against the threshold; RMSE before and after pruning."""
    methods = list(dict.fromkeys(run["method"] for run in results["runs"]))
    figure, (inclusion, rate, error) = plt.subplots(1, 3, figsize=(WIDTH + 1, 3.1), layout="constrained")
    thresholds = np.linspace(0, 1, 201)
    for index, method in enumerate(methods):
        colour = COLOURS[method]
        runs = [r for r in results["runs"] if r["method"] == method]
        values = np.array(runs[0]["inclusion"])
        order = np.argsort(-values)
        dash = DASHES[index % len(DASHES)]  # curves that lie on each other stay visible
        inclusion.plot(np.arange(1, len(order) + 1), values[order], color=colour, ls=dash)
        true = np.isin(order, range(RELEVANT))
        inclusion.plot(np.flatnonzero(true) + 1, values[order][true], "o", color=colour)
        for rates_, style in zip(rates(runs, thresholds), ("-", ":"), strict=True):
            rate.plot(thresholds, rates_, style, color=colour)
        for before, after, marker in (("monte_carlo", "median_sampled", "o"), ("mean", "median_mean", "x")):
            pairs = [(r["rmse"][before], r["rmse"][after]) for r in runs]
            error.plot(*zip(*pairs, strict=True), marker, color=colour, mfc="none", ls="none")
    tidy(inclusion, "feature, sorted", "inclusion probability", "dots: relevant features")
    inclusion.set_xscale("log")
    tidy(rate, "threshold", "rate", "dotted: false positives")
    tidy(error, "test RMSE before pruning", "after pruning", "circles: draws; crosses: means")
    low = min(*error.get_xlim(), *error.get_ylim())
    error.axline((low, low), slope=1, color="0.5", ls=":")
    looks = [line(m, color=COLOURS[m], ls=DASHES[i % len(DASHES)]) for i, m in enumerate(methods)]
    legend_below(figure, looks, 5)
    first = results["runs"][0]
    figure.suptitle(f"n = {first['n']:,}, p = {first['p']}, five relevant (our figure)", fontsize=10)
    return figure


if __name__ == "__main__":
    main(__doc__, "saha_features*.json", Path(__file__).with_name("features.py"), draw)
