"""Draw an experiment on Dhahri et al. (digits or LeNet) from its results alone. Our figure, not the paper's.

    python -m experiments.dhahri.figure [--results FILE] [--out STEM]

Above: accuracy against sparsity when masked by OPD, single weights and whole units, for plain weight decay and each
prior and curvature. Below: the four scores on the networks of the parameterwise diagonal prior; log evidence of every
network against its accuracy at 95 %; open squares are KFAC. Means over seeds; bars are 95 % Student-t intervals.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures import COLOURS, WIDTH, save
from sgmcmc_prune.predictive.intervals import mean_and_half_width
from sgmcmc_prune.report.style import legend_below, line, new_figure, tidy
from sgmcmc_prune.store.files import read_json

BEST = "parameterwise, diagonal"
SCORES = ("OPD", "OBD", "magnitude", "random")
#: Trainings that differ from another in the estimator, the update or online pruning alone: in the tables, not here.
SHOWN = 2


def curve(runs: list[dict[str, Any]], score: str) -> tuple[list[float], np.ndarray]:
    """Sparsities, and accuracy in percent of every run at each: shape (runs, sparsities)."""
    rows = [[row for row in run["pruned"] if row["score"] == score] for run in runs]
    return [row["sparsity"] for row in rows[0]], np.array([[100 * row["accuracy"] for row in run] for run in rows])


def draw_curve(ax: Any, runs: list[dict[str, Any]], score: str, **looks: Any) -> None:
    """Mean and interval against the kept fraction, on a log scale."""
    sparsities, values = curve(runs, score)
    mean, half = mean_and_half_width(values)
    kept = [100 * (1 - s) for s in sparsities]
    ax.errorbar(kept, mean, np.nan_to_num(half), marker="o", markersize=3.5, linewidth=1.4, capsize=2, **looks)


def draw(cells: dict[str, list[dict[str, Any]]]) -> Any:
    """The figure."""
    shown = {name: runs for name, runs in cells.items() if len(name.split(", ")) <= SHOWN}
    looks = {
        name: {"color": COLOURS[name.split(", ")[0]], "linestyle": "--" if "KFAC" in name else "-"} for name in shown
    }
    figure = new_figure(WIDTH, 6.4)
    left, units, middle, right = figure.subplots(2, 2).flat
    for name, runs in shown.items():
        draw_curve(left, runs, "OPD", **looks[name])
        draw_curve(units, runs, "OPD, units", **looks[name])
    for score in SCORES:
        looks_of = {"color": COLOURS[score], "label": score, "linestyle": ":" if score == "OBD" else "-"}
        draw_curve(middle, shown[BEST], score, **looks_of)
    middle.legend(fontsize=8, frameon=False)
    for ax, score in ((left, "OPD"), (units, "OPD, units"), (middle, "OPD")):
        ax.set_xscale("log")
        ax.invert_xaxis()
        kept = [100 * (1 - s) for s in curve(shown[BEST], score)[0]]
        ax.set_xticks(kept, [f"{k:.0f}" for k in kept])
        ax.set_xticks([], minor=True)
        ax.set_ylim(0, 102)
    for name, runs in shown.items():
        sparsities, values = curve(runs, "OPD")
        evidence = [run["log_evidence_per_example"] for run in runs]
        marker = "s" if "KFAC" in name else "o"
        right.plot(
            evidence,
            values[:, sparsities.index(0.95)],
            marker,
            color=looks[name]["color"],
            fillstyle="none" if "KFAC" in name else "full",
            markersize=5,
        )
    tidy(left, "kept parameters (%)", "test accuracy (%)", "single weights, by OPD")
    tidy(units, "kept units of a layer (%)", "test accuracy (%)", "whole units, by OPD")
    tidy(middle, "kept parameters (%)", "test accuracy (%)", f"four scores ({BEST})")
    tidy(
        right,
        "log evidence per training image (nats)",
        "test accuracy at 95 % sparsity (%)",
        "filled: diagonal; hollow: KFAC",
    )
    legend_below(figure, [line(name, **look) for name, look in looks.items()], 3)
    return figure


def main() -> None:
    """Read the results and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "dhahri_digits.json")
    parser.add_argument("--out", type=Path, help="without an ending; runs/figures/<results> by default")
    a = parser.parse_args()
    if not a.results.exists():
        raise SystemExit(f"{a.results} does not exist; run the experiment of that name first")
    cells = read_json(a.results)
    if BEST not in cells:
        raise SystemExit(f"{a.results} has no training {BEST!r}; run the experiment without --trainings")
    print(*save(draw(cells), a.out or Path("runs/figures") / a.results.stem), sep="\n")


if __name__ == "__main__":
    main()
