"""Structured: whole units are pruned (filters of convolutions, nodes of linear layers), so that a network can be cut.

The groups are those of `prior.group = "filter"`: all weights into one output of a layer, output units excepted. Every
layer loses the same share, so that at one target the networks of all methods but those with gates cost the same after
the cut (the column `cut_flops`): what differs is which units go, and how the rest is trained. Every method trains under
its mask with the whole budget, and one training serves one target. The methods with gates on nodes are those of the
trained track, and choose their layers' shares themselves.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sgmcmc_prune.baselines import magnitude
from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.taylor import Taylor
from sgmcmc_prune.compare.method import Candidate, Method, Problem
from sgmcmc_prune.compare.methods import chains, variational
from sgmcmc_prune.compare.methods.point_estimates import gradual, in_memory, recipe
from sgmcmc_prune.compare.methods.settings import grid
from sgmcmc_prune.compare.networks import under_mask
from sgmcmc_prune.criteria.random import random

#: Of the trained track, those that prune nodes.
_GATED = ("ss-ig", "ss-gl", "ss-ghs")


def methods() -> Iterator[Method]:
    """All methods of the track."""
    scope = "networks whose output units are known; images in memory"
    for name, kind, paper in (
        ("filter-norm", "magnitude", "Li et al. 2017, gradually"),
        ("filter-taylor", "taylor", "Molchanov et al. 2019"),
        ("filter-random", "random", "control: at random"),
    ):
        yield Method(name, "point estimate", paper, scope, in_memory, partial(_gradual, kind=kind), grid("sgd"))
    yield Method("dense", "point estimate", "control: nothing is pruned", scope, in_memory, _dense, grid("sgd"))
    # Where the hyperparameters are fixed, the log-odds of a layer's units are in the order of their norms.
    fit = partial(chains.in_chain, criterion="expected_log_odds", allocation="layerwise")
    yield Method("filter-in-chain", "sgmcmc", "this library", scope, lambda problem: None, fit, grid("in_chain"))
    yield from (method for method in variational.methods() if method.name in _GATED)


def _dense(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """By its own rule it keeps everything."""
    fit = magnitude.fit(problem.network(), problem.data.train, recipe(problem), seed=problem.seed)
    yield under_mask(problem, fit, None, {})


def _gradual(problem: Problem, folder: Path, kind: str) -> Iterator[Candidate]:
    for target in problem.sparsities:
        yield under_mask(problem, _fit(problem, target, kind), target)


def _fit(problem: Problem, target: float, kind: str) -> Fit:
    model, settings = problem.network(), recipe(problem)
    groups = problem.run.groups(model)
    taylor = Taylor(groups)
    rankings: dict[str, magnitude.Ranking] = {
        "magnitude": magnitude.magnitude,
        "taylor": taylor,
        "random": lambda weights, groups: random(groups, problem.seed),
    }
    watch = taylor.observe if kind == "taylor" else None
    how: dict[str, Any] = {"groups": groups, "ranking": rankings[kind], "watch": watch, "seed": problem.seed}
    return magnitude.fit(model, problem.data.train, settings, gradual(settings, target, "layerwise"), **how)
