"""Variational spike-and-slab networks, and Bayes by Backprop with two criteria."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from sgmcmc_prune.baselines import variational
from sgmcmc_prune.baselines.variational.families import Family
from sgmcmc_prune.baselines.variational.network import VariationalNetwork
from sgmcmc_prune.compare.method import Candidate, Cost, Method, Problem
from sgmcmc_prune.compare.methods.point_estimates import in_memory
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import Posterior, at_sparsities, complete, under_mask
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import criteria, masks
from sgmcmc_prune.pruning.decision import target_sparsity

_SCOPE = "Linear, Conv2d and BatchNorm layers, traceable"


def methods() -> Iterator[Method]:
    """All methods of the family."""
    jantre = "Jantre, Bhattacharya and Maiti"
    yield _method("mean-field-snr", "Blundell et al. 2015; Graves 2011", variational.mean_field, _signal_to_noise)
    yield _method("mean-field", "Blundell et al. 2015, pruned by evidence", variational.mean_field, _by_odds)
    yield _method("svbnn", "Bai, Song and Cheng 2020", variational.svbnn, _by_odds)
    yield _method("ss-ig", f"{jantre} 2023", variational.ss_ig, _by_nodes)
    yield _method("ss-gl", f"{jantre} 2024", variational.ss_gl, _by_nodes)
    yield _method("ss-ghs", f"{jantre} 2024", variational.ss_ghs, _by_nodes)


def _method(name: str, paper: str, family: Callable[..., Family], prune: Callable[..., Iterator[Candidate]]) -> Method:
    applies, fit = partial(_applies, family=family), partial(_fit, family=family, prune=prune)
    return Method(name, "variational", paper, _SCOPE, applies, fit, grid("variational"))


def _applies(problem: Problem, family: Callable[[], Family]) -> str | None:
    if reason := in_memory(problem):
        return reason
    try:
        variational.bayesianise(problem.network(), family())
    except ValueError as error:
        return str(error)
    return None


def _fit(
    problem: Problem, folder: Path, family: Callable[..., Family], prune: Callable[..., Iterator[Candidate]]
) -> Iterator[Candidate]:
    chosen = {**SETTINGS["variational"], **problem.settings}
    prior = family(prior_std=chosen.pop("prior_std"))
    settings = variational.Settings(prior, problem.steps, problem.batch_size, seed=problem.seed, **chosen)
    fitted = variational.fit(problem.network(), problem.data.train, settings)
    plain = fitted.posterior.plain
    posterior = Posterior(
        plain,
        fitted.network("mean").state_dict(),
        list(fitted.draws("monte_carlo", problem.members, problem.seed)),
        Cost(fitted.gradient_evaluations, fitted.seconds),
    )
    yield from prune(problem, fitted, posterior)


def _by_odds(problem: Problem, fitted: variational.Fitted, posterior: Posterior) -> Iterator[Candidate]:
    """Log odds of inclusion of single weights, and the median model."""
    yield from at_sparsities(problem, posterior, fitted.scores(), fitted.groups)
    yield _median(problem, fitted, posterior)


def _signal_to_noise(problem: Problem, fitted: variational.Fitted, posterior: Posterior) -> Iterator[Candidate]:
    assert isinstance(fitted.posterior, variational.GaussianPosterior)
    scores = criteria.signal_to_noise(fitted.posterior.mean, fitted.posterior.variance, fitted.groups)
    yield from at_sparsities(problem, posterior, scores, fitted.groups)


def _by_nodes(problem: Problem, fitted: variational.Fitted, posterior: Posterior) -> Iterator[Candidate]:
    """Log odds of inclusion of nodes, with the columns that read a removed node; and the median model."""
    assert isinstance(fitted.posterior, VariationalNetwork)
    for target in problem.sparsities:
        mask = _node_mask(fitted.posterior, fitted.scores(), fitted.groups, target)
        yield under_mask(problem, posterior, target, mask)
    yield _median(problem, fitted, posterior)


def _median(problem: Problem, fitted: variational.Fitted, posterior: Posterior) -> Candidate:
    """The median model's own draws: gates open or closed for good."""
    own = Posterior(
        posterior.model,
        fitted.posterior.draw("median", sampled=False),
        list(fitted.draws("median_sampled", problem.members, problem.seed)),
        posterior.cost,
    )
    return under_mask(problem, own, None, fitted.mask())


def _node_mask(
    network: VariationalNetwork, scores: Mapping[str, Tensor], groups: Mapping[str, GroupMap], target: float
) -> masks.Mask:
    """The smallest removal of nodes, in the order of their odds, that reaches a sparsity of all prunable weights.

    Removing a node removes the columns that read it, too, so the share of nodes is found by bisection. Where all
    removable nodes do not suffice, the sparsest mask is what the method can do.
    """
    low, high = 0.0, 1 - 1e-6
    for _ in range(20):
        middle = (low + high) / 2
        mask = network.readers_mask(target_sparsity(scores, groups, middle))
        low, high = (middle, high) if masks.sparsity(complete(mask, network.plain)) < target else (low, middle)
    return network.readers_mask(target_sparsity(scores, groups, high))
