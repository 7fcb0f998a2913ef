"""What people use today: one network by SGD or AdamW, pruned once, gradually, before training or all the time.

A point estimate is an ensemble of one. `deep-ensemble` shares the budget among several shorter trainings.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sgmcmc_prune.baselines import acdc, grasp, magnitude, rigl, snip, synflow
from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.training import Recipe
from sgmcmc_prune.compare.method import ONE_EACH, ONE_FOR_ALL, Candidate, Method, Problem
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import at_layer_sparsities, at_sparsities, together, under_mask
from sgmcmc_prune.criteria.random import random

#: Trains one network of an ensemble: problem, sparsity, recipe and the member's number to its fit.
Member = Callable[[Problem, float, Recipe, int], Fit]


def methods() -> Iterator[Method]:
    """All methods of the family."""
    han, zhu = "Han et al. 2015", "Zhu and Gupta 2017"
    for name, optimizer, allocation in (
        ("sgd-magnitude", "sgd", "global"),
        ("sgd-magnitude-layerwise", "sgd", "layerwise"),
        ("adamw-magnitude", "adamw", "global"),
    ):
        fit = partial(_one_shot, optimizer=optimizer, allocation=allocation)
        yield _method(name, han, fit, optimizer, ONE_FOR_ALL)
    yield _method("sgd-random", "control: layer sparsities of sgd-magnitude", _random, training=ONE_FOR_ALL)
    yield _method("gradual-magnitude", zhu, partial(_sparse, fit=_gradual))
    yield _method("acdc", "Peste et al. 2021", partial(_sparse, fit=_acdc))
    yield _method("snip", "Lee, Ajanthan and Torr 2019", partial(_sparse, fit=_snip))
    yield _method("grasp", "Wang, Zhang and Grosse 2020", partial(_sparse, fit=_grasp))
    scope = "networks that pass positive numbers on unbent (ReLU); images in memory"
    yield Method(
        *("synflow", "point estimate", "Tanaka et al. 2020", scope, _flows, partial(_sparse, fit=_synflow), grid("sgd"))
    )
    yield _method("rigl", "Evci et al. 2020", partial(_sparse, fit=partial(_rigl, drop=0.3)))
    yield _method("static-sparse", "control: RigL without moves", partial(_sparse, fit=partial(_rigl, drop=0.0)))
    yield _method("deep-ensemble", "Lakshminarayanan et al. 2017, of gradual-magnitude", _deep_ensemble)


def in_memory(problem: Problem) -> str | None:
    """The reason of a method that needs its training images in memory."""
    return None if isinstance(problem.data.train[0], Tensor) else "the training images are not in memory"


def recipe(problem: Problem, optimizer: Any = "sgd", steps: int = 0) -> Recipe:
    """The training that spends the budget, or so many steps of it."""
    chosen = {**SETTINGS[optimizer], **problem.settings}
    return Recipe(optimizer, steps=steps or problem.steps, batch_size=problem.batch_size, **chosen)


def _method(name: str, paper: str, fit: Any, optimizer: str = "sgd", training: str = ONE_EACH) -> Method:
    scope = "every network; images in memory"
    return Method(name, "point estimate", paper, scope, in_memory, fit, grid(optimizer), training)


def _one_shot(problem: Problem, folder: Path, optimizer: str, allocation: str) -> Iterator[Candidate]:
    yield from at_sparsities(problem, _dense(problem, optimizer), allocation)


def _random(problem: Problem, folder: Path) -> Iterator[Candidate]:
    fit = _dense(problem, "sgd")
    scores = {n: s.to(fit.scores[n].device) for n, s in random(fit.groups, problem.seed).items()}
    yield from at_layer_sparsities(problem, replace(fit, scores=scores), fit.scores)


def _dense(problem: Problem, optimizer: str) -> Fit:
    return magnitude.fit(problem.network(), problem.data.train, recipe(problem, optimizer), seed=problem.seed)


def _sparse(problem: Problem, folder: Path, fit: Any) -> Iterator[Candidate]:
    """One training per target."""
    for target in problem.sparsities:
        yield under_mask(problem, fit(problem, target), target)


def _gradual(problem: Problem, target: float) -> Fit:
    return gradual_member(problem, target, recipe(problem), 0)


def gradual_member(problem: Problem, target: float, settings: Recipe, member: int) -> Fit:
    """One network of an ensemble by gradual magnitude, from its own start and on its own minibatches."""
    seed = problem.seed * 2**16 + member
    return magnitude.fit(problem.network(member), problem.data.train, settings, gradual(settings, target), seed=seed)


def gradual(settings: Recipe, target: float, allocation: str = "global") -> magnitude.Gradual:
    """When a training prunes on its way to a target."""
    share = SETTINGS["gradual"]
    every = max(1, round(settings.steps * (share["end"] - share["begin"]) / share["updates"]))
    return magnitude.Gradual(target, share["begin"], share["end"], every, allocation)


def _acdc(problem: Problem, target: float) -> Fit:
    phases = acdc.Phases(**SETTINGS["acdc"])
    return acdc.fit(problem.network(), problem.data.train, target, recipe(problem), phases, seed=problem.seed)


def _snip(problem: Problem, target: float) -> Fit:
    examples = min(512, problem.num_data)
    settings = recipe(problem, steps=problem.steps_beside(examples))
    return snip.fit(problem.network(), problem.data.train, target, settings, examples=examples, seed=problem.seed)


def _grasp(problem: Problem, target: float) -> Fit:
    examples = min(512, problem.num_data)
    settings = recipe(problem, steps=problem.steps_beside(grasp.PASSES * examples))
    return grasp.fit(problem.network(), problem.data.train, target, settings, examples=examples, seed=problem.seed)


def _synflow(problem: Problem, target: float) -> Fit:
    return synflow.fit(problem.network(), problem.data.train, target, recipe(problem), seed=problem.seed)


def _flows(problem: Problem) -> str | None:
    if reason := in_memory(problem):
        return reason
    try:
        synflow.synaptic_flow(problem.network(), problem.data.train[0][:1], {})
    except ValueError as error:
        return str(error)
    return None


def _rigl(problem: Problem, target: float, drop: float) -> Fit:
    return _moving(problem, target, recipe(problem), drop, problem.network(), problem.seed)


def rigl_member(problem: Problem, target: float, settings: Recipe, member: int) -> Fit:
    """One network of an ensemble by RigL, from its own start, first mask and minibatches."""
    return _moving(problem, target, settings, 0.3, problem.network(member), problem.seed * 2**16 + member)


def _moving(problem: Problem, target: float, settings: Recipe, drop: float, start: nn.Module, seed: int) -> Fit:
    topology = rigl.Topology(every=max(1, settings.steps // SETTINGS["gradual"]["updates"]), drop=drop)
    return rigl.fit(start, problem.data.train, target, settings, topology, seed=seed)


def _deep_ensemble(problem: Problem, folder: Path) -> Iterator[Candidate]:
    count = SETTINGS["deep-ensemble"]["networks"]
    for target in problem.sparsities:
        yield independent(problem, target, count, partial(gradual_member, problem, target))


def independent(problem: Problem, target: float, count: int, train: Callable[[Recipe, int], Fit]) -> Candidate:
    """The candidate of so many trainings that share the budget; `train` takes a recipe and the number of a member."""
    parts = [recipe(problem, steps=(problem.steps + member) // count) for member in range(count)]
    return together(target, [under_mask(problem, train(part, member), target) for member, part in enumerate(parts)])
