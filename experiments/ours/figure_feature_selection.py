"""Draw the comparison of feature selectors from its results alone: power against false discoveries, inclusion, cost.

python -m experiments.ours.figure_feature_selection [--results DIR] [--out DIR]
"""

from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.figures import main, of_one_setting
from sgmcmc_prune.report.style import colours, tidy

RELEVANT = 5


def draw(results: dict[str, Any]) -> plt.Figure:
    """Mean power and false discovery rate over data sets; each feature's inclusion; seconds a data set."""
    runs = of_one_setting(results["runs"], ("n", "p", "steps"))
    sets = Counter(run["method"] for run in runs)
    methods = list(sets)
    figure, (rates, inclusion, cost) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for index, (method, colour) in enumerate(zip(methods, colours(len(methods)), strict=True)):
        here = [run for run in runs if run["method"] == method]
        for x, key, marker in ((index - 0.12, "power", "o"), (index + 0.12, "false_discovery_rate", "s")):
            values = np.array([run[key] for run in here])
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
            rates.errorbar(x, values.mean(), error, marker=marker, color=colour, capsize=3)
        values = np.array([run["inclusion"] for run in here])
        for x, part in ((index - 0.12, values[:, :RELEVANT]), (index + 0.12, values[:, RELEVANT:])):
            jitter = np.linspace(-0.08, 0.08, part.size)
            inclusion.plot(x + jitter, part.flatten(), ".", color=colour, ms=3, alpha=0.6)
        cost.plot([index] * len(here), [run["seconds"] for run in here], "o", mfc="none", color=colour)
    inclusion.axhline(0.5, color="0.6", ls=":")
    tidy(rates, "", "mean over data sets", "circles: power; squares: false discovery rate")
    tidy(inclusion, "", "inclusion", "left: relevant features; right: others")
    tidy(cost, "", "wall time (s)", "each data set")
    cost.set_ylim(bottom=0)
    rates.set_ylim(-0.05, 1.05)
    for axes in (rates, inclusion, cost):
        axes.set_xticks(range(len(methods)), [f"{m}\n({sets[m]} data sets)" for m in methods], fontsize="small")
        axes.set_xlim(-0.5, len(methods) - 0.5)
    figure.suptitle(f"n = {runs[0]['n']:,}, p = {runs[0]['p']}, five relevant features (our figure)")
    return figure


if __name__ == "__main__":
    main(__doc__, "feature_selection*.json", Path(__file__).with_name("feature_selection.py"), draw)
