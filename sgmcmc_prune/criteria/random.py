"""Uniform random scores: the control that every criterion must beat."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from sgmcmc_prune.criteria.base import Averages, Criterion, Scores
from sgmcmc_prune.priors.groups import GroupMap


def random(groups: Mapping[str, GroupMap], seed: int) -> Scores:
    """Uniform scores on [0, 1): the control that every criterion must beat.

    Parameters
    ----------
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.
    seed : int
        Equal seeds give equal scores; torch's global random state is neither read nor changed.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64, on the CPU
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(group.num_groups, generator=generator, dtype=torch.float64) for name, group in groups.items()
    }


class Random(Criterion):
    """Chance, with the sparsity of every layer that the first criterion gave it."""

    kept_by_chains: ClassVar[bool] = True
    copies_layers: ClassVar[bool] = True

    def scores(self, averages: Averages, groups: Mapping[str, GroupMap], seed: int) -> Scores:
        """`random`."""
        return random(groups, seed)
