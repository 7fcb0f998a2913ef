"""Draw test error and log density on the UCI sets from their results alone, one panel per set.

python analysis/jantre_uci.py [--results DIR] [--out DIR]
"""

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from from_results import main


def draw(runs: list[dict[str, Any]]) -> plt.Figure:
    """Box plots over splits, by family: RMSE above, NLL below, of the Monte Carlo predictor and the pruned network."""
    sets = list(dict.fromkeys(run["set"] for run in runs))
    figure, grid = plt.subplots(2, len(sets), figsize=(3.2 * len(sets), 6), layout="constrained", squeeze=False)
    for column, name in enumerate(sets):
        here = [run for run in runs if run["set"] == name]
        families = list(dict.fromkeys(run["family"] for run in here))
        for row, key in enumerate(("rmse", "nll")):
            for shift, how, colour in ((-0.2, "monte_carlo", "C0"), (0.2, "median_mean", "C1")):
                values = [[run[key][how] for run in here if run["family"] == family] for family in families]
                style = {"color": colour}
                positions = [i + shift for i in range(len(families))]
                grid[row, column].boxplot(values, positions=positions, widths=0.3, boxprops=style, medianprops=style)
            grid[row, column].set_xticks(range(len(families)), families, rotation=60)
            grid[row, column].set_ylabel(key.upper())
        grid[0, column].set_title(name)
    figure.suptitle("UCI regression: Monte Carlo (blue) and pruned network (orange), over splits (our figure)")
    return figure


if __name__ == "__main__":
    main(__doc__, "jantre_uci.json", "experiments/jantre_uci.py", lambda results: draw(results["runs"]))
