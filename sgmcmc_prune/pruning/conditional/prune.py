"""Pruning a network, or its draws, by joint evidence: curvature, elimination, mask, and the move of what is left.

In stages the mask grows to its target at equal ratios of density, and each stage takes the curvature anew, where the
last one has moved the weights: the posterior is no Gaussian, and a far removal needs more than one expansion. What is
removed are single weights or whole groups (`members.py`).
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sgmcmc_prune.likelihoods.base import Likelihood
from sgmcmc_prune.models.layers import Layer, layers_with_rule
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.pruning.allocation import check_sparsity
from sgmcmc_prune.pruning.conditional.blocks import Blocks, Layout
from sgmcmc_prune.pruning.conditional.curvature import curvature, make
from sgmcmc_prune.pruning.conditional.gaussian import condition, eliminate, eliminate_groups, places_of, square
from sgmcmc_prune.pruning.conditional.members import Members, check_blocks, left, single_weights
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.pruning.masks import Mask
from sgmcmc_prune.pruning.prunable import prunable, trainable
from sgmcmc_prune.store.weights import average

Weights = Mapping[str, Tensor]
#: Beside which the prior's precision at zero is taken.
SMALLEST = 1e-6


@dataclass(frozen=True)
class Conditional:
    """How joint evidence is taken.

    Attributes
    ----------
    curvature : str
        "gram", "kfac", "ggn", "fisher", or your own.
    options : mapping
        Of the curvature.
    stages : int
        Masks to the largest target, each with a curvature of its own; 1 goes to each target at once.
    examples : int
        Training examples in each curvature.
    """

    curvature: str = "ggn"
    options: Mapping[str, Any] = field(default_factory=dict)
    stages: int = 1
    examples: int = 2000

    def __post_init__(self) -> None:
        if self.stages < 1 or self.examples < 1:
            raise ValueError(f"stages is {self.stages} and examples {self.examples}; both must be at least 1")


class Pruned(NamedTuple):
    """What a stage leaves: the mask, the draws under it, and the examples that curvatures saw until then."""

    mask: Mask
    draws: list[dict[str, Tensor]]
    examples: int


@dataclass(frozen=True)
class Stage:
    """What a mask is chosen from: where the groups are, curvatures, draws, the prior's precision, and the last mask."""

    members: Mapping[str, Members]
    blocks: Mapping[str, Blocks]
    draws: Sequence[Weights]
    prior: Weights
    mask: Mask

    @cached_property
    def scores(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Those of `scores`, taken once: the elimination is the slow part, and serves every target."""
        return scores(self)


#: What gives the mask of a stage.
Choose = Callable[[Stage], Mask]


def layers_of(model: nn.Module, names: Collection[str] | None = None) -> list[Layer]:
    """The layers of some weights, by default of all prunable ones; ValueError that names one without a curvature.

    A frozen bias does not move: its layer counts as one without.
    """
    rules = {layer.weight: layer for layer in layers_with_rule(model)}
    weights = prunable(model) if names is None else dict.fromkeys(names)
    if unknown := [name for name in weights if name not in rules]:
        raise ValueError(
            f"{unknown[0]!r} belongs to no layer whose curvature is known: conditional pruning takes Linear, and "
            "Conv2d with groups=1 and zero padding; prune by another criterion"
        )
    trained = trainable(model)
    return [rules[n] if rules[n].bias in trained else replace(rules[n], bias=None) for n in weights]


def scores(stage: Stage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Score every group by the order in which its block would lose it: what to keep, and what decides between equals.

    The weights are the mean of the draws: about it, draws of the Gaussian itself add the same to every loss, 1/2 for
    each weight. The first is the largest loss up to the group's turn: a global threshold then cuts each block's order
    at one place. The second is the turn. Shape (G,); groups that a mask has removed have -infinity.
    """
    check_blocks(stage.members, stage.blocks)
    found: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
    kept = left(stage.members, stage.mask, _weights(stage))
    for name, own in stage.members.items():
        layer_blocks = stage.blocks[own.layer]
        layout = layer_blocks.layout
        w, prior = _of_layer(layout, stage.draws).mean(0), _of_layer(layout, [stage.prior])[0]
        alive = layout.kept(kept[own.layer], True)
        if own.single:
            free, score = layout.kept(stage.mask[name], False), _scores
        else:
            free = (own.group.sum(stage.mask[name].double()) > 0).view(1 if own.together else len(w), -1)
            score = partial(_group_scores, own)
        parts = [
            score(layer_blocks.precision(prior, some), w[some], free[some], alive[some])
            for some in ([slice(None)] if own.together else layer_blocks.slices())
        ]
        for of_all, part in zip(found, zip(*parts, strict=True), strict=True):
            joined = torch.cat(part)
            of_all[name] = (layout.join(joined)[name] if own.single else joined).flatten()
    return found


def _weights(stage: Stage) -> dict[str, Tensor]:
    """A weight of each layer, for its shape."""
    return {name: stage.draws[0][name] for name in {*stage.members, *stage.blocks}}


def _scores(precision: Tensor, weights: Tensor, free: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Both scores of some blocks, (B, d): what is gone is cut out first, so that later stages are cheaper."""
    index = places_of(alive)
    here = alive.gather(1, index).double()
    inner = square(precision, index) * here[:, :, None] * here[:, None, :] + torch.diag_embed(1 - here)
    loss, turn = eliminate(inner, weights.gather(1, index), free.gather(1, index))
    gone = torch.full_like(precision[:, 0], -torch.inf)
    return gone.scatter(1, index, _so_far(loss, turn)), gone.scatter(1, index, turn.double())


def _group_scores(
    own: Members, precision: Tensor, weights: Tensor, free: Tensor, alive: Tensor
) -> tuple[Tensor, Tensor]:
    """Both scores of the groups of some blocks, (B, G), or (1, G) where they are in all of them."""
    here = alive.double()
    inner = precision * here[:, :, None] * here[:, None, :] + torch.diag_embed(1 - here)
    loss, turn = eliminate_groups(inner, weights * here, own.columns, free, own.together)
    return _so_far(loss, turn).where(free, -torch.inf), turn.double().where(free, -torch.inf)


def _so_far(loss: Tensor, turn: Tensor) -> Tensor:
    """The largest loss up to each turn."""
    by_turn = turn.argsort(1)
    return torch.empty_like(loss).scatter(1, by_turn, loss.gather(1, by_turn).cummax(1).values)


def move(stage: Stage, mask: Mask) -> list[dict[str, Tensor]]:
    """Every draw with what a mask removes at zero, and the others at their conditional mean."""
    moved = [dict(draw) for draw in stage.draws]
    stays = left(stage.members, mask, _weights(stage))
    for name, kept_weights in stays.items():
        if name not in stage.blocks:  # it makes units, and reads none
            for draw in moved:
                draw[name] = draw[name].masked_fill(~kept_weights, 0)
            continue
        layer_blocks = stage.blocks[name]
        layout = layer_blocks.layout
        kept, w = layout.kept(kept_weights, True), _of_layer(layout, stage.draws)
        own_prior = _of_layer(layout, [stage.prior])[0]
        parts = [
            condition(layer_blocks.precision(own_prior, some), w[:, some], kept[some]).weights
            for some in layer_blocks.slices()
        ]
        for draw, new in zip(moved, torch.cat(parts, 1), strict=True):
            draw |= {n: value.to(draw[n].dtype) for n, value in layout.join(new).items()}
    return moved


def _of_layer(layout: Layout, draws: Sequence[Weights]) -> Tensor:
    """(S, B, d) in float64."""
    weight, bias = layout.layer.weight, layout.layer.bias
    return torch.stack([layout.split(d[weight], None if bias is None else d[bias]) for d in draws]).double()


def path(sparsities: Sequence[float], stages: int) -> list[float]:
    """Rising sparsities of so many stages or a few more: through all targets, at about equal ratios of density."""
    for sparsity in sparsities:
        check_sparsity(sparsity)
    whole, found, density = -math.log1p(-sparsities[-1]), list[float](), 1.0
    for target in sparsities:
        ratio = (1 - target) / density
        steps = max(1, round(-math.log(ratio) / whole * stages))
        found += [*(1 - density * ratio ** (k / steps) for k in range(1, steps)), target]
        density = 1 - target
    return found


def precision_of(prior: Prior, weights: Weights) -> dict[str, Tensor]:
    r"""The prior's precision at some weights, -d log p(w)/dw / w, shaped like them; at zero the limit from beside it.

    A Gaussian has one precision everywhere. For a mixture of Gaussians, as a spike-and-slab is, this is the expected
    precision E[1 / v | w]: what the EM algorithm holds.
    """
    found = {}
    for name, w in weights.items():
        beside = torch.where(w.abs() < SMALLEST, SMALLEST, w)
        found[name] = prior.potential_gradient(name, beside) / beside
    return found


def follow(
    model: nn.Module,
    draws: Sequence[Weights],
    examples: Callable[[int, int], tuple[Tensor, Tensor]],
    prior: Callable[[Weights], Weights],
    choose: Sequence[Choose],
    settings: Conditional,
    *,
    members: Mapping[str, Members] | None = None,
    likelihood: Likelihood,
    num_data: int,
    statistics: Callable[[], Sequence[Tensor]] = tuple,
    seed: int = 0,
) -> Iterator[Pruned]:
    """Take draws of one mode through the masks of some stages, every draw moved by the same conditional.

    With one stage every mask is taken from the start, by one curvature.

    Parameters
    ----------
    model : Module
        The architecture; its weights are overwritten.
    draws : sequence of mapping of str to Tensor
        States of networks: one of a point estimate, or the draws of a chain that share a mode.
    examples : callable
        (stage, count) to the inputs and targets of the training examples that a stage's curvature sees.
    prior : callable
        Mean weights to the prior's precision, shaped like them, for every parameter of the layers.
    choose : sequence of callable
        What gives each mask: `by_evidence`, or `given`.
    settings : Conditional
    members : mapping of str to Members, optional
        Where the groups are that are removed, by name of the weight whose they are, as `members_of` finds them; by
        default every weight is removed by itself.
    likelihood : callable
    num_data : int
        N, the number of training examples.
    statistics : callable
        Gives the inputs for the statistics of batch normalisation, where the network has any.
    seed : int
        Of the signs in a curvature.

    Yields
    ------
    Pruned
        After each stage.

    Raises
    ------
    ValueError
        If a prunable weight belongs to no layer whose curvature is known, or the curvature is not positive definite.
    """
    members = single_weights(model) if members is None else members
    layers, weights, seen = layers_of(model, [own.layer for own in members.values()]), prunable(model), 0
    moved = [{n: v.detach().clone() for n, v in draw.items()} for draw in draws]
    mask = {name: torch.ones_like(weights[name], dtype=torch.bool) for name in members}
    start = make(settings.curvature, dict(settings.options))
    stage = None
    for number, choice in enumerate(choose):
        if stage is None or settings.stages > 1:
            data = examples(number, settings.examples)
            blocks = curvature(
                *(model, moved, data, layers, start),
                likelihood=likelihood,
                num_data=num_data,
                statistics=statistics,
                seed=seed + number,
            )
            stage, seen = Stage(members, blocks, moved, prior(average(moved)), mask), seen + len(data[0])
        mask = choice(stage)
        moved = move(stage, mask)
        yield Pruned(mask, moved, seen)


def by_evidence(sparsity: float, allocation: str = "global") -> Choose:
    """The mask of one sparsity by the order of elimination in every block."""

    def choose(stage: Stage) -> Mask:
        groups = {name: own.group for name, own in stage.members.items()}
        score, turn = stage.scores
        return target_sparsity(score, groups, sparsity, allocation, previous=stage.mask, second=turn)

    return choose


def given(mask: Mask) -> Choose:
    """A mask that is known before: the others are moved, and that is all."""
    return lambda stage: mask
