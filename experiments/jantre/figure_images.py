"""Draw the image experiments from their results alone: loss, KL and open gates by step; kept nodes; accuracy by cost.

    python -m experiments.jantre.figure_images [--results DIR] [--out DIR]

One picture for each `jantre_NETWORK_DATA.json`; points of the last panel are median models, physically pruned.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.figures import COLOURS, FAMILY_NAMES, WIDTH, main, of_one_setting
from sgmcmc_prune.report.style import legend_below, line, tidy


def draw(results: dict[str, Any]) -> plt.Figure:
    """Six panels; the first seed of each family in all but the last."""
    every = of_one_setting(
        results["runs"], ("split", "epochs", "batch", "lr", "gate_lr", "std_lr", "warm_up", "prior_std")
    )
    families = list(dict.fromkeys(run["family"] for run in every))
    figure, grid = plt.subplots(3, 2, figsize=(WIDTH, 7.6), layout="constrained")
    nll, divergence, kept, gates, layers, cost = grid.flat
    for family in families:
        colour = COLOURS[family]
        runs = [r for r in every if r["family"] == family]
        trace = runs[0]["trace"]
        steps, start = [t["step"] for t in trace], trace[0]["kept"]
        nll.plot(steps, [t["nll"] for t in trace], color=colour, lw=1)
        divergence.plot(steps, [t["kl"] for t in trace], color=colour)
        if start:
            kept.plot(steps, [t["kept"] / start for t in trace], color=colour)
        values = [v for layer in runs[0]["inclusion"].values() for v in layer]
        if values:
            gates.hist(values, bins=40, range=(0, 1), histtype="step", color=colour)
            fractions = [sum(v > 0.5 for v in layer) / len(layer) for layer in runs[0]["inclusion"].values()]
            layers.plot(range(1, len(fractions) + 1), fractions, "o-", color=colour)
            layers.set_xticks(range(1, len(fractions) + 1))
        for run in runs:
            accuracy = run["predictors"]["median_mean"]["accuracy"]
            cost.plot(run["multiply_adds"], accuracy, "o", color=colour)
            if "latency" in run:  # which older records lack
                cost.plot(run["latency"]["128"]["ratio"]["median"], accuracy, "x", color=colour)
    tidy(nll, "step", "NLL of one minibatch (nats)")
    tidy(divergence, "step", "KL (nats)")
    tidy(kept, "step", "open gates (start: 1)")
    tidy(gates, "inclusion probability", "nodes")
    tidy(layers, "gated layer", "fraction of nodes kept")
    timed = any("latency" in run for run in every)
    what = "circles: multiply-adds; crosses: latency" if timed else "multiply-adds (no latency in these records)"
    tidy(cost, "relative to the dense network", f"{every[0]['split']} accuracy, pruned", what)
    for axes in (divergence, gates):
        axes.set_yscale("log")
    for axes in (kept, layers):
        axes.set_ylim(0, 1.05)
    cost.set_xlim(0, 1.05)
    legend_below(figure, [line(FAMILY_NAMES[family], color=COLOURS[family]) for family in families], 5)
    figure.suptitle(f"{every[0]['network']} on {every[0]['data']} (our figure)", fontsize=10)
    return figure


if __name__ == "__main__":
    main(__doc__, "jantre_*_*.json", Path(__file__).with_name("images.py"), draw)
