"""How far our chain is ahead of gradual magnitude pruning, in two codes: `python benchmarks/lead.py` prints the tables.

Both codes train LeNet and the MLP on the same images of Fashion-MNIST from seeds 0 to 4, at 400,000 gradient
evaluations: the cells of `comparison_long`, and plain torch (`opponents/plain_chain.py`, `opponents/plain.py`, with
`--held-out comparison`). Of settings that were run twice the last line counts.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgmcmc_prune.predictive.intervals import mean_and_half_width

HERE = Path(__file__).parent
CHAIN, GRADUAL = "log-odds-in-chain", "gradual-magnitude"
TARGETS = {"lenet": (0.95, 0.99), "mlp": (0.98, 0.99)}
SEEDS, SCORES = range(5), ("accuracy", "nll")
PARTS = ("mean", "noise", "spike", "smoothing")

#: By method, target and seed.
Networks = dict[tuple[str, float, int], dict[str, Any]]


def cells(network: str = "lenet") -> Networks:
    """The single networks of the long comparison."""
    found: Networks = {}
    for method in (CHAIN, GRADUAL):
        for seed in SEEDS:
            path = HERE / "comparison_long" / network / "cells" / f"{method}-seed{seed}" / "rows.json"
            rows = [row for row in json.loads(path.read_text()) if row["kind"] == "single"]
            found |= {(method, row["sparsity"], seed): row for row in rows if row["sparsity"] in TARGETS[network]}
    return found


def independent(network: str = "lenet", without: str | None = None) -> Networks:
    """Those of the plain code, whole or without one of the chain's ingredients."""
    path = HERE / "opponents" / ("plain_parts.jsonl" if without else "plain.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    asked = (network, "comparison", without)
    kept = [r for r in rows if (r["network"], r.get("held_out"), r.get("without")) == asked]
    return {(r["method"], r["sparsity"], r["seed"]): r for r in kept}


def ahead(found: Networks, target: float, score: str, seed: int) -> float:
    """What the chain of a seed is better by."""
    sign = 1 if score == "accuracy" else -1
    return float(sign * (found[CHAIN, target, seed][score] - found[GRADUAL, target, seed][score]))


def interval(differences: Sequence[float]) -> str:
    """Mean and half of Student's 95 % interval."""
    mean, half = mean_and_half_width(np.array(differences))
    return f"{mean:.4f} ± {half:.4f}"


def lines(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of a table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def means(network: str = "lenet") -> str:
    """Accuracy and NLL, means over seeds, of both methods in both codes."""
    return lines(
        [
            (
                f"{method}, {name}",
                *(
                    ", ".join(f"{np.mean([found[method, t, s][score] for s in SEEDS]):.4f}" for score in SCORES)
                    for t in TARGETS[network]
                ),
            )
            for method in (CHAIN, GRADUAL)
            for name, found in (("plain torch", independent(network)), ("cells", cells(network)))
        ]
    )


def leads(network: str = "lenet") -> str:
    """The lead in each code, and of the mean of a seed's two networks."""
    ours, plain = cells(network), independent(network)
    codes = {"cells": [ours], "plain torch": [plain], "both": [ours, plain]}
    return lines(
        [
            (
                name,
                *(
                    interval([float(np.mean([ahead(each, t, score, s) for each in found])) for s in SEEDS])
                    for t in TARGETS[network]
                    for score in SCORES
                ),
            )
            for name, found in codes.items()
        ]
    )


def parts() -> str:
    """What the plain chain of LeNet loses at 99 % without one ingredient, paired by seed."""
    whole, rows = independent(), []
    for part in PARTS:
        left = independent(without=part)
        sign = {"accuracy": 1, "nll": -1}
        rows.append(
            (
                part,
                *(
                    interval([sign[k] * (whole[CHAIN, 0.99, s][k] - left[CHAIN, 0.99, s][k]) for s in SEEDS])
                    for k in SCORES
                ),
            )
        )
    return lines(rows)


if __name__ == "__main__":
    print(*(table(network) for network in TARGETS for table in (means, leads)), parts(), sep="\n\n")
