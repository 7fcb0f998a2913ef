"""How far the iterates of Bayesian model reduction scatter at its constant rate, ours and the independent one's.

    python benchmarks/bmr_iterates.py --seeds 0 1 --data DIR

Both train as in `opponents/bmr.py --sparsity 0`: by the method's own rule, which removes next to nothing here. Every 25
steps of the last fifth the network of the posterior means is scored on the test images. Nothing lowers the rate of
AdaBelief towards the end, so a single iterate is a draw from this scatter, and the difference of two says little. One
JSON line for each of them goes to `bmr_iterates.jsonl`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.baselines.bmr import fit, paper_recipe
from sgmcmc_prune.baselines.bmr.fit import PosteriorTrainer, with_weights

sys.path.insert(0, str(Path(__file__).parent / "opponents"))
import bmr
from plain import BATCH, STEPS, Data, load, mlp, score

ROUNDS, WARM_UP, LR = 5, 0.2, 1e-2
FIRST, EVERY = STEPS - STEPS // 5, 25

Seen = Callable[[int, dict[str, Tensor]], None]


@contextmanager
def watched(owner: type, name: str, means: Callable[[Any], dict[str, Tensor]], seen: Seen) -> Iterator[None]:
    """Let a method that is called once a step first show the posterior means of the last steps."""
    method, step = getattr(owner, name), 0

    def watching(self: Any, *arguments: Any) -> Any:
        nonlocal step
        if step >= FIRST and step % EVERY == 0:
            seen(step, means(self))
        step += 1
        return method(self, *arguments)

    setattr(owner, name, watching)
    try:
        yield
    finally:
        setattr(owner, name, method)


def theirs(data: Data, seed: int, seen: Seen) -> None:
    """The independent implementation."""
    torch.manual_seed(seed)
    settings = argparse.Namespace(rounds=ROUNDS, warm_up=WARM_UP, lr=LR, sparsity=0)
    with watched(bmr.Posterior, "draw", bmr.Posterior.means, seen):
        bmr.fit(mlp(), data, settings, torch.Generator().manual_seed(seed))


def ours(data: Data, seed: int, seen: Seen) -> None:
    """The package's."""
    each = round((1 - WARM_UP) * STEPS) // ROUNDS
    lengths = {"rounds": ROUNDS, "iterations": each, "warm_up": STEPS - ROUNDS * each, "batch_size": BATCH, "lr": LR}
    recipe = replace(paper_recipe("B", "bmr-spike-slab"), **lengths, draws=1)
    with watched(PosteriorTrainer, "loss", lambda trainer: trainer.posterior.moments(seed).mean, seen):
        fit(mlp(), data, "bmr-spike-slab", recipe, seed=seed)


def main() -> None:
    """Train, and append a line for each iterate."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    p.add_argument("--data", type=Path, required=True)
    a = p.parse_args()
    torch.set_num_threads(1)
    x, y, *test = load(a.data)
    for seed in a.seeds:
        for train in (theirs, ours):

            def seen(step: int, means: dict[str, Tensor], whose: str = train.__name__, seed: int = seed) -> None:
                accuracy, nll = score(with_weights(mlp(), means), *test)
                line = {"whose": whose, "seed": seed, "step": step, "accuracy": accuracy, "nll": round(nll, 4)}
                with Path(__file__).with_suffix(".jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")

            train((x, y), seed, seen)


if __name__ == "__main__":
    main()
