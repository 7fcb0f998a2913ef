"""Structured: whole units are pruned (filters of convolutions, nodes of linear layers), so that a network can be cut.

The groups are those of `prior.group = "filter"`: all weights into one output of a layer, output units excepted. Every
layer loses the same share, so that at one target the networks of all methods but those with gates cost the same after
the cut (the column `cut_flops`): what differs is which units go, and how the rest is trained. Every method trains under
its mask with the whole budget, and one training serves one target; `filter-conditional` prunes once, by joint evidence
with moves, between a dense part and one under the mask. The methods with gates on nodes are those of the
trained track, and choose their layers' shares themselves.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from sgmcmc_prune.baselines import magnitude
from sgmcmc_prune.baselines.fit import Cost, Fit
from sgmcmc_prune.baselines.taylor import Taylor
from sgmcmc_prune.baselines.training import Trainer
from sgmcmc_prune.chains.rehearsal import EXAMPLES
from sgmcmc_prune.compare.method import Candidate, Method, Problem
from sgmcmc_prune.compare.methods import chains, variational
from sgmcmc_prune.compare.methods.one_shot import decay, followed
from sgmcmc_prune.compare.methods.point_estimates import gradual, in_memory, recipe
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import under_mask
from sgmcmc_prune.criteria.random import random
from sgmcmc_prune.likelihoods import categorical
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.pruning.conditional.members import Members, members_of
from sgmcmc_prune.pruning.conditional.prune import Choose, Conditional, Pruned, by_evidence, path

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
    scope = "networks whose units one next layer reads, Linear or Conv2d; images in memory"
    about = ("filter-conditional", "point estimate", "this library; Kurtic et al. 2023")
    yield Method(*about, scope, _coupled, _conditional, grid("sgd"))
    scope = "networks whose output units are known; images in memory"
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


def _coupled(problem: Problem) -> str | None:
    try:
        _members(problem)
    except ValueError as error:
        return str(error)
    return in_memory(problem)


def _members(problem: Problem) -> dict[str, Members]:
    model = problem.network()
    return members_of(model, problem.run.groups(model), problem.data.train[0][:EXAMPLES])


def settings_of(problem: Problem) -> Conditional:
    """How `filter-conditional` takes joint evidence."""
    share = SETTINGS["filter-conditional"]
    return Conditional(share["curvature"], {}, share["stages"], min(share["examples"], problem.num_data))


def _conditional(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """Dense to the end of a cosine, then units go and the others move, and a second cosine under the mask.

    The dense part is trained once; each candidate counts it.
    """
    how = settings_of(problem)
    steps = problem.steps_beside(how.stages * how.examples)
    first = round(SETTINGS["filter-conditional"]["dense"] * steps)
    dense = magnitude.fit(problem.network(), problem.data.train, recipe(problem, steps=first), seed=problem.seed)
    for target in problem.sparsities:
        began = time.perf_counter()
        choose = [by_evidence(sparsity, "layerwise") for sparsity in path([target], how.stages)]
        pruned = joint(problem, dense.model, choose, how)
        cost = dense.cost + Cost(pruned.examples, time.perf_counter() - began)
        model, settings = problem.network(), recipe(problem, steps=steps - first)
        load_network_state(model, pruned.draws[0])
        trainer = Trainer.of_recipe(settings, model, problem.data.train, categorical, problem.seed + 2**16)
        trainer.set_mask(pruned.mask)
        trainer.run(settings.steps)
        yield under_mask(problem, Fit(model, cost + trainer.cost), target, pruned.mask)


def joint(problem: Problem, model: nn.Module, choose: Sequence[Choose], how: Conditional) -> Pruned:
    """Units removed in stages, the others moved after each; what `choose` chooses."""
    *_, last = followed(how, problem, [network_state(model)], decay(problem), choose, _members(problem))
    return last
