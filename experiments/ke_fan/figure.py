"""Draw the variable-selection examples of Ke and Fan from their results alone. Our figures, not the paper's.

    python -m experiments.ke_fan.figure [--results DIR] [--out DIR]

For each `ke_fan_example{1,2,3}.json` in DIR (benchmarks by default), one picture of the first seed: mean |W1| of each
input before any was removed and its inclusion probability, by method, with the relevant inputs marked; and loss and
number of kept inputs against the step.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from experiments.figures import COLOURS, WIDTH, main
from sgmcmc_prune.report.style import PALETTE, legend_below, line, tidy

RELEVANT = PALETTE[4]
METHODS = {"ours": "spike-and-slab EM, T = 1", "no EM": "no EM (Gaussian prior)", "no noise": "no noise (T = 0)"}
STYLES: dict[str, dict[str, Any]] = {
    "ours": {"color": COLOURS["ours"], "lw": 3},
    "no EM": {"color": COLOURS["no EM"], "lw": 1.5},
    "no noise": {"color": COLOURS["no noise"], "lw": 1.5, "ls": "--"},
    "true inputs": {"color": COLOURS["true inputs"], "lw": 1.5, "ls": ":"},
}


def draw_inputs(axes: Axes, values: list[float], support: list[int]) -> None:
    """One value per input, counted from 1 on a log scale: relevant ones large, the others small and grey."""
    others = [i for i in range(len(values)) if i not in support]
    axes.plot([i + 1 for i in others], [values[i] for i in others], ".", color="0.6", markersize=2)
    axes.plot([i + 1 for i in support], [values[i] for i in support], "o", color=RELEVANT, markersize=4)
    axes.set_xscale("log")


def draw(results: dict[str, Any]) -> plt.Figure:
    """The picture of one example."""
    design, runs = results["design"], results["runs"]
    first = min(r["seed"] for r in runs)
    by_method = {r["method"]: r for r in runs if r["seed"] == first}
    methods = [m for m in METHODS if m in by_method]
    figure, grid = plt.subplots(len(methods) + 1, 2, figsize=(WIDTH, 1.75 * (len(methods) + 1)), layout="constrained")
    for row, method in zip(grid, methods, strict=False):
        selection = by_method[method]["selection"]
        draw_inputs(row[0], selection["mean_abs_weight"], design["support"])
        draw_inputs(row[1], selection["inclusion"], design["support"])
        tidy(row[0], "input (counted from 1)", "mean |W1|", METHODS[method])
        kept = f"{selection['kept']} of {design['num_inputs']} kept"
        tidy(row[1], "input (counted from 1)", "P(included)", kept)
        row[1].set_ylim(-0.05, 1.05)
    loss, kept = grid[-1]
    for method, run in by_method.items():
        steps = [t[0] for t in run["trace"]]
        loss.plot(steps, [t[2] for t in run["trace"]], **STYLES[method])
        kept.step(steps, [t[1] for t in run["trace"]], where="post", **STYLES[method])
    tidy(loss, "step", "loss (nats)")
    tidy(kept, "step", "kept inputs")
    kept.set_yscale("log")
    dots = [line(name, color=c, marker="o", ls="none", ms=4) for name, c in (("relevant", RELEVANT), ("other", "0.6"))]
    legend_below(figure, [*(line(m, **STYLES[m]) for m in by_method), *dots], 6)
    figure.suptitle(
        f"Example {design['number']}, seed {first}: inputs at the first decision, and the run (our figure)", fontsize=10
    )
    return figure


if __name__ == "__main__":
    main(__doc__, "ke_fan_example?.json", Path(__file__).with_name("example1.py"), draw)
