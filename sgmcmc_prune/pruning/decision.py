"""Scores to a mask: a target sparsity, the median probability model, or a Bayesian false discovery rate.

Where scores are equal a second score decides, and then a keyed shuffle, never the position of a group: a decision by
position keeps the last units of every layer because they are last. `tied` counts the groups that a mask decided so.
"""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sgmcmc_prune.criteria.base import first_flagged
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.allocation import check_sparsity, erdos_renyi_kernel, uniform
from sgmcmc_prune.pruning.masks import Mask

ALLOCATIONS = ("global", "layerwise", "erk")

# A group's place in the order of masking: masked before and stays so, free to be masked, kept whatever its score.
_MASKED, _FREE, _PROTECTED = 0, 1, 2


def target_sparsity(
    scores: Mapping[str, Tensor],
    groups: Mapping[str, GroupMap],
    sparsity: float,
    allocation: str = "global",
    *,
    previous: Mapping[str, Tensor] | None = None,
    allow_empty: bool = False,
    second: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Mask:
    r"""Mask whole groups in the order of rising score, up to :math:`\mathrm{round}(s N)` of the N weights.

    Groups are masked one after the other as long as the next one still fits, so the sparsity falls short by less than
    one group, and is exact for single weights. With "layerwise" or "erk" layers take turns (see `_turns`). Log-odds of
    a group grow with its size: where groups of unlike sizes are ranked by them (nodes of wide and of narrow layers),
    these compare like with like.

    Parameters
    ----------
    scores : mapping of str to Tensor, shape (G,)
        One score per group of each prunable parameter; higher = keep.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.
    sparsity : float
        Fraction s of the prunable weights to mask, in [0, 1).
    allocation : {"global", "layerwise", "erk"}
        One ranking over all layers, the same sparsity in every layer, or Erdős-Rényi-kernel densities.
    previous : mapping of str to bool Tensor, optional
        A mask whose masked groups stay masked whatever their score; they count towards `sparsity`.
    allow_empty : bool
        If False, the best group of every layer is kept, even where the target is then missed.
    second : mapping of str to Tensor, shape (G,), optional
        What decides between equal scores; higher = keep.
    seed : int
        Key of the shuffle that decides between groups that are equal in that, too.

    Returns
    -------
    dict of str to bool Tensor, shaped like the weights
        True = kept.

    Raises
    ------
    ValueError
        If `sparsity` or `allocation` is out of range, names or shapes differ, a score is NaN, or `previous` masks a
        part of a group.
    """
    check_sparsity(sparsity)
    if allocation not in ALLOCATIONS:
        raise ValueError(f"allocation is {allocation!r}; choose one of {', '.join(ALLOCATIONS)}")
    _check_scores(scores, groups)
    if allocation == "global" and (masked := _below_threshold(scores, groups, sparsity, previous)) is not None:
        return _to_mask(~masked, groups)
    ranks = _ranks(scores, second, groups, seed)
    stages = {name: _stage(name, ranks[name], group, previous, allow_empty) for name, group in groups.items()}
    sizes = {name: _sizes(group, ranks[name].device) for name, group in groups.items()}
    key = None
    if allocation != "global":
        key = _pool(_turns(ranks, stages, sizes, _masked_shares(groups, sparsity, allocation)), groups)
    size, rank = _pool(sizes, groups), _pool(ranks, groups).long()
    rising = torch.empty_like(rank).scatter_(0, rank, torch.arange(len(rank), device=rank.device))
    budget = round(sparsity * float(size.sum()))
    return _to_mask(~_mask_lowest(rising, key, _pool(stages, groups), size, budget), groups)


def tied(
    scores: Mapping[str, Tensor], groups: Mapping[str, GroupMap], mask: Mapping[str, Tensor], allocation: str = "global"
) -> int:
    """Count the groups that a mask decided by tie: another group has the same score and the opposite fate.

    Parameters
    ----------
    scores : mapping of str to Tensor, shape (G,)
        The scores that the mask was made from.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.
    mask : mapping of str to bool Tensor, shaped like the weights
        True = kept.
    allocation : {"global", "layerwise", "erk"}
        With the last two, groups are compared with those of their own layer alone.

    Returns
    -------
    int
    """
    kept = {name: group.sum(mask[name].double()) > 0 for name, group in groups.items()}
    if allocation == "global":
        return _tied(_pool(scores, groups), torch.cat([kept[name].to(scores[name].device) for name in groups]))
    return sum(_tied(scores[name], kept[name].to(scores[name].device)) for name in groups)


def _tied(score: Tensor, kept: Tensor) -> int:
    if bool(kept.all()) or not bool(kept.any()):
        return 0
    # Only scores between the lowest that was kept and the highest that was masked can have both fates.
    near = (score >= score[kept].min()) & (score <= score[~kept].max())
    score, kept = score[near], kept[near]
    return int(torch.where(kept, torch.isin(score, score[~kept]), torch.isin(score, score[kept])).sum())


def match_layer_sparsity(
    scores: Mapping[str, Tensor], groups: Mapping[str, GroupMap], reference: Mapping[str, Tensor]
) -> Mask:
    """Mask as many weights in each layer as `reference` does, those with the lowest scores.

    With random scores this is the control that separates *which* weights a criterion masks from *how many per layer*.

    Parameters
    ----------
    scores : mapping of str to Tensor, shape (G,)
        One score per group of each prunable parameter; higher = keep.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.
    reference : mapping of str to bool Tensor, shaped like the weights
        The mask to match; exactly so when it masks whole groups and the groups of a layer have one size.

    Returns
    -------
    dict of str to bool Tensor, shaped like the weights
        True = kept.

    Raises
    ------
    ValueError
        If names or shapes differ, or a score is NaN.
    """
    ranks, kept = _ranks(scores, None, groups, 0), []
    for name, rank in ranks.items():
        _check_mask(name, groups[name], reference)
        stage = torch.full_like(rank, _FREE, dtype=torch.uint8)
        size = _sizes(groups[name], rank.device)
        kept.append(~_mask_lowest(rank.argsort(), None, stage, size, int((~reference[name]).sum())))
    return _to_mask(torch.cat(kept), groups)


def median_probability_model(inclusion: Mapping[str, Tensor], groups: Mapping[str, GroupMap]) -> Mask:
    r"""Keep the groups with :math:`p(\gamma_g = 1 \mid D) \ge 1/2`.

    Nothing protects a layer here: one that comes out empty is what the posterior says.

    Parameters
    ----------
    inclusion : mapping of str to Tensor, shape (G,)
        Inclusion probabilities.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.

    Returns
    -------
    dict of str to bool Tensor, shaped like the weights
        True = kept.

    Raises
    ------
    ValueError
        If names or shapes differ, or a probability is outside [0, 1].

    References
    ----------
    Barbieri and Berger (2004), Optimal predictive model selection, Annals of Statistics 32.
    """
    _check_probabilities(inclusion, groups)
    return _to_mask(_pool(inclusion, groups) >= 0.5, groups)


def bayesian_false_discovery_rate(
    inclusion: Mapping[str, Tensor],
    groups: Mapping[str, GroupMap],
    level: float,
    *,
    second: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Mask:
    r"""Keep the largest set K of groups with expected false discovery rate at most `level`.

    .. math:: \frac{1}{|K|} \sum_{g \in K} \left(1 - p(\gamma_g = 1 \mid D)\right) \le \alpha

    over all layers together. The best set of each size holds the highest probabilities. Nothing protects a layer here.

    Parameters
    ----------
    inclusion : mapping of str to Tensor, shape (G,)
        Inclusion probabilities.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.
    level : float
        The bound :math:`\alpha`, in [0, 1].
    second : mapping of str to Tensor, shape (G,), optional
        What decides between equal probabilities, such as log-odds, which do not round to one.
    seed : int
        Key of the shuffle that decides between groups that are equal in that, too.

    Returns
    -------
    dict of str to bool Tensor, shaped like the weights
        True = kept.

    Raises
    ------
    ValueError
        If `level` is outside [0, 1], names or shapes differ, or a probability is outside [0, 1].

    References
    ----------
    Newton, Noueiry, Sarkar and Ahlquist (2004), Detecting differential gene expression with a semiparametric
    hierarchical mixture method, Biostatistics 5; Müller, Parmigiani, Robert and Rousseau (2004), Optimal sample size
    for multiple testing, JASA 99.
    """
    if not 0 <= level <= 1:
        raise ValueError(f"false discovery level is {level}; it must be in [0, 1]")
    _check_probabilities(inclusion, groups)
    order = _pool(_ranks(inclusion, second, groups, seed), groups).argsort(descending=True)
    exclusion = 1 - _pool(inclusion, groups)[order]
    allowed = level * torch.arange(1, len(order) + 1, dtype=torch.float64, device=order.device)
    # The running mean of a rising sequence rises, so the sets within the bound are those up to the last one.
    within = (exclusion.cumsum(0) <= allowed).nonzero()
    kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    kept[order[: int(within.max()) + 1 if len(within) else 0]] = True
    return _to_mask(kept, groups)


def _ranks(
    scores: Mapping[str, Tensor], second: Mapping[str, Tensor] | None, groups: Mapping[str, GroupMap], seed: int
) -> dict[str, Tensor]:
    """Rank all groups of all layers by score, then by the second score, then by a keyed shuffle: no two are equal."""
    _check_scores(scores, groups)
    score = _pool(scores, groups)
    order = score.argsort()
    same = score[order][1:] == score[order][:-1]
    if bool(same.any()):
        tied = torch.cat([same, same.new_zeros(1)]) | torch.cat([same.new_zeros(1), same])
        shuffle = _pool({name: _shuffle(name, group.num_groups, seed) for name, group in groups.items()}, groups)
        keys = [shuffle.to(score.device)]
        if second is not None:
            _check_scores(second, groups)
            keys.append(_pool(second, groups).to(score.device))
        among = order[tied]
        for key in (*keys, score):  # the last key counts most
            among = among[key[among].argsort(stable=True)]
        order[tied] = among
    ranks = torch.empty_like(score)
    ranks[order] = torch.arange(len(order), dtype=score.dtype, device=score.device)
    return dict(zip(groups, ranks.split([group.num_groups for group in groups.values()]), strict=True))


def _below_threshold(
    scores: Mapping[str, Tensor], groups: Mapping[str, GroupMap], sparsity: float, previous: Mapping[str, Tensor] | None
) -> Tensor | None:
    """Mask single weights by one threshold, which takes no ranking; None where that is not the whole answer.

    That is where groups have several weights, where the threshold divides equal scores, and where a layer would be
    empty.
    """
    if any(group.num_groups != math.prod(group.shape) for group in groups.values()):
        return None
    score = _pool(scores, groups)
    masked = torch.zeros(len(score), dtype=torch.bool, device=score.device)
    if previous is not None:
        for name in groups:
            _check_mask(name, groups[name], previous)
        masked = _pool({name: group.sum((~previous[name]).double()) for name, group in groups.items()}, groups) > 0
        masked = masked.to(score.device)
    more = round(sparsity * len(score)) - int(masked.sum())
    grown = masked
    if more > 0:  # those that are masked already come last
        grown = masked | (score <= score.masked_fill(masked, math.inf).kthvalue(more).values)
    layers = grown.split([group.num_groups for group in groups.values()])
    empty = torch.stack([layer.all() for layer in layers]).any()
    exact = (grown & ~masked).sum() == max(more, 0)
    return grown if bool(exact & ~empty) else None


def _shuffle(name: str, count: int, seed: int) -> Tensor:
    """Uniform numbers for the groups of a layer; they depend on its name and the seed, and not on other layers."""
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "little")
    return torch.rand(count, generator=torch.Generator().manual_seed(key), dtype=torch.float64)


def _mask_lowest(rising: Tensor, key: Tensor | None, stage: Tensor, size: Tensor, budget: int) -> Tensor:
    """Say which groups to mask: those masked before, then by rising key while the total size stays within budget."""
    order = _order(rising, key, stage)
    fits = size[order].cumsum(0) <= budget
    masked = torch.empty(len(size), dtype=torch.bool, device=size.device)
    masked[order] = (stage[order] == _MASKED) | (fits & (stage[order] == _FREE))
    return masked


def _order(rising: Tensor, key: Tensor | None, stage: Tensor) -> Tensor:
    """Order by stage, then key (if there is one), then rank; `rising` are the groups by rising rank."""
    order = rising if key is None else rising[key[rising].argsort(stable=True)]
    return torch.cat([order[stage[order] == which] for which in (_MASKED, _FREE, _PROTECTED)])


def _stage(
    name: str, rank: Tensor, group: GroupMap, previous: Mapping[str, Tensor] | None, allow_empty: bool
) -> Tensor:
    stage = torch.full_like(rank, _FREE, dtype=torch.uint8)
    if previous is not None:
        _check_mask(name, group, previous)
        fraction = group.sum((~previous[name]).double()).to(rank.device) / _sizes(group, rank.device)
        if bool(((fraction > 0) & (fraction < 1)).any()):
            raise ValueError(f"the previous mask of {name!r} masks a part of a {group.kind} group; mask whole groups")
        stage[fraction == 1] = _MASKED
    free = stage == _FREE
    if not allow_empty and bool(free.any()):
        stage[rank.where(free, -1).argmax()] = _PROTECTED
    return stage


def _masked_shares(groups: Mapping[str, GroupMap], sparsity: float, allocation: str) -> dict[str, float]:
    """Count how many weights each layer should lose."""
    allocate = uniform if allocation == "layerwise" else erdos_renyi_kernel
    shapes = {name: group.shape for name, group in groups.items()}
    densities = allocate(shapes, sparsity)
    return {name: (1 - density) * torch.Size(shapes[name]).numel() for name, density in densities.items()}


def _turns(
    ranks: Mapping[str, Tensor], stages: Mapping[str, Tensor], sizes: Mapping[str, Tensor], shares: Mapping[str, float]
) -> dict[str, Tensor]:
    r"""Turn each layer's order into keys that compare across layers: how far into its share a group's middle lies.

    Group k of a layer with the share :math:`q_l` of the masked weights has the key :math:`(c_k - n_k / 2) / q_l`, with
    :math:`c_k` the weights masked up to and with it and :math:`n_k` its own, and the lowest keys are masked first:
    Webster's apportionment, exact in total and monotone.
    """
    keys = {}
    for name, size in sizes.items():
        order = _order(ranks[name].argsort(), None, stages[name])
        keys[name] = torch.empty_like(size)
        keys[name][order] = (size[order].cumsum(0) - size[order] / 2) / shares[name]
    return keys


def _sizes(group: GroupMap, device: torch.device) -> Tensor:
    return group.sizes(torch.empty(0, dtype=torch.float64, device=device))


def _pool(values: Mapping[str, Tensor], groups: Mapping[str, GroupMap]) -> Tensor:
    """Concatenate the layers in the order of `groups`; float64, so that close scores stay apart."""
    return torch.cat([values[name].double() for name in groups])


def _to_mask(kept: Tensor, groups: Mapping[str, GroupMap]) -> Mask:
    """Expand pooled group decisions to weights; the clone gives each mask its own memory."""
    parts = kept.split([group.num_groups for group in groups.values()])
    return {
        name: group.expand(part).clone(memory_format=torch.contiguous_format)
        for (name, group), part in zip(groups.items(), parts, strict=True)
    }


def _check_scores(scores: Mapping[str, Tensor], groups: Mapping[str, GroupMap]) -> None:
    if not groups or scores.keys() != groups.keys():
        raise ValueError(f"scores are for {sorted(scores)}, groups for {sorted(groups)}; give the same, one at least")
    for name, group in groups.items():
        if tuple(scores[name].shape) != (group.num_groups,):
            raise ValueError(f"scores of {name!r} have shape {tuple(scores[name].shape)}; give ({group.num_groups},)")
    if (bad := first_flagged({name: scores[name].isnan().any() for name in groups})) is not None:
        raise ValueError(f"scores of {bad!r} hold NaN; every group needs a score that can be ranked")


def _check_probabilities(inclusion: Mapping[str, Tensor], groups: Mapping[str, GroupMap]) -> None:
    _check_scores(inclusion, groups)
    for name, value in inclusion.items():
        if bool(((value < 0) | (value > 1)).any()):
            raise ValueError(f"inclusion of {name!r} leaves [0, 1]; give probabilities, not log odds or scores")


def _check_mask(name: str, group: GroupMap, mask: Mapping[str, Tensor]) -> None:
    if name not in mask or mask[name].dtype != torch.bool or tuple(mask[name].shape) != group.shape:
        raise ValueError(f"the given mask has no boolean tensor of shape {group.shape} for {name!r}")
