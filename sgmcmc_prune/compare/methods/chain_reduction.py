"""Bayesian model reduction on a Markov chain, which must run under the plain Gaussian prior.

It needs draws that have mixed: a weight that the prior holds crosses it in about N v / lr steps, and a chain that is
shorter is refused, with the reason.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sgmcmc_prune.baselines.bmr import ChainReduction
from sgmcmc_prune.baselines.training import single_weights
from sgmcmc_prune.compare.method import ONE_FOR_ALL, Candidate, Method, Problem
from sgmcmc_prune.compare.methods.chains import chain_steps, dense_config, drawn, run_once
from sgmcmc_prune.compare.methods.settings import grid
from sgmcmc_prune.compare.networks import at_sparsities, under_mask
from sgmcmc_prune.priors import Gaussian
from sgmcmc_prune.store.places import RunPlaces


def methods() -> Iterator[Method]:
    """All methods of the family."""
    paper = "Markovic, Friston and Kiebel 2023, on a chain"
    applies, chosen = lambda problem: None, grid("reduction_chain")
    yield Method("bmr-chain", "sgmcmc", paper, "every network", applies, _fit, chosen, ONE_FOR_ALL)


def _fit(problem: Problem, folder: Path) -> Iterator[Candidate]:
    """Log odds of inclusion, and where they are positive. The ensemble is a part of the draws."""
    config = dense_config(problem, "reduction_chain")
    seconds = run_once(problem, config, folder / "run")
    steps = chain_steps(problem, config)
    chain = drawn(problem, RunPlaces(folder / "run"), 0, 1, config.schedule.draws, steps, seconds)
    prior, every = Gaussian(config.prior.slab_variance), max(1, len(chain.draws) // problem.members)
    reduced = ChainReduction(chain.model, chain.draws, prior, excess_variance="zero", allow_empty=True)
    part, groups = chain.draws[::every][: problem.members], single_weights(chain.model)
    fit = replace(chain, draws=part, scores=reduced.scores, groups=groups, mask=reduced.mask)
    yield from at_sparsities(problem, fit)
    yield under_mask(problem, fit, None)
