"""Decisions without a target: objects that a run names, each with what it needs and what a table calls it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sgmcmc_prune import choices
from sgmcmc_prune.criteria.base import Criterion, Scores
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.decision import bayesian_false_discovery_rate, median_probability_model, target_sparsity
from sgmcmc_prune.pruning.loss_budget import largest_within_loss
from sgmcmc_prune.pruning.masks import Mask


@dataclass(frozen=True)
class Evidence:
    """What one chain says of its groups.

    Attributes
    ----------
    scores : mapping of str to Tensor, shape (G,)
        Of the criterion; log-odds where it has probabilities.
    inclusion : mapping of str to Tensor, shape (G,)
        Inclusion probabilities; empty where the criterion has none.
    seed : int
        Key of the shuffle that decides between equal groups.
    losses : callable, optional
        A mask (empty: none) to the losses in nats of the chain's draws on held-out examples, (draws, examples).
    """

    scores: Mapping[str, Tensor]
    inclusion: Mapping[str, Tensor]
    seed: int
    losses: Callable[[Mask], Tensor] | None = None


class Decision(Protocol):
    """Which groups stay."""

    @property
    def name(self) -> str:
        """As a configuration names it."""
        ...

    @property
    def level(self) -> float | None:
        """The number that belongs to it, if there is one."""
        ...

    def applies(self, criterion: Criterion) -> bool:
        """Whether it can be taken by the scores of a criterion."""
        ...

    def __call__(self, evidence: Evidence, groups: Mapping[str, GroupMap]) -> Mask:
        """The mask; True = kept."""
        ...


@dataclass(frozen=True)
class Median:
    """Groups that are more likely in than out stay: `median_probability_model`."""

    name: ClassVar[str] = "median"
    level: ClassVar[float | None] = None

    def applies(self, criterion: Criterion) -> bool:
        """To inclusion probabilities."""
        return criterion.probabilities

    def __call__(self, evidence: Evidence, groups: Mapping[str, GroupMap]) -> Mask:
        """Groups that are more likely in than out."""
        return median_probability_model(evidence.inclusion, groups)


@dataclass(frozen=True)
class FalseDiscoveryRate:
    """The most groups at one level of the expected share of false ones: `bayesian_false_discovery_rate`."""

    level: float
    name: ClassVar[str] = "fdr"

    def applies(self, criterion: Criterion) -> bool:
        """To inclusion probabilities."""
        return criterion.probabilities

    def __call__(self, evidence: Evidence, groups: Mapping[str, GroupMap]) -> Mask:
        """The largest set within the level; log-odds decide where probabilities round to one."""
        return bayesian_false_discovery_rate(
            evidence.inclusion, groups, self.level, second=evidence.scores, seed=evidence.seed
        )


@dataclass(frozen=True)
class LossBudget:
    """As sparse as the draws on held-out examples allow, at a tolerated rise of the loss: `largest_within_loss`."""

    level: float
    name: ClassVar[str] = "loss_budget"

    def applies(self, criterion: Criterion) -> bool:
        """To what scores groups, and is no copy."""
        return not (criterion.copies_layers or criterion.moves)

    def __call__(self, evidence: Evidence, groups: Mapping[str, GroupMap]) -> Mask:
        """The last mask, by the order of the scores, before one that may cost too much."""
        if evidence.losses is None:
            raise ValueError("decision loss_budget needs the draws' losses on held-out examples; hold some out")

        def mask_at(sparsity: float) -> Mask:
            return target_sparsity(evidence.scores, groups, sparsity, seed=evidence.seed)

        return largest_within_loss(evidence.losses, mask_at, self.level)


@dataclass(frozen=True)
class Own:
    """A user's function: (scores, groups) to the groups that stay, booleans of shape (G,) by parameter."""

    name: str
    function: Callable[[Scores, Mapping[str, GroupMap]], Mapping[str, Tensor]]
    level: ClassVar[float | None] = None

    def applies(self, criterion: Criterion) -> bool:
        """To what scores groups: not to the control, which copies the layers of another, nor to what moves weights."""
        return not (criterion.copies_layers or criterion.moves)

    def __call__(self, evidence: Evidence, groups: Mapping[str, GroupMap]) -> Mask:
        """Ask the function, and look at what it says."""
        kept = self.function(dict(evidence.scores), groups)
        for name, group in groups.items():
            stays = kept.get(name)
            if not isinstance(stays, Tensor) or stays.dtype != torch.bool or stays.shape != (group.num_groups,):
                raise ValueError(
                    f"your decision {self.name} must give booleans of shape ({group.num_groups},) for {name!r}, "
                    f"True = kept; it gave {type(stays).__name__}"
                )
        return {name: group.expand(kept[name]).contiguous() for name, group in groups.items()}


def load(name: str, fdr: float, loss_budget: float) -> Decision:
    """The decision of a name, at the level of the false discovery rate, or at the tolerated rise of the loss."""
    found = choices.load("decision", name)
    if choices.is_own(name):
        return Own(name, found)
    levels = {FalseDiscoveryRate: (fdr,), LossBudget: (loss_budget,)}
    decision: Decision = found(*levels.get(found, ()))
    return decision
