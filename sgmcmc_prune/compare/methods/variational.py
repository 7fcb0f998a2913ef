"""Variational spike-and-slab networks, and Bayes by Backprop with two criteria.

"mean-field" prunes by the Savage-Dickey odds of each weight: the point-mass reading (R2) of Saha, Liu and Liang.

Each trains its gates (or the dense posterior) for the first part of the budget, on the evidence bound with a KL that
fades in; then, for each mask, the weights that survive, as Jantre, Bhattacharya and Maiti do with their residual
networks.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from sgmcmc_prune.baselines import variational
from sgmcmc_prune.baselines.variational.families import Family
from sgmcmc_prune.baselines.variational.network import VariationalNetwork
from sgmcmc_prune.baselines.variational.posterior import VariationalFit
from sgmcmc_prune.compare.method import Candidate, Method, Problem, Ties
from sgmcmc_prune.compare.methods.point_estimates import in_memory
from sgmcmc_prune.compare.methods.settings import SETTINGS, grid
from sgmcmc_prune.compare.networks import at_sparsity, complete, under_mask
from sgmcmc_prune.criteria.signal_to_noise import signal_to_noise
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity

#: A target sparsity, or None for the method's own rule; the mask that it gives, and what that decided by tie.
Decision = tuple[float | None, masks.Mask, Ties | None]
Prune = Callable[[Problem, VariationalFit], Iterator[Decision]]

#: The family for a problem, with a slab of this standard deviation.
MakeFamily = Callable[[Problem, float], Family]

_SCOPE = "Linear, Conv2d and BatchNorm layers, traceable"


def methods() -> Iterator[Method]:
    """All methods of the family."""
    jantre = "Jantre, Bhattacharya and Maiti"
    yield _method("mean-field-snr", "Blundell et al. 2015; Graves 2011", _mean_field, _signal_to_noise, False)
    yield _method("mean-field", "Blundell et al. 2015, pruned by evidence", _mean_field, _by_odds, False)
    yield _method("svbnn", "Bai, Song and Cheng 2020", _svbnn, _by_odds)
    yield _method("saha-r1", "Saha, Liu and Liang 2024, continuous spike", _continuous_spike, _by_odds, False)
    yield _method("ss-ig", f"{jantre} 2023", partial(_on_nodes, variational.ss_ig), _by_nodes)
    yield _method("ss-gl", f"{jantre} 2024", partial(_on_nodes, variational.ss_gl), _by_nodes)
    # The released c = 1 saturates on the small weights of image networks: s~ is c for every node.
    horseshoe = partial(variational.ss_ghs, regulariser="learned")
    yield _method("ss-ghs", f"{jantre} 2024", partial(_on_nodes, horseshoe), _by_nodes)


def _mean_field(problem: Problem, prior_std: float) -> Family:
    return variational.mean_field(prior_std=prior_std)


def _svbnn(problem: Problem, prior_std: float) -> Family:
    """Gates on weights, drawn as the authors do, under their prior inclusion to a power: 1 is their rule."""
    inclusion = variational.weight_inclusion(problem.network(), problem.num_data)
    return variational.svbnn(prior_std=prior_std, inclusion=inclusion ** _power(problem), relaxed=True)


def _on_nodes(make: Callable[..., Family], problem: Problem, prior_std: float) -> Family:
    """Gates on nodes, under the authors' prior inclusion to a power: 1 is their rule."""
    inclusion = variational.node_inclusion(problem.network(), problem.num_data)
    return make(prior_std=prior_std, inclusion={name: rate ** _power(problem) for name, rate in inclusion.items()})


def _power(problem: Problem) -> float:
    return problem.settings.get("inclusion_power", float(SETTINGS["gates"]["inclusion_power"]))


def _continuous_spike(problem: Problem, prior_std: float) -> Family:
    """R1 with an indicator per weight; the widths of the spike are its defaults relative to the slab's."""
    return variational.ContinuousSpike(slab_std=prior_std, spike_std=prior_std / 20, spike_start=prior_std / 5)


def _method(name: str, paper: str, family: MakeFamily, prune: Prune, gated: bool = True) -> Method:
    applies, fit = partial(_applies, family=family), partial(_fit, family=family, prune=prune)
    chosen = grid("variational", "gates") if gated else grid("variational")
    training = "gates once, survivors for each target"
    return Method(name, "variational", paper, _SCOPE, applies, fit, chosen, training)


def _applies(problem: Problem, family: MakeFamily) -> str | None:
    if reason := in_memory(problem):
        return reason
    try:
        variational.bayesianise(problem.network(), family(problem, 1.0))
    except ValueError as error:
        return str(error)
    return None


def _fit(problem: Problem, folder: Path, family: MakeFamily, prune: Prune) -> Iterator[Candidate]:
    """For each mask the gates are gone, and the factors of the survivors are trained on."""
    chosen = {**SETTINGS["variational"], **problem.settings}
    prior_std, share = chosen.pop("prior_std"), chosen.pop("fine_tune")
    chosen.pop("inclusion_power", None)  # the family's
    last = max(1, round(share * problem.steps))
    prior, first = family(problem, prior_std), problem.steps - last
    settings = variational.Settings(
        prior, first, problem.batch_size, seed=problem.seed, bound_draws=1, draws=problem.members, **chosen
    )
    gated = variational.fit(problem.network(), problem.data.train, settings)
    survivors = replace(settings, family=variational.mean_field(prior_std=prior_std), steps=last, warm_up=0.0)
    for target, mask, ties in prune(problem, gated):
        network = gated.model if target is not None else gated.pruned().model
        mask = complete(mask, network)
        tuned = variational.fit(network, problem.data.train, survivors, mask=mask)
        yield under_mask(problem, replace(tuned, cost=gated.cost + tuned.cost), target, mask, ties)


def _by_odds(problem: Problem, fit: VariationalFit) -> Iterator[Decision]:
    """Log odds of inclusion of single weights, and the median model."""
    for target in problem.sparsities:
        yield target, *at_sparsity(fit, target)
    yield None, fit.mask or {}, None


def _signal_to_noise(problem: Problem, fit: VariationalFit) -> Iterator[Decision]:
    assert isinstance(fit.posterior, variational.GaussianPosterior)
    scores = signal_to_noise(fit.posterior.mean, fit.posterior.variance, fit.groups)
    for target in problem.sparsities:
        yield target, *at_sparsity(replace(fit, scores=scores), target)


def _by_nodes(problem: Problem, fit: VariationalFit) -> Iterator[Decision]:
    """Log odds of inclusion of nodes, with the columns that read a removed node; and the median model."""
    assert isinstance(fit.posterior, VariationalNetwork)
    for target in problem.sparsities:
        yield target, *_node_mask(fit.posterior, fit, target)
    yield None, fit.mask or {}, None


def _node_mask(network: VariationalNetwork, fit: VariationalFit, target: float) -> tuple[masks.Mask, Ties]:
    """The smallest removal of nodes, in the order of their odds, that reaches a sparsity of all prunable weights.

    Removing a node removes the columns that read it, too, so the share of nodes is found by bisection. Where all
    removable nodes do not suffice, the sparsest mask is what the method can do.
    """
    low, high = 0.0, 1 - 1e-6
    for _ in range(20):
        middle = (low + high) / 2
        mask = network.readers_mask(target_sparsity(fit.scores, fit.groups, middle))
        low, high = (middle, high) if masks.sparsity(complete(mask, network.plain)) < target else (low, middle)
    nodes, ties = at_sparsity(fit, high)
    return network.readers_mask(nodes), ties
