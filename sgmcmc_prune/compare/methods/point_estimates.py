"""What people use today: one network by SGD or AdamW, pruned once, gradually, before training or all the time.

A point estimate is an ensemble of one. `deep-ensemble` shares the budget among several shorter trainings.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sgmcmc_prune.baselines import magnitude, rigl, snip
from sgmcmc_prune.baselines.training import Recipe, Trained, single_weights
from sgmcmc_prune.compare.method import ONE_EACH, ONE_FOR_ALL, Candidate, Cost, Method, Problem
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import Posterior, at_sparsities, masked, predict_with, ties_of, timed, under_mask
from sgmcmc_prune.criteria.random import random
from sgmcmc_prune.pruning.decision import match_layer_sparsity, target_sparsity


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
    yield _method("snip", "Lee, Ajanthan and Torr 2019", partial(_sparse, fit=_snip))
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
    trained, posterior = _dense(problem, optimizer)
    yield from at_sparsities(problem, posterior, trained.scores(), single_weights(trained.model), allocation)


def _random(problem: Problem, folder: Path) -> Iterator[Candidate]:
    trained, posterior = _dense(problem, "sgd")
    groups = single_weights(trained.model)
    scores = {n: s.to(trained.scores()[n].device) for n, s in random(groups, problem.seed).items()}
    for target in problem.sparsities:
        reference = target_sparsity(trained.scores(), groups, target)
        mask = match_layer_sparsity(scores, groups, reference)
        yield under_mask(problem, posterior, target, mask, ties_of(scores, groups, mask, "layerwise"))


def _dense(problem: Problem, optimizer: str) -> tuple[Trained, Posterior]:
    settings = recipe(problem, optimizer)
    trained, seconds = timed(lambda: magnitude.fit(problem.network(), problem.data.train, settings, seed=problem.seed))
    cost = Cost(trained.gradient_evaluations, seconds)
    return trained, Posterior(trained.model, trained.model.state_dict(), [], cost)


def _sparse(problem: Problem, folder: Path, fit: Any) -> Iterator[Candidate]:
    """One training per target."""
    for target in problem.sparsities:
        trained, seconds = timed(partial(fit, problem, target))
        cost = Cost(trained.gradient_evaluations, seconds)
        posterior = Posterior(trained.model, trained.model.state_dict(), [], cost)
        yield under_mask(problem, posterior, target, trained.mask())


def _gradual(problem: Problem, target: float, settings: Recipe | None = None, member: int = 0) -> Trained:
    settings = settings or recipe(problem)
    share = SETTINGS["gradual"]
    every = max(1, round(settings.steps * (share["end"] - share["begin"]) / share["updates"]))
    gradual = magnitude.Gradual(target, share["begin"], share["end"], every)
    seed = problem.seed * 2**16 + member
    return magnitude.fit(problem.network(member), problem.data.train, settings, gradual, seed=seed)


def _snip(problem: Problem, target: float) -> Trained:
    examples = min(512, problem.num_data)
    settings = recipe(problem, steps=problem.steps_beside(examples))
    return snip.fit(problem.network(), problem.data.train, target, settings, examples=examples, seed=problem.seed)


def _rigl(problem: Problem, target: float, drop: float) -> Trained:
    topology = rigl.Topology(every=max(1, problem.steps // SETTINGS["gradual"]["updates"]), drop=drop)
    return rigl.fit(problem.network(), problem.data.train, target, recipe(problem), topology, seed=problem.seed)


def _deep_ensemble(problem: Problem, folder: Path) -> Iterator[Candidate]:
    count = SETTINGS["deep-ensemble"]["networks"]
    parts = [recipe(problem, steps=(problem.steps + member) // count) for member in range(count)]
    for target in problem.sparsities:
        trained, seconds = timed(
            lambda target=target: [_gradual(problem, target, part, m) for m, part in enumerate(parts)]  # type: ignore[misc]
        )
        networks = [masked(problem, t.model, t.model.state_dict(), t.mask()) for t in trained]
        cost = Cost(sum(t.gradient_evaluations for t in trained), seconds)
        kept = [t.mask() for t in trained]
        yield Candidate(target, kept, predict_with(networks[:1]), predict_with(networks), count, cost)
