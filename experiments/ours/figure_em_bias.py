"""How far the responsibilities of mode `em` are from exact inclusion probabilities: one point per feature.

python -m experiments.ours.figure_em_bias experiments/ours/results/exact_inclusion.json --out em_bias.png
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgmcmc_prune.report.style import PALETTE, new_figure, png

MARKERS = "osD^v<>Phd"


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; return 0, or 2 after one line about what is wrong with the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="JSON", help="written by experiments/ours/exact_inclusion.py")
    parser.add_argument("--out", required=True, type=Path, help="the picture (PNG)")
    options = parser.parse_args(argv)
    try:
        options.out.write_bytes(png(draw(json.loads(options.results.read_text(encoding="utf-8"))["rows"])))
    except (ValueError, OSError, KeyError) as error:
        print(f"em_bias: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


def draw(rows: Sequence[dict[str, Any]]) -> Any:
    """Draw responsibility against exact inclusion probability, one marker per design.

    Raises
    ------
    ValueError
        If there is no row of mode `em`.
    """
    found = [row for row in rows if row["mode"] == "em"]
    if not found:
        raise ValueError("the results have no row of mode em")
    figure = new_figure(6.2, 4.4)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=0)
    for k, row in enumerate(found):
        color, marker = PALETTE[k % len(PALETTE)], MARKERS[k % len(MARKERS)]
        ax.plot(row["exact"], row["responsibility"], marker, color=color, markersize=6, alpha=0.8, label=row["design"])
    ax.set_xlabel("exact inclusion probability")
    ax.set_ylabel("responsibility in mode em")
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.03)
    ax.set_aspect("equal")
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False)
    ax.set_title("Held responsibilities are not inclusion probabilities", fontsize=10)
    return figure


if __name__ == "__main__":
    sys.exit(main())
