"""Magnitude of the mean weight, and root mean square of the weight: two names, for they are two rankings."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from sgmcmc_prune.criteria.base import Averages, Criterion, Scores, root_mean, weight
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.groups import GroupMap


def magnitude(weights: Mapping[str, Tensor], groups: Mapping[str, GroupMap]) -> dict[str, Tensor]:
    r"""Root-mean-square weight of each group: :math:`s_g = \sqrt{\sum_{i \in g} w_i^2 / |g|}`.

    The mean makes groups of different sizes comparable; for single weights the score is :math:`|w|`.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Weights by parameter name; names absent from `groups` are ignored.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64

    Raises
    ------
    ValueError
        If a prunable parameter is missing or has another shape than its group map.

    References
    ----------
    Han, Pool, Tran and Dally (2015), Learning both weights and connections for efficient neural networks.
    """
    return {name: root_mean(weight(weights, name, group).square(), group) for name, group in groups.items()}


class Magnitude(Criterion):
    r"""|E w|: magnitude of the mean weight."""

    kept_by_chains: ClassVar[bool] = True

    def observe(self, prior: Prior | None, name: str, w: Tensor, temperature: float) -> dict[str, Tensor]:
        """w."""
        return {"mean": w.double()}

    def scores(self, averages: Averages, groups: Mapping[str, GroupMap], seed: int) -> Scores:
        """`magnitude` of the mean weights."""
        return magnitude(averages["mean"], groups)


class RootMeanSquare(Criterion):
    r"""sqrt(E w^2): a weight that swings about 0 counts, too."""

    kept_by_chains: ClassVar[bool] = True

    def observe(self, prior: Prior | None, name: str, w: Tensor, temperature: float) -> dict[str, Tensor]:
        """w^2."""
        return {"square": w.double().square()}

    def scores(self, averages: Averages, groups: Mapping[str, GroupMap], seed: int) -> Scores:
        """`magnitude` of the root mean squares."""
        return magnitude({name: square.sqrt() for name, square in averages["square"].items()}, groups)
