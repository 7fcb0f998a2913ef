"""Magnitude against the magnitudes of the same layer that are larger still: LAMP."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sgmcmc_prune.criteria.base import Averages, Criterion, Scores
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.groups import GroupMap


def lamp(weights: Mapping[str, Tensor], groups: Mapping[str, GroupMap]) -> dict[str, Tensor]:
    r"""Layer-adaptive magnitude: :math:`s_g = m_g^2 / \sum_{h: m_h \ge m_g} m_h^2`, with m the `magnitude` of a group.

    The sum runs over the groups of the layer, so that a global threshold gives each layer a budget of its own, and the
    last group of a layer scores 1.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Weights by parameter name.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64

    Raises
    ------
    ValueError
        As `magnitude`.

    References
    ----------
    Lee, Park, Mo, Ahn and Shin (2021), Layer-adaptive sparsity for the magnitude-based pruning.
    """
    return {name: _lamp(size.square()) for name, size in magnitude(weights, groups).items()}


def _lamp(squares: Tensor) -> Tensor:
    ordered, order = squares.sort()
    left = ordered.flip(0).cumsum(0).flip(0)  # what is at least as large; among equals a later one counts as larger
    scores = torch.where(ordered > 0, ordered / left, 0.0)
    return torch.empty_like(squares).scatter(0, order, scores)


class Lamp(Criterion):
    """Magnitude of the mean weight, against those of its layer that are larger still: `lamp`."""

    kept_by_chains: ClassVar[bool] = True

    def observe(self, prior: Prior | None, name: str, w: Tensor, temperature: float) -> dict[str, Tensor]:
        """w."""
        return {"mean": w.double()}

    def scores(self, averages: Averages, groups: Mapping[str, GroupMap], seed: int) -> Scores:
        """`lamp` of the mean weights."""
        return lamp(averages["mean"], groups)
