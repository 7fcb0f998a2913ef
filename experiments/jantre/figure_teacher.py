"""Draw the teacher experiment from its results alone: kept nodes, inclusion of each node, course of training.

python -m experiments.jantre.figure_teacher [--results DIR] [--out DIR]
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.figures import WIDTH, main, of_one_setting
from sgmcmc_prune.report.style import PALETTE, tidy

COLOURS = {"low": PALETTE[0], "high": PALETTE[1]}
#: Beside each other, where both starts keep as many nodes.
SHIFT = {"low": -0.1, "high": 0.1}


def draw(results: dict[str, Any]) -> plt.Figure:
    """Three panels."""
    runs = of_one_setting(results["runs"], ("steps", "refit"))
    figure, (kept, inclusion, course) = plt.subplots(1, 3, figsize=(WIDTH + 1, 2.9), layout="constrained")
    for run in runs:
        colour = COLOURS[run["start"]]
        x = run["seed"] + SHIFT[run["start"]]
        kept.plot(x, run["kept"], "o", mfc="none", color=colour)
        kept.plot(x, run["kept_after_elimination"], "x", color=colour)
        inclusion.plot(range(1, len(run["inclusion"]) + 1), run["inclusion"], ".-", lw=0.7, color=colour)
        course.plot([t["step"] for t in run["trace"]], [t["kept"] for t in run["trace"]], color=colour)
    kept.axhline(2, color="0.5", ls=":")
    tidy(kept, "data set", "nodes kept", "circles before, crosses after")
    kept.set_xticks(sorted({run["seed"] for run in runs}))
    kept.set_ylim(bottom=0)
    inclusion.axhline(0.5, color="0.5", ls=":")
    tidy(inclusion, "node, sorted by inclusion", "inclusion probability", "before elimination")
    inclusion.set_xticks(range(2, 21, 3))
    tidy(course, "step", "expected open gates", "before elimination")
    course.set_ylim(bottom=0)
    for start in sorted({run["start"] for run in runs}):
        course.plot([], [], color=COLOURS[start], label=f"{start} start")
    course.legend(fontsize="small")
    figure.suptitle("SS-IG on a teacher with two nodes, student with 20 (our figure)", fontsize=10)
    return figure


if __name__ == "__main__":
    main(__doc__, "jantre_teacher.json", Path(__file__).with_name("teacher.py"), draw)
