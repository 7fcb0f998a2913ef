"""Draw the image experiments from their results alone: loss, KL and kept nodes by step; gates; accuracy against cost.

    python analysis/jantre_images.py [--results DIR] [--out DIR]

One picture for each `jantre_NETWORK_DATA.json`; points of the last panel are median models, physically pruned.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sgmcmc_prune.files import read_json


def draw(results: dict[str, Any]) -> plt.Figure:
    """Six panels; the first seed of each family in all but the last."""
    families = list(dict.fromkeys(run["family"] for run in results["runs"]))
    figure, grid = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    nll, divergence, kept, gates, layers, cost = grid.flat
    for index, family in enumerate(families):
        runs, colour = [r for r in results["runs"] if r["family"] == family], f"C{index}"
        trace = runs[0]["trace"]
        steps = [t["step"] for t in trace]
        for axes, key in ((nll, "nll"), (divergence, "kl"), (kept, "kept")):
            axes.plot(steps, [t[key] for t in trace], color=colour, label=family)
        values = [v for layer in runs[0]["inclusion"].values() for v in layer]
        if values:
            gates.hist(values, bins=40, range=(0, 1), histtype="step", color=colour)
            fractions = [sum(v > 0.5 for v in layer) / len(layer) for layer in runs[0]["inclusion"].values()]
            layers.plot(range(1, len(fractions) + 1), fractions, "o-", color=colour)
        for run in runs:
            cost.plot(run["multiply_adds"], run["predictors"]["median_mean"]["accuracy"], "o", color=colour)
    nll.set(xlabel="step", ylabel="minibatch NLL", yscale="log")
    divergence.set(xlabel="step", ylabel="KL (nats)", yscale="log")
    kept.set(xlabel="step", ylabel="expected open gates", yscale="log")
    gates.set(xlabel="inclusion probability", ylabel="nodes", yscale="log")
    layers.set(xlabel="gated layer", ylabel="fraction of nodes kept", ylim=(0, 1.05))
    cost.set(xlabel="multiply-adds, relative", ylabel="accuracy of the pruned network", xscale="log")
    nll.legend(fontsize="small")
    figure.suptitle(f"{results['network']} on {results['data']} (our figure)")
    return figure


def main() -> None:
    """Draw each result that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks"))
    parser.add_argument("--out", type=Path, default=Path("runs/figures"))
    args = parser.parse_args()
    found = [(path, read_json(path)) for path in sorted(args.results.glob("jantre_*.json"))]
    found = [(path, results) for path, results in found if "network" in results]
    if not found:
        raise SystemExit(f"{args.results} holds no jantre_NETWORK_DATA.json; run experiments/jantre_images.py first")
    args.out.mkdir(parents=True, exist_ok=True)
    for path, results in found:
        figure = draw(results)
        figure.savefig(args.out / f"{path.stem}.png", dpi=130)
        plt.close(figure)
        print(args.out / f"{path.stem}.png")


if __name__ == "__main__":
    main()
