"""Expected rise of the loss when weights are removed: optimal brain damage, averaged over draws."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sgmcmc_prune.criteria.base import weight
from sgmcmc_prune.priors.groups import GroupMap


def expected_loss(
    draws: Sequence[Mapping[str, Tensor]], curvatures: Sequence[Mapping[str, Tensor]], groups: Mapping[str, GroupMap]
) -> dict[str, Tensor]:
    r"""Expected rise of the loss, in nats, when the weights of a group are set to zero in every draw.

    .. math:: s_g = \frac{1}{2 S} \sum_{s} \sum_{i \in g} h_i(w_s) \, w_{s,i}^2

    with the diagonal curvature h of the loss L = N * mean NLL: optimal brain damage, averaged over the posterior. The
    term of first order is left out: under a Gaussian prior of precision a, and at T = 1, equipartition makes it
    :math:`-E[w_i \, \partial_i L] = a E[w_i^2] - 1`, which is about 0 for a weight that the prior holds.

    Parameters
    ----------
    draws : sequence of mapping of str to Tensor
        Weights by parameter name.
    curvatures : sequence of mapping of str to Tensor
        h at each draw, shaped like the weights.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64

    Raises
    ------
    ValueError
        If there is no draw, draws and curvatures differ in number, a prunable parameter is missing, or a tensor has
        another shape than its group map.

    References
    ----------
    LeCun, Denker and Solla (1990), Optimal brain damage.
    """
    if not draws or len(draws) != len(curvatures):
        raise ValueError(f"there are {len(draws)} draws and {len(curvatures)} curvatures; give one for each draw")

    def rise(draw: Mapping[str, Tensor], curvature: Mapping[str, Tensor], name: str) -> Tensor:
        group = groups[name]
        return group.sum(weight(curvature, name, group) * weight(draw, name, group).square()) / 2

    pairs = list(zip(draws, curvatures, strict=True))
    return {name: torch.stack([rise(*pair, name) for pair in pairs]).mean(0) for name in groups}
