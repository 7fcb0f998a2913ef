"""Draw feature selection on correlated designs from its results alone: found and false features, error by predictor.

python -m experiments.saha.figure_sun [--results DIR] [--out DIR]
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.figures import COLOURS, main, of_one_setting
from sgmcmc_prune.report.style import tidy

#: What a score is, by design; the rest are regressions.
SCORES = {3: "test accuracy"}


def draw(results: dict[str, Any]) -> plt.Figure:
    """One column per design: counts of features above (linear up to ten), scores before and after pruning below."""
    every = of_one_setting(results["runs"], ("steps", "num_data"))
    designs = sorted({run["design"] for run in every})
    methods = list(dict.fromkeys(run["method"] for run in every))
    size = (0.3 + 2.6 * len(designs), 5.2)
    figure, grid = plt.subplots(2, len(designs), figsize=size, layout="constrained", squeeze=False)
    for column, design in enumerate(designs):
        counts, scores = grid[:, column]
        here = [run for run in every if run["design"] == design]
        for index, method in enumerate(methods):
            colour = COLOURS[method]
            runs = [run for run in here if run["method"] == method]
            spread = np.linspace(-0.06, 0.06, len(runs)) if len(runs) > 1 else np.zeros(len(runs))
            for key, marker, shift in (("true_positives", "o", -0.15), ("false_positives", "x", 0.15)):
                counts.plot(index + shift + spread, [run[key] for run in runs], marker, color=colour, mfc="none")
            for before, after, marker in (("monte_carlo", "median_sampled", "o"), ("mean", "median_mean", "x")):
                pairs = [(run["score"][before], run["score"][after]) for run in runs]
                if pairs:
                    scores.plot(*zip(*pairs, strict=True), marker, color=colour, mfc="none", ls="none")
        counts.axhline(here[0]["relevant"], color="0.6", ls=":")
        counts.set_xticks(range(len(methods)), methods)
        counts.set_xlim(-0.5, len(methods) - 0.5)
        counts.set_yscale("symlog", linthresh=10)
        counts.yaxis.set_major_formatter("{x:g}")
        counts.set_ylim(-0.5, 2000)  # up to all inputs
        tidy(counts, "", "features", f"design {design}")
        label = SCORES.get(design, "test MSE")
        tidy(scores, f"{label} before pruning", "after pruning")
        low = min(*scores.get_xlim(), *scores.get_ylim())
        scores.axline((low, low), slope=1, color="0.6", ls=":")
    figure.suptitle(
        "Equicorrelated designs. Above: circles found, crosses false; below: circles draws, crosses means (our figure)",
        fontsize=10,
    )
    return figure


if __name__ == "__main__":
    main(__doc__, "saha_sun*.json", Path(__file__).with_name("sun.py"), draw)
