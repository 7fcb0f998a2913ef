"""Whether the dense predictive is calibrated on held-out examples: of classes, or of numbers."""

import numpy as np

from sgmcmc_prune.predictive.intervals import wilson_interval
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.style import INK, PALETTE, Picture, new_figure, tidy


def reliability_diagram(run: RunData) -> Picture:
    """Draw accuracy against confidence with Wilson intervals, over the number of examples in each bin."""
    title = "Reliability of the dense predictive"
    if run.reliability is None:
        return Picture(
            "reliability", title, "There is no reliability.json: the dense predictive was not evaluated yet."
        )
    if "pit" in run.reliability:
        return _pit_histogram(np.array(run.reliability["pit"]))
    count = np.array(run.reliability["count"])
    filled = count > 0  # empty bins hold null
    confidence, accuracy = (np.array(run.reliability[k], dtype=float)[filled] for k in ("confidence", "accuracy"))
    low, high = wilson_interval(accuracy, count[filled])
    figure = new_figure(5, 5.5)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="perfectly calibrated")
    error = np.stack([accuracy - low, high - accuracy]).clip(0)
    top.errorbar(
        confidence, accuracy, error, color=PALETTE[0], marker="o", ms=4, ls="", capsize=2, label="dense predictive"
    )
    top.legend(fontsize=8, frameon=False, loc="upper left")
    top.set_xlim(0, 1.02)
    top.set_ylim(-0.02, 1.02)
    edges = np.linspace(0, 1, len(count) + 1)
    bottom.stairs(count, edges, fill=True, color=PALETTE[5])
    tidy(top, "", "accuracy")
    tidy(bottom, "confidence (largest predicted probability)", "examples")
    caption = (
        f"Among {int(count.sum()):,} held-out examples predicted with a given confidence, the share that is right "
        "(bars: 95 % Wilson intervals). Points under the diagonal mean overconfidence, points over it underconfidence; "
        "below, how many examples each bin holds."
    )
    return Picture("reliability", title, caption, "Accuracy against confidence, and examples per bin.", figure)


def _pit_histogram(count: np.ndarray) -> Picture:
    """How often a target lies below what share of its predictive distribution: level if calibrated."""
    total, bins = count.sum(), len(count)
    figure = new_figure(5, 3.4)
    ax = figure.subplots()
    ax.stairs(count / total * bins, np.linspace(0, 1, bins + 1), fill=True, color=PALETTE[5])
    half = 1.96 * np.sqrt((1 / bins) * (1 - 1 / bins) / total) * bins
    ax.axhline(1, color=INK, linestyle="--", linewidth=1)
    ax.axhspan(1 - half, 1 + half, color=INK, alpha=0.08, linewidth=0)
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    tidy(ax, "probability integral transform of the target", "density")
    caption = (
        f"Where {int(total):,} held-out targets lie in their predictive distributions. Calibrated predictions give a "
        "level histogram (dashed; the band holds 95 % of the bars). A hump in the middle means intervals that are too "
        "wide, high ends intervals that are too narrow, a slope means a bias."
    )
    return Picture(
        "reliability",
        "Calibration of the dense predictive",
        caption,
        "Histogram of the PIT of held-out targets.",
        figure,
    )
