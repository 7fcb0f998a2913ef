"""Log odds of inclusion from a normal posterior, in closed form, for both kinds of spike (see `saha`)."""

import math

import torch
from torch import Tensor

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.priors.groups import GroupMap


def continuous_spike_log_odds(
    mean: Tensor, variance: Tensor, groups: GroupMap | None, spike_std: float, slab_std: float, inclusion: float
) -> Tensor:
    """R1: log odds of inclusion of each group (of each entry without groups), shape (G,)."""
    evidence = math.log(spike_std / slab_std) + 0.5 * (mean.square() + variance) * (spike_std**-2 - slab_std**-2)
    return kl.log_odds(inclusion) + (groups.sum(evidence) if groups is not None else evidence)


def point_spike_log_odds(
    mean: Tensor, variance: Tensor, groups: GroupMap | None, slab_std: float, inclusion: float
) -> Tensor:
    """R2: log odds of inclusion of each group (of each entry without groups), shape (G,).

    An entry of variance zero was masked before: it has no say, and a group of such entries has log odds -inf.
    """
    masked = variance == 0
    safe = torch.where(masked, torch.ones_like(variance), variance)
    evidence = 0.5 * (safe / slab_std**2).log() + 0.5 * mean.square() / safe
    evidence = torch.where(masked, torch.zeros_like(evidence), evidence)
    if groups is not None:
        evidence = groups.sum(evidence)
        masked = groups.sum((~masked).to(variance)) == 0
    return (kl.log_odds(inclusion) + evidence).masked_fill(masked, -math.inf)


def any_active(inclusion: Tensor, weights: GroupMap, groups: GroupMap) -> Tensor:
    r"""Probability :math:`1 - \prod_i (1 - \phi_i)` that a group has an active weight, shape (G,)."""
    per_weight = weights.expand(inclusion).double()
    return -torch.expm1(groups.sum(torch.log1p(-per_weight.clamp_max(1 - 1e-15))))
