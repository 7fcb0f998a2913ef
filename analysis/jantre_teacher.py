"""Draw the teacher experiment from its results alone: kept nodes, inclusion of each node, course of training.

python analysis/jantre_teacher.py [--results DIR] [--out DIR]
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sgmcmc_prune.files import read_json

COLOURS = {"low": "C0", "high": "C1"}


def draw(results: dict[str, Any]) -> plt.Figure:
    """Three panels."""
    figure, (kept, inclusion, course) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for run in results["runs"]:
        colour = COLOURS[run["start"]]
        kept.plot(run["seed"], run["kept"], "o", mfc="none", color=colour)
        kept.plot(run["seed"], run["kept_after_elimination"], "x", color=colour)
        inclusion.plot(range(1, len(run["inclusion"]) + 1), run["inclusion"], ".-", lw=0.7, color=colour)
        course.plot([t["step"] for t in run["trace"]], [t["kept"] for t in run["trace"]], color=colour)
    kept.axhline(2, color="0.5", ls=":")
    kept.set(xlabel="data set", ylabel="nodes kept", title="circles: gradients; crosses: after elimination")
    inclusion.axhline(0.5, color="0.5", ls=":")
    inclusion.set(xlabel="node, sorted", ylabel="inclusion probability")
    course.set(xlabel="step", ylabel="expected open gates")
    for start in sorted({run["start"] for run in results["runs"]}):
        course.plot([], [], color=COLOURS[start], label=f"{start} start")
    course.legend(fontsize="small")
    figure.suptitle("SS-IG on a teacher with two nodes, student with 20 (our figure)")
    return figure


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks"))
    parser.add_argument("--out", type=Path, default=Path("runs/figures"))
    args = parser.parse_args()
    path = args.results / "jantre_teacher.json"
    if not path.is_file():
        raise SystemExit(f"{path} is missing; run experiments/jantre_teacher.py first")
    args.out.mkdir(parents=True, exist_ok=True)
    draw(read_json(path)).savefig(args.out / "jantre_teacher.png", dpi=130)
    print(args.out / "jantre_teacher.png")


if __name__ == "__main__":
    main()
