"""Pruning a network, or its draws, by joint evidence: curvature, elimination, mask, and the move of what is left.

In stages the mask grows to its target at equal ratios of density, and each stage takes the curvature anew, where the
last one has moved the weights: the posterior is no Gaussian, and a far removal needs more than one expansion.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sgmcmc_prune.likelihoods.base import Likelihood
from sgmcmc_prune.models.layers import Layer, rule_of
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.allocation import check_sparsity
from sgmcmc_prune.pruning.conditional.blocks import Blocks, Layout
from sgmcmc_prune.pruning.conditional.curvature import curvature, make
from sgmcmc_prune.pruning.conditional.gaussian import condition, eliminate
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.pruning.masks import Mask, prunable

Weights = Mapping[str, Tensor]


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
        Masks to the target, each with a curvature of its own.
    examples : int
        Training examples in each curvature.
    allocation : {"global", "layerwise", "erk"}
    """

    curvature: str = "ggn"
    options: Mapping[str, Any] = field(default_factory=dict)
    stages: int = 1
    examples: int = 4000
    allocation: str = "global"

    def __post_init__(self) -> None:
        if self.stages < 1 or self.examples < 1:
            raise ValueError(f"stages is {self.stages} and examples {self.examples}; both must be at least 1")


class Pruned(NamedTuple):
    """What pruning leaves: the mask, the draws under it, and the examples that the curvatures have seen."""

    mask: Mask
    draws: list[dict[str, Tensor]]
    examples: int


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers of all prunable weights; ValueError that names one of which the curvature is not known."""
    rules = {layer.weight: layer for layer in rule_of(model)}
    weights = prunable(model)
    if unknown := [name for name in weights if name not in rules]:
        raise ValueError(
            f"{unknown[0]!r} belongs to no layer whose curvature is known: conditional pruning takes Linear, and "
            "Conv2d with groups=1 and zero padding; prune by another criterion"
        )
    return [rules[name] for name in weights]


def scores(
    blocks: Mapping[str, Blocks], draws: Sequence[Weights], prior: Weights, mask: Mask
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Score every weight by the order in which its block would lose it: what to keep, and what decides between equals.

    The first is the largest loss up to the weight's turn: a global threshold then cuts each block's order at one place.
    The second is the turn. Shape (G,), one weight a group; weights that a mask has removed have -infinity.
    """
    found: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
    for name, layer_blocks in blocks.items():
        layout = layer_blocks.layout
        free = layout.split(mask[name], None if layout.layer.bias is None else torch.zeros(len(mask[name])).bool())
        w, own_prior = _of_layer(layout, draws), _precision(layout, prior)
        alive = w.ne(0).any(0) | free
        parts = [
            _scores(layer_blocks.precision(own_prior, some), w[:, some], free[some], alive[some])
            for some in layer_blocks.slices()
        ]
        for of_all, part in zip(found, zip(*parts, strict=True), strict=True):
            of_all[name] = layout.join(torch.cat(part))[name].flatten()
    return found


def _scores(precision: Tensor, weights: Tensor, free: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Both scores of some blocks, (B, d): what is gone is cut out first, so that later stages are cheaper."""
    width = max(1, int(alive.sum(1).max()))
    index = (~alive).to(torch.uint8).argsort(1, stable=True)[:, :width]
    here = alive.gather(1, index).double()
    square = precision.gather(1, index[:, :, None].expand(-1, -1, precision.shape[2]))
    square = square.gather(2, index[:, None, :].expand(-1, width, -1))
    square = square * here[:, :, None] * here[:, None, :] + torch.diag_embed(1 - here)
    some = weights.gather(2, index.expand(len(weights), -1, -1))
    loss, turn = eliminate(square, some, free.gather(1, index))
    by_turn = turn.argsort(1)
    so_far = loss.gather(1, by_turn).cummax(1).values
    gone = torch.full_like(precision[:, 0], -torch.inf)
    kept = gone.scatter(1, index, torch.empty_like(loss).scatter(1, by_turn, so_far))
    return kept, gone.scatter(1, index, turn.double())


def move(blocks: Mapping[str, Blocks], draws: Sequence[Weights], prior: Weights, mask: Mask) -> list[dict[str, Tensor]]:
    """Every draw with the weights that a mask removes at zero, and the others at their conditional mean."""
    moved = [dict(draw) for draw in draws]
    for name, layer_blocks in blocks.items():
        layout = layer_blocks.layout
        kept = layout.split(mask[name], None if layout.layer.bias is None else torch.ones(len(mask[name])).bool())
        w, own_prior = _of_layer(layout, draws), _precision(layout, prior)
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


def _precision(layout: Layout, prior: Weights) -> Tensor:
    """The prior's precision in blocks (B, d), one where a block is padded."""
    weight, bias = layout.layer.weight, layout.layer.bias
    padded = layout.split(torch.ones_like(prior[weight]), None if bias is None else torch.ones_like(prior[bias])) == 0
    return layout.split(prior[weight], None if bias is None else prior[bias]).double() + padded.double()


def densities(sparsity: float, stages: int) -> list[float]:
    """Shares of weights that are left after each stage, at equal ratios, down to 1 - sparsity."""
    check_sparsity(sparsity)
    return [(1 - sparsity) ** ((stage + 1) / stages) for stage in range(stages)]


def prune(
    model: nn.Module,
    draws: Sequence[Weights],
    examples: Callable[[int, int], tuple[Tensor, Tensor]],
    prior: Callable[[Weights], Weights],
    sparsity: float,
    settings: Conditional,
    *,
    likelihood: Likelihood,
    num_data: int,
    seed: int = 0,
) -> Pruned:
    """Prune draws of one mode under one mask, every draw moved by the same conditional."""
    layers, groups = layers_of(model), {n: GroupMap("weight", tuple(p.shape)) for n, p in prunable(model).items()}
    moved, mask = [dict(d) for d in draws], {n: torch.ones_like(p, dtype=torch.bool) for n, p in prunable(model).items()}
    seen = 0
    for stage, density in enumerate(densities(sparsity, settings.stages)):
        data = examples(stage, settings.examples)
        start = make(settings.curvature, dict(settings.options))
        blocks = curvature(model, moved, data, layers, start, likelihood=likelihood, num_data=num_data, seed=seed)
        precision = prior(moved[0])
        score, turn = scores(blocks, moved, precision, mask)
        mask = target_sparsity(score, groups, 1 - density, settings.allocation, previous=mask, second=turn)
        moved, seen = move(blocks, moved, precision, mask), seen + len(data[0])
    return Pruned(mask, moved, seen)
