"""From a fit and a mask to a candidate of the comparison."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.fit import Cost, Fit
from sgmcmc_prune.compare.method import Candidate, Predict, Problem, Ties
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import match_layer_sparsity, target_sparsity, tied


def under_mask(
    problem: Problem, fit: Fit, target: float | None, mask: masks.Mask | None = None, ties: Ties | None = None
) -> Candidate:
    """The candidate that one mask (by default the fit's own) makes of a fit, and what the mask decided by tie."""
    chosen = fit.mask if mask is None else mask
    if chosen is None:
        raise ValueError("the fit has no mask of its own; give one, or take one of a sparsity by `at_sparsities`")
    whole = complete(chosen, fit.model)
    pruned = fit.under(whole, problem.statistics)
    return Candidate(target, [whole], pruned.single, pruned.predict, pruned.members, fit.cost, ties)


def together(target: float | None, members: Sequence[Candidate]) -> Candidate:
    """The candidate that the single networks of several make, each under its own mask."""
    cost = sum((member.cost for member in members), Cost(0, 0.0))
    predict = partial(_average, [member.single for member in members])
    return Candidate(target, [m.masks[0] for m in members], members[0].single, predict, len(members), cost)


def _average(predictions: Sequence[Predict], inputs: Tensor) -> Tensor:
    return torch.stack([predict(inputs) for predict in predictions]).mean(0)


def at_sparsities(problem: Problem, fit: Fit, allocation: str = "global") -> Iterator[Candidate]:
    """One candidate per target sparsity, by the fit's scores (higher = keep)."""
    for sparsity in problem.sparsities:
        yield under_mask(problem, fit, sparsity, *at_sparsity(fit, sparsity, allocation))


def at_sparsity(fit: Fit, sparsity: float, allocation: str = "global") -> tuple[masks.Mask, Ties]:
    """The mask of a target sparsity by the fit's scores, and what it decided by tie."""
    mask = target_sparsity(fit.scores, fit.groups, sparsity, allocation)
    return mask, ties_of(fit.scores, fit.groups, mask, allocation)


def at_layer_sparsities(problem: Problem, fit: Fit, reference: Mapping[str, Tensor]) -> Iterator[Candidate]:
    """A control: masks by the fit's scores, with the layer sparsities that reference scores give."""
    for target in problem.sparsities:
        mask = match_layer_sparsity(fit.scores, fit.groups, target_sparsity(reference, fit.groups, target))
        yield under_mask(problem, fit, target, mask, ties_of(fit.scores, fit.groups, mask, "layerwise"))


def ties_of(
    scores: Mapping[str, Tensor], groups: Mapping[str, GroupMap], mask: masks.Mask, allocation: str = "global"
) -> Ties:
    """What a mask that was made from scores decided by tie."""
    return Ties(tied(scores, groups, mask, allocation), sum(group.num_groups for group in groups.values()))


def complete(mask: masks.Mask, model: nn.Module) -> masks.Mask:
    """A mask of every prunable parameter: what it does not name is kept."""
    return {name: mask.get(name, torch.ones_like(p, dtype=torch.bool)) for name, p in masks.prunable(model).items()}
