"""Half of the units of LeNet, gone at once and never trained again: does it pay to move the weights of the others?

    python -m experiments.ours.units_one_shot

Each seed trains one dense LeNet, eight epochs of SGD on 50,000 images of Fashion-MNIST; then every layer but the last
loses half of its units, and nothing is trained any more. Units go by the norm of their weights, at random, or by joint
evidence; `moved` says that the next layers' other columns are at their conditional means, in as many stages for each
way. Joint evidence has the settings of the method `filter-conditional`, which were chosen on held-out training images
of another seed. Scores are those of the 10,000 test images, read once.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments import shared
from experiments.ours.structured import COMPARISON
from sgmcmc_prune.baselines import magnitude
from sgmcmc_prune.compare.cell import load_problem
from sgmcmc_prune.compare.method import Problem
from sgmcmc_prune.compare.methods.point_estimates import recipe
from sgmcmc_prune.compare.methods.structured import joint, settings_of
from sgmcmc_prune.criteria.magnitude import magnitude as norm
from sgmcmc_prune.criteria.random import random
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.conditional.prune import by_evidence, given, path
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.settings import replace

SEEDS = range(3)
TARGET = 0.5
EPOCHS = 8


def measured(seed: int) -> dict[str, Any]:
    """One training and all ways to half of its units: JSON-ready."""
    comparison = replace(COMPARISON, epochs=EPOCHS, sparsities=(TARGET,), seeds=(seed,))
    with tempfile.TemporaryDirectory() as folder:
        problem, _ = load_problem(comparison, Path(folder), seed)
    model = magnitude.fit(problem.network(), problem.data.train, recipe(problem), seed=seed).model
    groups, how, weights = problem.run.groups(model), settings_of(problem), dict(model.named_parameters())
    way = path([TARGET], how.stages)
    ranked = {"norm": norm(weights, groups), "random": random(groups, seed)}
    ways = {name: [given(target_sparsity(s, groups, at, "layerwise")) for at in way] for name, s in ranked.items()}
    ways["evidence"] = [by_evidence(at, "layerwise") for at in way]
    found: dict[str, Any] = {"seed": seed, "split": "test", "dense": scored(problem, network_state(model), {})}
    for name, choose in ways.items():
        pruned = joint(problem, model, choose, how)
        found[name] = scored(problem, network_state(model), pruned.mask)
        found[f"{name}, moved"] = scored(problem, pruned.draws[0], pruned.mask)
    return found


def scored(problem: Problem, state: dict[str, torch.Tensor], mask: masks.Mask) -> dict[str, float]:
    """Accuracy and NLL of a network under a mask."""
    model: nn.Module = problem.network()
    load_network_state(model, state)
    masks.apply(mask, dict(model.named_parameters()))
    inputs, labels = problem.data.test
    found = summarise(class_probabilities(model, inputs), labels)
    return {key: found[key] for key in ("accuracy", "nll")}


WAYS = ("dense", *(f"{way}{moved}" for moved in ("", ", moved") for way in ("norm", "random", "evidence")))


def row(record: dict[str, Any]) -> list[str]:
    """One seed in the table."""
    return [str(record["seed"]), *(f"{record[way]['accuracy']:.4f} / {record[way]['nll']:.3f}" for way in WAYS)]


def main(argv: list[str] | None = None) -> None:
    """Compute the seeds that are missing; print and write the table."""
    shared.table_of_seeds(__file__, __doc__, SEEDS, measured, ("seed", *WAYS), row, TEXT, argv)


TEXT = """# Half of LeNet's units, gone at once

Accuracy / NLL on the 10,000 test images of Fashion-MNIST, of one dense training a seed and of ways to take half of the
units of every layer but the last from it, without training afterwards. `evidence` is joint evidence; `moved`: the next
layers' other columns are at their conditional means. Made by `python -m experiments.ours.units_one_shot`.
"""


if __name__ == "__main__":
    main()
