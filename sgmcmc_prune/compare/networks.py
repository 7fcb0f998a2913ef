"""From weights and a mask to networks that predict: masked weights are zero, and normalisation statistics fit them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from sgmcmc_prune.compare.method import Candidate, Cost, Predict, Problem, Ties
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity, tied
from sgmcmc_prune.run.evaluate import masked_network

Result = TypeVar("Result")
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Posterior:
    """What a fit leaves before any mask.

    Attributes
    ----------
    model : Module
        The architecture, and buffers that weights do not hold.
    single : mapping of str to Tensor
        The weights of the one network: a mean, or the point estimate.
    draws : sequence of mappings
        The ensemble's weights; empty for a point estimate.
    cost : Cost
    """

    model: nn.Module
    single: Weights
    draws: Sequence[Weights]
    cost: Cost


def masked(problem: Problem, model: nn.Module, weights: Weights, mask: masks.Mask) -> nn.Module:
    """A copy of a network with these weights (and its own buffers, if they hold none), under the mask."""
    own = network_state(model)  # a weight that two layers share is there once, whatever `weights` hold
    return masked_network(
        model, {name: weights.get(name, value) for name, value in own.items()}, mask, problem.statistics
    )


def predict_with(networks: Sequence[nn.Module]) -> Predict:
    """The average prediction of some networks."""

    def predict(inputs: Tensor) -> Tensor:
        return torch.stack([class_probabilities(network, inputs) for network in networks]).mean(0)

    return predict


def under_mask(
    problem: Problem, posterior: Posterior, target: float | None, mask: masks.Mask, ties: Ties | None = None
) -> Candidate:
    """The candidate that one mask makes of a posterior, and what the mask decided by tie."""
    mask = complete(mask, posterior.model)
    single = masked(problem, posterior.model, posterior.single, mask)
    members = [masked(problem, posterior.model, draw, mask) for draw in posterior.draws] or [single]
    alone = partial(class_probabilities, single)
    return Candidate(target, [mask], alone, predict_with(members), len(members), posterior.cost, ties)


def at_sparsities(
    problem: Problem,
    posterior: Posterior,
    scores: Mapping[str, Tensor],
    groups: Mapping[str, GroupMap],
    allocation: str = "global",
) -> Iterator[Candidate]:
    """One candidate per target sparsity, by scores (higher = keep)."""
    for sparsity in problem.sparsities:
        mask = target_sparsity(scores, groups, sparsity, allocation)
        yield under_mask(problem, posterior, sparsity, mask, ties_of(scores, groups, mask, allocation))


def ties_of(
    scores: Mapping[str, Tensor], groups: Mapping[str, GroupMap], mask: masks.Mask, allocation: str = "global"
) -> Ties:
    """What a mask that was made from scores decided by tie."""
    return Ties(tied(scores, groups, mask, allocation), sum(group.num_groups for group in groups.values()))


def complete(mask: masks.Mask, model: nn.Module) -> masks.Mask:
    """A mask of every prunable parameter: what it does not name is kept."""
    return {name: mask.get(name, torch.ones_like(p, dtype=torch.bool)) for name, p in masks.prunable(model).items()}


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What some work returns, and its wall seconds."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started
