r"""Optimal posterior damage: score a weight by the posterior precision that training left behind.

    OPD_k = Pi_kk theta_k^2,        Pi = H / T + diag(delta).

At a mode of the posterior, removing weight k raises the quadratic model of the negative log joint by OPD_k / 2, and the
negative log-likelihood alone (over T) by (h_k / 2T + delta_k) theta_k^2. With delta = 0 it is optimal brain damage. At
the maximum of the evidence over one precision per weight it is h_k / (T delta_k), and ranks exactly as optimal brain
damage does.

References
----------
Dhahri, Immer, Charpentier, Günnemann, Fortuin: Shaving weights with Occam's razor (NeurIPS 2024).
LeCun, Denker, Solla: Optimal brain damage (NeurIPS 1989).
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.pruning.masks import Mask


def optimal_posterior_damage(
    weights: Mapping[str, Tensor], posterior_precision: Mapping[str, Tensor], groups: Mapping[str, GroupMap]
) -> dict[str, Tensor]:
    """Sum of Pi_kk theta_k^2 over each group: single weights, or all incoming weights of a node or filter.

    Parameters
    ----------
    weights, posterior_precision : mapping of str to Tensor
        theta and diag(Pi), by parameter name.
    groups : mapping of str to GroupMap
        The groups of every parameter to score.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64

    Raises
    ------
    ValueError
        If a parameter has no posterior precision, or another shape than its groups.
    """
    scores = {}
    for name, group in groups.items():
        if name not in weights or name not in posterior_precision:
            raise ValueError(f"no posterior precision for {name!r}; there is one for {sorted(posterior_precision)}")
        theta, precision = weights[name].detach().double(), posterior_precision[name].double()
        if tuple(theta.shape) != group.shape or tuple(precision.shape) != group.shape:
            raise ValueError(f"{name!r} has shape {tuple(theta.shape)}; its groups need {group.shape}")
        scores[name] = group.sum(precision * theta.square())
    return scores


def unit_mask(
    weights: Mapping[str, Tensor],
    posterior_precision: Mapping[str, Tensor],
    sparsity: float,
    *,
    keep: Collection[str],
    allow_empty: bool = False,
) -> Mask:
    """Remove the same fraction of the units of every layer: those whose incoming weights do the least damage.

    Parameters
    ----------
    weights, posterior_precision : mapping of str to Tensor
        theta and diag(Pi), by parameter name; those with one dimension are ignored.
    sparsity : float
        Fraction of the units (nodes, filters) of each layer to remove, in [0, 1); round(sparsity * units) of each.
    keep : collection of str
        Weights whose units all stay: the output layer has to be one of them.
    allow_empty : bool
        If False, the best unit of every layer stays, whatever the sparsity.

    Returns
    -------
    dict of str to bool Tensor
        True = kept, for every weight; give it to `remove_units`.

    Raises
    ------
    ValueError
        If `sparsity` is out of range, or `keep` names no weight.
    """
    matrices = {name: w for name, w in weights.items() if w.ndim >= 2 and name in posterior_precision}
    if unknown := sorted(set(keep) - matrices.keys()):
        raise ValueError(f"keep names {unknown}, which are no weights with a score; choose from {sorted(matrices)}")
    mask = {}
    for name, weight in matrices.items():
        if name in keep:
            mask[name] = torch.ones_like(weight, dtype=torch.bool)
            continue
        groups = {name: GroupMap("node", tuple(weight.shape))}
        scores = optimal_posterior_damage(weights, posterior_precision, groups)
        mask |= target_sparsity(scores, groups, sparsity, allow_empty=allow_empty)
    return mask


@torch.no_grad()
def remove_units(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Zero the masked weights, and the bias of each unit that has no incoming weight left, in place.

    With an activation that maps 0 to 0 such a unit feeds zeros to the next layer: deleting it changes no output.
    """
    parameters = dict(model.named_parameters())
    for name, kept in mask.items():
        parameters[name].masked_fill_(~kept, 0)
        bias = parameters.get(f"{name.removesuffix('weight')}bias")
        if bias is not None:
            bias.masked_fill_(~kept.flatten(1).any(1), 0)
