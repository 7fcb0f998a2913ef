"""How much of the pruned fraction is the recipe: LeNet on Fashion-MNIST by BMR, one setting changed at a time.

    python -m experiments.markovic.sensitivity --seeds 0 --jobs 1

All variants take 5,500 steps (11 epochs). Measured so far, seed 0, test split, with pruned weights left out of the
inclusion rate and a step 1/0.9 times as long (see docs/discrepancies.md):

    recipe                        pruned  accuracy  NLL   ECE   networks
    short                         .117    .878      .357  .037  100
    lr 0.001                      0       .854      .411  .020  30
    warm-up 5000, 1 round of 500  .139    .877      .355  .032  30

Rounds 1 to 10 of `short` have 0, 0, .001, .007, .016, .029, .047, .069, .093 and .117. What decides is how far training
has come (its length and its learning rate); one reduction at its end prunes as much as ten on the way.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments import shared
from experiments.markovic import common

CELL = common.Cell("short", "lenet", "bmr-spike-slab")

#: What each variant changes in the recipe `short` (lr .01, 500 steps of warm-up, 10 rounds of 500, 4 iterations).
VARIANTS: dict[str, dict[str, Any]] = {
    "short": {},
    "lr 0.001": {"lr": 1e-3},
    "1 CAVI iteration": {"cavi_iterations": 1},
    "20 CAVI iterations": {"cavi_iterations": 20},
    "pruned weights left out": {"count_pruned": False},
    "2 rounds of 2500": {"rounds": 2, "iterations": 2500},
    "warm-up 5000, 1 round of 500": {"warm_up": 5000, "rounds": 1},
}


def run_variant(variant: str, seed: int, split: str, **_: Any) -> dict[str, Any]:
    """Fit the cell with a variant of its recipe."""
    recipe = dataclasses.replace(CELL.settings(), **VARIANTS[variant])
    return common.run_cell("fashion-mnist", CELL, recipe, seed, split)


def table(cells: shared.Cells) -> str:
    """Pruned fraction and scores of every variant."""
    columns = ("pruned_fraction", "accuracy", "nll", "ece")
    rows = [[name, *shared.scores([r["final"] for r in runs], columns)] for name, runs in cells.items()]
    return shared.markdown(("recipe", "pruned", "accuracy", "NLL", "ECE"), rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, then write the table."""
    description = __doc__ or ""
    a = shared.sweep_parser(description, "markovic_sensitivity", list(VARIANTS), __file__).parse_args(argv)
    cells = shared.sweep(a, run_variant, lambda variant, seed: {})
    shared.write(a, cells, "What the pruned fraction depends on", f"{description}\n{table(cells)}")


if __name__ == "__main__":
    main()
