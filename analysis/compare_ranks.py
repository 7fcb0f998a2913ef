"""Critical-difference diagrams: average ranks of the compared methods, and which of them cannot be told apart.

    python analysis/compare_ranks.py runs/compare/comparison.csv --out ranks.png

A block is a seed at a target sparsity; methods without a result in every block are left out, and named. A bar joins
methods whose average ranks differ by less than Nemenyi's critical difference at 5 %. Blocks of one seed share their
data, so that the test is optimistic: with few seeds read the diagram as a summary.

Source: Demšar, Statistical comparisons of classifiers over multiple data sets (JMLR 2006).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.statistics import average_ranks, critical_difference, friedman
from sgmcmc_prune.compare.table import read_csv, results
from sgmcmc_prune.report.style import INK, PALETTE, new_figure, png

SCORES = {"accuracy": "accuracy", "nll": "NLL"}
KINDS = {"single": "single networks", "ensemble": "ensembles"}


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; return 0, or 2 after one line about what is wrong with the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="comparison.csv")
    parser.add_argument("--at-least", type=float, default=0.0, metavar="SPARSITY", help="only targets from this one on")
    parser.add_argument("--out", required=True, type=Path, help="the picture (PNG)")
    options = parser.parse_args(argv)
    try:
        rows = [row for row in read_csv(options.table) if (row["sparsity"] or -1) >= options.at_least]
        options.out.write_bytes(png(draw(rows)))
    except (ValueError, OSError) as error:
        print(f"compare_ranks: {error}", file=sys.stderr)
        return 2
    return 0


def complete_scores(rows: Sequence[Row], score: str) -> tuple[dict[str, list[float]], list[str]]:
    """The scores of each method in every block, and the methods that lack one.

    Raises
    ------
    ValueError
        If fewer than three methods, or fewer than two blocks, are complete.
    """
    blocks = sorted({(row["seed"], row["sparsity"]) for row in rows})
    found = {(row["method"], row["seed"], row["sparsity"]): row[score] for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    scores = {m: [found[m, *block] for block in blocks] for m in methods if all((m, *b) in found for b in blocks)}
    if len(scores) < 3 or len(blocks) < 2:
        raise ValueError(f"{len(scores)} methods are complete in {len(blocks)} blocks; ranks need 3 methods, 2 blocks")
    return scores, [m for m in methods if m not in scores]


def cliques(ranks: dict[str, float], difference: float) -> list[tuple[float, float]]:
    """The longest intervals of ranks, from first to last method, that are shorter than the critical difference."""
    values = sorted(ranks.values())
    spans = [(low, max(v for v in values if v - low < difference)) for low in values]
    return [(a, b) for i, (a, b) in enumerate(spans) if b > a and not any(d >= b for _, d in spans[:i])]


def draw(rows: Sequence[Row]) -> Any:
    """One diagram per score and kind."""
    kinds = [k for k in KINDS if results(rows, k)] or ["single"]  # a network that was given has no ensemble
    scores = {(s, k): complete_scores(results(rows, k), s) for k in kinds for s in SCORES}
    longest = max(len(complete) for complete, _ in scores.values())
    figure = new_figure(13, len(kinds) * (1.6 + 0.13 * longest))
    axes = figure.subplots(len(kinds), 2, squeeze=False)
    for ax, ((score, kind), (complete, missing)) in zip(axes.flat, scores.items(), strict=True):
        blocks = len(next(iter(complete.values())))
        ranks = average_ranks(complete, higher_is_better=score == "accuracy")
        difference = critical_difference(len(ranks), blocks)
        _diagram(ax, ranks, difference)
        p = friedman(ranks, blocks)
        ax.set_title(f"{SCORES[score]}, {KINDS[kind]}: {blocks} blocks, Friedman p = {p:.2g}", fontsize=10, loc="left")
        left_out = f"; left out: {', '.join(missing)}" if missing else ""
        print(f"{kind}, {score}: " + ", ".join(f"{m} {r:.2f}" for m, r in sorted(ranks.items(), key=_rank)) + left_out)
    return figure


def _diagram(ax: Any, ranks: dict[str, float], difference: float) -> None:
    """Names on both sides, each tied to its place on the axis of ranks; the best is on the left."""
    ordered, last = sorted(ranks.items(), key=_rank), len(ranks)
    half = -(-last // 2)
    bars = cliques(ranks, difference)
    depth = 0.35 + 0.22 * len(bars)
    for i, (method, rank) in enumerate(ordered):
        left, level = i < half, depth + 0.5 * (i if i < half else last - 1 - i)
        edge = 1 - 0.03 * last if left else last + 0.03 * last
        ax.plot([rank, rank, edge], [0, -level, -level], color="#888888", linewidth=0.8)
        name = f"{method}  {rank:.1f}" if left else f"{rank:.1f}  {method}"
        ax.text(edge, -level, f" {name} ", ha="right" if left else "left", va="center", fontsize=8, color=INK)
    for i, (low, high) in enumerate(bars):
        ax.plot([low - 0.05, high + 0.05], [-0.25 - 0.22 * i] * 2, color=PALETTE[1], linewidth=2.5)
    ax.plot([1, 1 + difference], [0.75, 0.75], color=PALETTE[0], linewidth=2)
    ax.text(1, 0.85, f"critical difference {difference:.2f}", fontsize=8, color=PALETTE[0], va="bottom")
    ax.plot([1, last], [0, 0], color=INK, linewidth=1.2)
    step = max(1, last // 8)
    for tick in range(1, last + 1, step):
        ax.plot([tick, tick], [0, 0.12], color=INK, linewidth=1)
        ax.text(tick, 0.18, str(tick), ha="center", fontsize=8, color=INK)
    ax.text(1.04 * last, 0.18, "average rank (1 = best)", fontsize=8, color=INK)
    ax.set_xlim(1 - 0.45 * last, last + 0.45 * last)
    ax.set_ylim(-depth - 0.5 * half, 1.5)
    ax.axis("off")


def _rank(item: tuple[str, float]) -> float:
    return item[1]


if __name__ == "__main__":
    sys.exit(main())
