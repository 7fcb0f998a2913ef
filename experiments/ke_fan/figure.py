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

from experiments.figures import main

METHODS = {"ours": "spike-and-slab EM, T = 1", "no EM": "no EM (Gaussian prior)", "no noise": "no noise (T = 0)"}
STYLES: dict[str, dict[str, Any]] = {
    "ours": {"color": "C0", "lw": 3},
    "no EM": {"color": "C1", "lw": 1.5},
    "no noise": {"color": "C2", "lw": 1.5, "ls": "--"},
    "true inputs": {"color": "0.4", "lw": 1.5, "ls": ":"},
}


def draw_inputs(axes: Axes, values: list[float], support: list[int]) -> None:
    """One value per input, counted from 1 on a log scale: relevant ones as red dots, the others as small grey dots."""
    others = [i for i in range(len(values)) if i not in support]
    axes.plot([i + 1 for i in others], [values[i] for i in others], ".", color="0.6", markersize=3, label="irrelevant")
    axes.plot([i + 1 for i in support], [values[i] for i in support], "o", color="C3", markersize=5, label="relevant")
    axes.set_xscale("log")


def draw(results: dict[str, Any]) -> plt.Figure:
    """The picture of one example."""
    design, runs = results["design"], results["runs"]
    first = min(r["seed"] for r in runs)
    by_method = {r["method"]: r for r in runs if r["seed"] == first}
    methods = [m for m in METHODS if m in by_method]
    figure, grid = plt.subplots(len(methods) + 1, 2, figsize=(10, 2.3 * (len(methods) + 1)), layout="constrained")
    for row, method in zip(grid, methods, strict=False):
        selection = by_method[method]["selection"]
        draw_inputs(row[0], selection["mean_abs_weight"], design["support"])
        draw_inputs(row[1], selection["inclusion"], design["support"])
        row[0].set(ylabel="mean |W1|", title=METHODS[method])
        row[1].set(
            ylabel="inclusion probability",
            ylim=(-0.05, 1.05),
            title=f"{selection['kept']} of {design['num_inputs']} kept",
        )
    for axes in grid[len(methods) - 1]:
        axes.set_xlabel("input (counted from 1)")
    grid[0, 0].legend(loc="upper right", fontsize="small")
    loss, kept = grid[-1]
    for method, run in by_method.items():
        steps = [t[0] for t in run["trace"]]
        loss.plot(steps, [t[2] for t in run["trace"]], label=method, **STYLES[method])
        kept.step(steps, [t[1] for t in run["trace"]], where="post", **STYLES[method])
    loss.set(xlabel="step", ylabel="training loss (nats)")
    kept.set(xlabel="step", ylabel="kept inputs", yscale="log")
    loss.legend(fontsize="small")
    figure.suptitle(f"Example {design['number']}, seed {first}: inputs at the first decision, and the run (our figure)")
    return figure


if __name__ == "__main__":
    main(__doc__, "ke_fan_example?.json", Path(__file__).with_name("example1.py"), draw)
