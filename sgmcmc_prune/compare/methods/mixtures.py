"""Mixture priors of the literature on a point estimate (Sun et al.) and on a chain with annealed EM (Deng et al.)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sgmcmc_prune.baselines import deng_sa, sun_mixture
from sgmcmc_prune.compare.method import Candidate, Method, Problem
from sgmcmc_prune.compare.methods.point_estimates import in_memory
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import under_mask
from sgmcmc_prune.priors.spike_slab import smallest_stable_spike


def methods() -> Iterator[Method]:
    """All methods of the family."""
    scope = "every network; images in memory"
    papers = {"sun-mixture": ("Sun, Song and Liang 2022", _sun), "sghmc-sa": ("Deng et al. 2019", _deng)}
    for name, (paper, fit) in papers.items():
        yield Method(name, "mixture prior", paper, scope, in_memory, fit, grid(name))


def _sun(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """Its own rule under the authors' prior, and one training per target under a spike that widens to it."""
    recipe = _sun_recipe(problem)
    for target in (None, *problem.sparsities):
        fit = sun_mixture.fit(problem.network(), problem.data.train, recipe, target, seed=problem.seed)
        yield under_mask(problem, fit, target)


def _sun_recipe(problem: Problem) -> sun_mixture.Recipe:
    share = {**SETTINGS["sun-mixture"], **problem.settings}
    fine_tune = max(1, round(share["fine_tune"] * problem.steps))
    steps, default = problem.steps - fine_tune, sun_mixture.Recipe(lr=share["lr"], fine_tune_lr=share["fine_tune_lr"])
    floor = smallest_stable_spike(default.lr, problem.num_data, 1.0, default.momentum)
    return replace(
        default,
        steps=steps,
        plain_steps=max(1, round(share["plain"] * steps)),
        fine_tune_steps=fine_tune,
        batch_size=problem.batch_size,
        spike_variance=max(default.spike_variance, 1.01 * floor),
    )


def _deng(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """All draws of a target share its mask."""
    share = {**SETTINGS["sghmc-sa"], **problem.settings}
    fine_tune, default = round(share["fine_tune"] * problem.steps), deng_sa.Recipe(lr=share["lr"])
    floor = smallest_stable_spike(default.lr, problem.num_data, 1.0, default.momentum)
    recipe = replace(
        default,
        steps=problem.steps - fine_tune,
        prune_every=max(1, round(problem.num_data / problem.batch_size)),
        fine_tune_steps=fine_tune,
        draws=problem.members,
        half_life=max(1, round(share["half_life"] * problem.steps)),
        batch_size=problem.batch_size,
        spike_variance=max(default.spike_variance, 1.01 * floor),
    )
    for target in problem.sparsities:
        fit = deng_sa.fit(problem.network(), problem.data.train, target, recipe, seed=problem.seed)
        yield under_mask(problem, fit, target)
