"""Quality against sparsity, post hoc and in the chain: one run, or the mean of runs that differ in their seed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.scales import accuracy_axis, log_scale, sparsity_axis
from sgmcmc_prune.report.style import (
    CRITERIA,
    INK,
    Picture,
    criterion_colour,
    legend_below,
    line,
    new_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"accuracy": "accuracy", "nll": "NLL (nats per example)", "ece": "ECE"}
WHEN = {"post_hoc": "pruned post hoc", "in_chain": "pruned in the chain"}

DECISIONS = {"median": "median model", "fdr": "false discovery rate"}
LOOKS: dict[str, dict[str, Any]] = {
    "target": {"marker": "o", "ms": 4},
    "median": {"marker": "D", "ms": 5, "ls": "", "mfc": "white"},
    "fdr": {"marker": "s", "ms": 6, "ls": "", "mfc": "white"},
}


Metrics = Mapping[str, Any]


def quality_against_sparsity(run: RunData) -> Picture:
    """Draw accuracy, NLL and ECE of one run."""
    title = "Quality against sparsity"
    if run.metrics is None:
        return Picture("sparsity", title, "The run has not been evaluated yet: there is no metrics.json.")
    if not run.metrics["pruned"]:
        return Picture("sparsity", title, "Nothing was pruned in this run.")
    split = run.metrics["split"]
    caption = (
        f"Posterior predictive on the {split} split against the share of pruned weights. The scales are logarithmic "
        "in the kept share, the error and the NLL. Dashed: the dense predictive. Hollow: the decisions that inclusion "
        "probabilities take without a target, the median probability model and the false discovery rate. Higher "
        "accuracy is better, lower NLL and ECE."
    )
    examples = run.info.get("data", {}).get(split)
    if examples:
        p = run.metrics["dense"]["accuracy"]
        half = 1.96 * np.sqrt(p * (1 - p) / examples)
        caption += (
            f" One seed, {examples:,} examples: each accuracy is known to about ± {100 * half:.1f} points (95 %)."
        )
    figure = draw([run.metrics], ("accuracy", "nll", "ece"))
    return Picture(
        "sparsity", title, caption, "Accuracy, NLL and ECE against sparsity, one line per criterion.", figure
    )


def draw(runs: Sequence[Metrics], keys: Sequence[str]) -> "Figure":
    """Draw one row of panels per metric; with two runs or more, error bars are 95 % Student-t intervals over runs."""
    when = [w for w in WHEN if any(row["when"] == w for row in runs[0]["pruned"])]
    figure = new_figure(1 + 3.3 * len(when), 0.8 + 2.1 * len(keys))
    axes = figure.subplots(len(keys), len(when), squeeze=False, sharex=True, sharey="row")
    present = {row["criterion"] for row in runs[0]["pruned"]}
    criteria = [c for c in CRITERIA if c in present]
    for i, key in enumerate(keys):
        for j, column in enumerate(when):
            _panel(axes[i, j], runs, key, column, criteria)
            last = i == len(keys) - 1
            tidy(axes[i, j], "sparsity" if last else "", "" if j else LABELS[key], "" if i else WHEN[column])
    sparsity_axis(axes[0, 0])
    for key, ax in zip(keys, axes[:, 0], strict=True):
        if key == "accuracy":
            accuracy_axis(ax)
        elif key == "nll":
            log_scale(ax)
    handles = [line(c.replace("_", " "), color=criterion_colour(c), marker="o", ms=4) for c in criteria]
    marks = [line("dense", color=INK, linestyle="--")]
    if any(row["decision"] != "target" for row in runs[0]["pruned"]):
        marks += [line(DECISIONS[kind], color=INK, **LOOKS[kind]) for kind in DECISIONS]
    legend_below(figure, [*handles, *marks], 3)
    return figure


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis and half-width of its 95 % Student-t interval; NaN for a single value."""
    count = len(values)
    if count < 2:
        return values.mean(0), np.full(values.shape[1:], np.nan)
    half = stdtrit(count - 1, 0.975) * values.std(0, ddof=1) / np.sqrt(count)
    return values.mean(0), half


def _panel(ax: "Axes", runs: Sequence[Metrics], key: str, when: str, criteria: Sequence[str]) -> None:
    dense, half = interval(np.array([_number(run["dense"][key]) for run in runs]))
    ax.axhline(float(dense), color=INK, linestyle="--", linewidth=1)
    if np.isfinite(half):
        ax.axhspan(float(dense - half), float(dense + half), color=INK, alpha=0.08, linewidth=0)
    for place, criterion in enumerate(criteria):
        # Error bars of criteria at one sparsity stand side by side.
        dodge = 1 + 0.04 * (place - (len(criteria) - 1) / 2) if len(runs) > 1 else 1.0
        for kind, looks in LOOKS.items():
            kept, mean, half = _curve(runs, key, when, criterion, kind)
            error = half if len(runs) > 1 else None
            if len(kept):
                ax.errorbar(kept * dodge, mean, error, color=criterion_colour(criterion), lw=1.4, capsize=2, **looks)


def _curve(
    runs: Sequence[Metrics], key: str, when: str, criterion: str, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kept share, mean and half-width of a criterion's rows of one kind of decision (the first word of its name)."""
    found = []
    for run in runs:
        rows = [r for r in run["pruned"] if r["criterion"] == criterion and r["when"] == when]
        rows = [r for r in rows if r["decision"].split()[0] == kind]
        found.append([(1 - r["sparsity"], _number(r[key])) for r in rows])
    values = np.array(found).reshape(len(runs), -1, 2)
    mean, half = interval(values)
    drawn = mean[:, 0] > 0  # a network without weights has no place on a log axis; it is in the table
    return mean[drawn, 0], mean[drawn, 1], half[drawn, 1]


def _number(value: float | None) -> float:
    """JSON has no NaN: null stands for it."""
    return np.nan if value is None else float(value)
