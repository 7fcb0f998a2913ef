"""Draw test error and log density on the UCI sets from their results alone, one panel per set.

python -m experiments.jantre.figure_uci [--results DIR] [--out DIR]
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.figures import main, of_one_setting
from sgmcmc_prune.report.style import PALETTE, tidy

PREDICTORS = {"monte_carlo": "Monte Carlo", "median_mean": "pruned network"}
UNITS = {"rmse": "RMSE (units of the target)", "nll": "NLL (nats)"}


def draw(runs: list[dict[str, Any]]) -> plt.Figure:
    """Each split and their mean, by family: RMSE above, NLL below, of draws and of the pruned network."""
    sets = list(dict.fromkeys(run["set"] for run in runs))
    figure, grid = plt.subplots(2, len(sets), figsize=(4 * len(sets), 6), layout="constrained", squeeze=False)
    for column, name in enumerate(sets):
        here = [run for run in runs if run["set"] == name]
        families = list(dict.fromkeys(run["family"] for run in here))
        for axes, (key, label) in zip(grid[:, column], UNITS.items(), strict=True):
            for shift, (how, predictor), colour in zip((-0.15, 0.15), PREDICTORS.items(), PALETTE, strict=False):
                for index, family in enumerate(families):
                    values = [run[key][how] for run in here if run["family"] == family]
                    axes.plot([index + shift] * len(values), values, "o", ms=4, mfc="none", color=colour)
                    axes.plot(index + shift, sum(values) / len(values), "_", ms=14, mew=2, color=colour)
                axes.plot([], [], "o", mfc="none", color=colour, label=predictor)
            tidy(axes, "", label, name if key == "rmse" else "")
            axes.set_xticks(range(len(families)), families, rotation=30)
    grid[0, 0].legend(fontsize="small")
    figure.suptitle("UCI regression: splits and means (our figure)")
    return figure


if __name__ == "__main__":
    main(
        __doc__,
        "jantre_uci.json",
        Path(__file__).with_name("uci.py"),
        lambda results: draw(of_one_setting(results["runs"], ("epochs",))),
    )
