"""Mixture priors of the literature on a point estimate (Sun et al.) and on a chain with annealed EM (Deng et al.)."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from sgmcmc_prune.baselines import deng_sa, sun_mixture
from sgmcmc_prune.baselines.training import single_weights
from sgmcmc_prune.compare.method import Candidate, Cost, Method, Problem
from sgmcmc_prune.compare.methods.point_estimates import in_memory, whole_epochs
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import Posterior, masked, predict_with, timed, under_mask
from sgmcmc_prune.priors.spike_slab import smallest_stable_spike
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.pruning.masks import prunable


def methods() -> Iterator[Method]:
    """All methods of the family."""
    scope = "every network; images in memory"
    papers = {"sun-mixture": ("Sun, Song and Liang 2022", _sun), "sghmc-sa": ("Deng et al. 2019", _deng)}
    for name, (paper, fit) in papers.items():
        yield Method(name, "mixture prior", paper, scope, in_memory, fit, grid(name))


def _sun(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """Its own rule, and more or fewer weights by its scores; what its own rule masked is zero in all of them."""
    share = {**SETTINGS["sun-mixture"], **problem.settings}
    fine_tune = whole_epochs(problem, share["fine_tune"] * problem.epochs)
    epochs = whole_epochs(problem, problem.epochs) - fine_tune
    default = sun_mixture.Recipe(lr=share["lr"])
    floor = smallest_stable_spike(default.lr, problem.num_data, 1.0, default.momentum)
    recipe = replace(
        default,
        epochs=epochs,
        plain_epochs=max(1, round(share["plain"] * epochs)),
        fine_tune_epochs=fine_tune,
        batch_size=problem.batch_size,
        spike_variance=max(default.spike_variance, 1.01 * floor),
    )
    trained, seconds = timed(partial(sun_mixture.fit, problem.network(), problem.data.train, recipe, seed=problem.seed))
    cost = Cost(trained.gradient_evaluations, seconds)
    posterior = Posterior(trained.model, trained.model.state_dict(), [], cost)
    own, groups = trained.mask(), single_weights(trained.model)
    yield under_mask(problem, posterior, None, own)
    for target in problem.sparsities:
        wanted = target_sparsity(trained.scores(), groups, target)
        yield under_mask(problem, posterior, target, {name: kept & own[name] for name, kept in wanted.items()})


def _deng(problem: Problem, folder: Path) -> Iterator[Candidate]:
    share = {**SETTINGS["sghmc-sa"], **problem.settings}
    epochs, default = whole_epochs(problem, problem.epochs), deng_sa.Recipe(lr=share["lr"])
    floor = smallest_stable_spike(default.lr, problem.num_data, 1.0, default.momentum)
    recipe = replace(
        default,
        epochs=epochs,
        draws=min(problem.members, max(1, epochs // 4)),
        half_life=max(1, round(share["half_life"] * problem.steps)),
        batch_size=problem.batch_size,
        spike_variance=max(default.spike_variance, 1.01 * floor),
    )
    for target in problem.sparsities:
        fit = partial(deng_sa.fit, problem.network(), problem.data.train, target, recipe, seed=problem.seed)
        trained, seconds = timed(fit)
        single = masked(problem, trained.model, trained.model.state_dict(), trained.mask())
        kept = [{name: draw[name] != 0 for name in prunable(trained.model)} for draw in trained.weight_draws]
        pairs = zip(trained.weight_draws, kept, strict=True)
        members = [masked(problem, trained.model, draw, mask) for draw, mask in pairs]
        cost = Cost(trained.gradient_evaluations, seconds)
        yield Candidate(target, kept, predict_with([single]), predict_with(members), len(members), cost)
