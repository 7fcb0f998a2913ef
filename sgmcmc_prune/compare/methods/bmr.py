"""Bayesian model reduction and the methods that its paper compares."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from sgmcmc_prune.baselines.bmr import HorseshoeSettings, fit, paper_recipe
from sgmcmc_prune.baselines.bmr.layers import layers_of
from sgmcmc_prune.baselines.bmr.recipe import METHODS
from sgmcmc_prune.compare.method import ONE_FOR_ALL, Candidate, Method, Problem
from sgmcmc_prune.compare.methods.point_estimates import in_memory
from sgmcmc_prune.compare.methods.settings import SETTINGS, learning_rates
from sgmcmc_prune.compare.networks import at_sparsities, under_mask

_FAMILY, _PAPER = "model reduction", "Markovic, Friston and Kiebel 2023"


def methods() -> Iterator[Method]:
    """All methods of the family; those that reduce have a stopping rule of their own."""
    for name in METHODS:
        scope = "layers with weights that share their first dimension; the output layer has no own rule"
        grid = learning_rates(paper_recipe("B", name).lr)
        yield Method(name, _FAMILY, _PAPER, scope, _applies, partial(_fit, name), grid, ONE_FOR_ALL)


def _applies(problem: Problem) -> str | None:
    try:
        layers_of(problem.network())
    except ValueError as error:
        return str(error)
    return in_memory(problem)


def _fit(method: str, problem: Problem, folder: Path) -> Iterator[Candidate]:
    reduces, settings = method.startswith("bmr"), SETTINGS["bmr"]
    rounds = settings["rounds"] if reduces else 1
    iterations = round((1 - settings["warm_up"]) * problem.steps) // rounds if reduces else problem.steps
    paper = paper_recipe("B", method)
    recipe = replace(
        paper,
        rounds=rounds,
        iterations=iterations,
        warm_up=problem.steps - rounds * iterations,
        batch_size=problem.batch_size,
        lr=problem.settings.get("lr", paper.lr),
        draws=problem.members,
    )
    horseshoe = HorseshoeSettings(**SETTINGS["horseshoe"])
    found = fit(problem.network(), problem.data.train, method, recipe, horseshoe=horseshoe, seed=problem.seed)
    yield from at_sparsities(problem, found)
    if reduces:
        yield under_mask(problem, found, None)
