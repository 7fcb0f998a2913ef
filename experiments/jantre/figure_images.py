"""Draw the image experiments from their results alone: loss, KL and open gates by step; kept nodes; accuracy by cost.

    python -m experiments.jantre.figure_images [--results DIR] [--out DIR]

One picture for each `jantre_NETWORK_DATA.json`; points of the last panel are median models, physically pruned.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.figures import main, of_one_setting
from sgmcmc_prune.report.style import colours, tidy


def draw(results: dict[str, Any]) -> plt.Figure:
    """Six panels; the first seed of each family in all but the last."""
    every = of_one_setting(
        results["runs"], ("split", "epochs", "batch", "lr", "gate_lr", "std_lr", "warm_up", "prior_std")
    )
    families = list(dict.fromkeys(run["family"] for run in every))
    figure, grid = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    nll, divergence, kept, gates, layers, cost = grid.flat
    for family, colour in zip(families, colours(len(families)), strict=True):
        runs = [r for r in every if r["family"] == family]
        trace = runs[0]["trace"]
        steps, start = [t["step"] for t in trace], trace[0]["kept"]
        nll.plot(steps, [t["nll"] for t in trace], color=colour, label=family, lw=1)
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
    tidy(kept, "step", "expected open gates, relative to the start")
    tidy(gates, "inclusion probability", "nodes")
    tidy(layers, "gated layer", "fraction of nodes kept")
    what = "circles: multiply-adds; crosses: latency"
    tidy(cost, "relative to the dense network", f"{every[0]['split']} accuracy of the pruned network", what)
    for axes in (divergence, gates):
        axes.set_yscale("log")
    for axes in (kept, layers):
        axes.set_ylim(0, 1.05)
    cost.set_xlim(0, 1.05)
    nll.legend(fontsize="small")
    figure.suptitle(f"{every[0]['network']} on {every[0]['data']} (our figure)")
    return figure


if __name__ == "__main__":
    main(__doc__, "jantre_*_*.json", Path(__file__).with_name("images.py"), draw)
