"""Ours under the plain Gaussian prior: what the moments of a chain's weights say about removing them.

One chain of one cycle spends the budget, and two decisions share its draws: the rise of the evidence (Bayesian model
reduction without a variational posterior), and the expected rise of the loss.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sgmcmc_prune import build
from sgmcmc_prune.baselines.bmr import ChainReduction
from sgmcmc_prune.baselines.training import single_weights
from sgmcmc_prune.compare.method import Candidate, Method, Problem
from sgmcmc_prune.compare.methods.chains import chain_config, drawn, run_once, shared_name
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import Posterior, Weights, at_sparsities, under_mask
from sgmcmc_prune.priors import Gaussian
from sgmcmc_prune.pruning import criteria

#: A posterior whose ensemble is short, all draws, and the prior's variance, to candidates.
Decide = Callable[[Problem, Posterior, Sequence[Weights], float], Iterator[Candidate]]


def methods() -> Iterator[Method]:
    """All methods of the family."""
    for name, decide, paper in (
        ("bmr-chain", _by_evidence, "Markovic, Friston and Kiebel 2023, on a chain"),
        ("expected-loss", _by_loss, "this library"),
    ):
        fit = partial(_fit, decide)
        yield Method(name, "sgmcmc", paper, "every network", lambda problem: None, fit, grid("chain"))


def _fit(decide: Decide, problem: Problem, folder: Path) -> Iterator[Candidate]:
    config = chain_config(problem, SETTINGS["gaussian_chain"], {"prior.family": "gaussian"})
    out = problem.shared / shared_name("chain-gaussian", problem.settings)
    seconds = run_once(config, problem.data, out)
    steps = build.dense_schedule(config, problem.num_data / problem.batch_size).num_steps
    posterior = drawn(problem, out, 0, 1, config.schedule.draws, steps, seconds)
    members = list(posterior.draws)[:: max(1, len(posterior.draws) // problem.members)][: problem.members]
    yield from decide(problem, replace(posterior, draws=members), posterior.draws, config.prior.slab_variance)


def _by_evidence(
    problem: Problem, posterior: Posterior, draws: Sequence[Weights], variance: float
) -> Iterator[Candidate]:
    """Log odds of inclusion, and where they are positive."""
    model, prior = posterior.model, Gaussian(variance)
    reduced = ChainReduction(model, draws, prior, excess_variance="zero", allow_empty=True)
    yield from at_sparsities(problem, posterior, reduced.scores(), single_weights(model))
    yield under_mask(problem, posterior, None, reduced.mask())


def _by_loss(problem: Problem, posterior: Posterior, draws: Sequence[Weights], variance: float) -> Iterator[Candidate]:
    """What the loss is expected to rise by."""
    groups = single_weights(posterior.model)
    weights = {name: torch.stack([draw[name] for draw in draws]).double() for name in groups}
    mean, spread = {n: w.mean(0) for n, w in weights.items()}, {n: w.var(0) for n, w in weights.items()}
    yield from at_sparsities(problem, posterior, criteria.expected_loss(mean, spread, 1 / variance, groups), groups)
