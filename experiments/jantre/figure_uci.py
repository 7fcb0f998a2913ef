"""Draw test error and log density on the UCI sets from their results alone, one row of panels per set.

python -m experiments.jantre.figure_uci [--results DIR] [--out DIR]
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.figures import COLOURS, FAMILY_NAMES, WIDTH, main, of_one_setting
from sgmcmc_prune.report.style import legend_below, line, tidy

PREDICTORS = {"monte_carlo": ("Monte Carlo", "o", -0.15), "median_mean": ("pruned network", "x", 0.15)}
UNITS = {"rmse": "RMSE", "nll": "NLL (nats)"}


def draw(runs: list[dict[str, Any]]) -> plt.Figure:
    """Each split and their mean, by family: RMSE on the left, NLL on the right, of draws and of the pruned network."""
    sets = list(dict.fromkeys(run["set"] for run in runs))
    size = (WIDTH, 0.8 + 1.7 * len(sets))
    figure, grid = plt.subplots(len(sets), 2, figsize=size, layout="constrained", squeeze=False)
    for row, name in zip(grid, sets, strict=True):
        here = [run for run in runs if run["set"] == name]
        families = list(dict.fromkeys(run["family"] for run in here))
        for axes, (key, label) in zip(row, UNITS.items(), strict=True):
            for how, (_, marker, shift) in PREDICTORS.items():
                for index, family in enumerate(families):
                    values, colour = [run[key][how] for run in here if run["family"] == family], COLOURS[family]
                    axes.plot([index + shift] * len(values), values, marker, ms=3, mfc="none", color=colour)
                    axes.plot(index + shift, sum(values) / len(values), "_", ms=14, mew=2, color=colour)
            tidy(axes, "", label, name)
            axes.set_xticks(range(len(families)), [FAMILY_NAMES[family] for family in families])
    legend_below(figure, [line(n, color="0.3", marker=m, mfc="none", ls="none") for n, m, _ in PREDICTORS.values()], 2)
    figure.suptitle("UCI regression: splits and means, RMSE in units of the target (our figure)", fontsize=10)
    return figure


def of_results(results: dict[str, Any]) -> plt.Figure:
    """The picture of a file of results: of the runs of one length."""
    return draw(of_one_setting(results["runs"], ("epochs",)))


if __name__ == "__main__":
    main(__doc__, "jantre_uci.json", Path(__file__).with_name("uci.py"), of_results)
