"""What the experiments on Dhahri et al. share: masks by every score, tables. A cell is (training, seed)."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from experiments import shared
from sgmcmc_prune.baselines.laplace import LaplaceFit, Recipe, fit, remove_units, unit_mask
from sgmcmc_prune.cells import Cell, Record, Records
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.criteria.random import random
from sgmcmc_prune.predictive.metrics import accuracy
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.priors import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.store.files import read_json, write_json

UNIT_SPARSITIES = (0.5, 0.75, 0.9)
Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Experiment:
    """One network on one data set.

    `build` gives the network of a seed; `sparsities` are those of single weights; `output_layer` is the weight whose
    units stay in the structured masks.
    """

    build: Callable[[int], nn.Module]
    train: Split
    test: Split
    sparsities: Sequence[float]
    output_layer: str


def run_cell(experiment: Experiment, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train one network and mask it by each score."""
    start = time.perf_counter()
    fitted = fit(experiment.build(seed), experiment.train, recipe, seed=seed)
    seconds = time.perf_counter() - start
    inputs, labels = experiment.test
    return {
        "seconds": round(seconds, 1),
        "gradient_evaluations": fitted.cost.gradient_evaluations,
        "log_evidence_per_example": fitted.posterior.log_evidence() / len(experiment.train[1]),
        "effective_parameters": fitted.history[-1]["effective_parameters"],
        "dense": accuracy(class_probabilities(fitted.model, inputs), labels),
        "ensemble": accuracy(fitted.predict(inputs), labels),
        "pruned": [*single_weights(experiment, fitted, seed), *units(experiment, fitted)],
    }


def single_weights(experiment: Experiment, fitted: LaplaceFit, seed: int) -> Iterator[dict[str, Any]]:
    """Mask all parameters, biases included, by each score over all layers together."""
    weights = fitted.posterior.weights
    groups = {n: GroupMap.from_index(torch.arange(w.numel()).view(w.shape)) for n, w in weights.items()}
    precision, prior = fitted.posterior.precision(), fitted.posterior.prior.precision()
    brain_damage = {n: ((precision[n] - prior[n]) * weights[n].double().square()).flatten() for n in weights}
    scores = {
        "OPD": fitted.posterior.damage(groups),
        "OBD": brain_damage,
        "magnitude": magnitude(weights, groups),
        "random": {n: score.to(weights[n].device) for n, score in random(groups, seed).items()},
    }
    for name, score in scores.items():
        for sparsity in experiment.sparsities:
            mask = target_sparsity(score, groups, sparsity)
            yield {"score": name, "sparsity": sparsity, "accuracy": masked_accuracy(fitted, mask, experiment.test)}


def units(experiment: Experiment, fitted: LaplaceFit) -> Iterator[dict[str, Any]]:
    """Remove units, by OPD or (with unit precision everywhere) by squared magnitude."""
    weights, before = fitted.posterior.weights, {n: w.clone() for n, w in fitted.model.state_dict().items()}
    ones = {n: torch.ones_like(w, dtype=torch.float64) for n, w in weights.items()}
    for name, precision in (("OPD", fitted.posterior.precision()), ("magnitude", ones)):
        for sparsity in UNIT_SPARSITIES:
            remove_units(fitted.model, unit_mask(weights, precision, sparsity, keep=[experiment.output_layer]))
            value = accuracy(class_probabilities(fitted.model, experiment.test[0]), experiment.test[1])
            fitted.model.load_state_dict(before)
            yield {"score": f"{name}, units", "sparsity": sparsity, "accuracy": value}


def masked_accuracy(fitted: LaplaceFit, mask: masks.Mask, test: Split) -> float:
    """Accuracy of the network with some parameters at zero; the network itself is not changed."""
    weights = {n: p.detach() * mask[n] if n in mask else p.detach() for n, p in fitted.model.named_parameters()}
    with torch.no_grad():
        logits = [functional_call(fitted.model, weights, (x,)) for x in test[0].split(1000)]
    return accuracy(torch.cat(logits).double().softmax(1), test[1])


def tables(cells: shared.Cells) -> str:
    """Accuracy against sparsity for every training and score, and what the evidence says."""
    text = [*_accuracy_table(cells, "", "Single weights"), *_accuracy_table(cells, ", units", "Units")]
    rows = [
        [
            name,
            shared.interval([r["log_evidence_per_example"] for r in runs], 3),
            shared.interval([r["effective_parameters"] for r in runs], 0),
            _percent(runs, "ensemble"),
            f"{runs[0]['gradient_evaluations']:,}",
            shared.interval([r["seconds"] for r in runs], 0),
        ]
        for name, runs in cells.items()
    ]
    header = ("training", "log evidence per example", "effective parameters", "linearised predictive")
    text += [
        "## Evidence, cost and the dense linearised predictive\n",
        shared.markdown((*header, "gradient evaluations", "seconds"), rows),
    ]
    return "\n".join(text)


def _accuracy_table(cells: shared.Cells, suffix: str, title: str) -> list[str]:
    first = next(iter(cells.values()))[0]
    sparsities = [row["sparsity"] for row in _found(first, f"OPD{suffix}")]
    rows = []
    for name, runs in cells.items():
        for score in [s for s in ("OPD", "OBD", "magnitude", "random") if _found(first, s + suffix)]:
            by_run = [[100 * row["accuracy"] for row in _found(run, score + suffix)] for run in runs]
            rows.append(
                [name, score, _percent(runs, "dense"), *(shared.interval(v, 1) for v in zip(*by_run, strict=True))]
            )
    header = ("training", "score", "dense", *(f"{s:.0%}" for s in sparsities))
    return [f"## {title}: test accuracy, %\n", shared.markdown(header, rows), ""]


def _found(run: dict[str, Any], score: str) -> list[dict[str, Any]]:
    return [row for row in run["pruned"] if row["score"] == score]


def _percent(runs: list[dict[str, Any]], key: str) -> str:
    return shared.interval([100 * run[key] for run in runs], 1)


def parser(description: str, name: str, trainings: Sequence[str]) -> argparse.ArgumentParser:
    """The options that both experiments have."""
    p = shared.parser(description, range(4), __file__)
    shared.add_names(p, "--trainings", list(trainings))
    p.set_defaults(out=shared.results(__file__) / name)
    return p


def read(path: Path) -> list[Record]:
    """The records of a results file, which holds them by training."""
    return [{"training": name, **record} for name, records in read_json(path).items() for record in records]


def by_training(records: Sequence[Record]) -> shared.Cells:
    """Records by their training."""
    names = dict.fromkeys(record["training"] for record in records)
    return {n: [{k: v for k, v in r.items() if k != "training"} for r in records if r["training"] == n] for n in names}


def run(a: argparse.Namespace, cells: list[Cell], title: str, text: str, threads: int | None = 1) -> None:
    """Run the cells that are missing, then write the tables of all seeds and trainings with their settings."""
    path = a.out.with_suffix(".json")
    grid = Records(cells, path, read, lambda path, records: write_json(path, by_training(records)))
    shared.complete(grid, a.jobs, threads=threads)
    common = {key: value for key, value in cells[0].settings.items() if key not in ("training", "seed")}
    found = by_training([record for record in grid.all if common.items() <= record.items()])
    shared.write_tables(a, title, f"{text}\n{tables(found)}")
