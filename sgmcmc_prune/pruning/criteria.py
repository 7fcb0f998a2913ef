"""Scores: one number per group of weights, higher = keep. One function per criterion.

`inclusion_log_odds` serves two: inclusion probabilities (averages over draws of the mixture) and EM's responsibilities.
The expected log-odds, the average over draws of each group's conditional log-odds, need no function. They rank
otherwise than the inclusion probability where all are near one: there the small complements come from the few draws in
which a weight crosses zero, while the mean of the log-odds weighs how far from it the weight stays.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sgmcmc_prune.priors.groups import GroupMap

#: The criteria that a run can name.
NAMES = (
    "inclusion_probability",
    "expected_log_odds",
    "em_responsibility",
    "magnitude",
    "signal_to_noise",
    "random",
)
#: Standard deviation of a weight that did not move.
SMALLEST_DEVIATION = 1e-100


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
    return {name: _root_mean(_weight(weights, name, group).square(), group) for name, group in groups.items()}


def signal_to_noise(
    mean: Mapping[str, Tensor], variance: Mapping[str, Tensor], groups: Mapping[str, GroupMap]
) -> dict[str, Tensor]:
    r"""Root-mean-square of mean over standard deviation: :math:`s_g = \sqrt{\sum_{i \in g} \mu_i^2/\sigma_i^2 / |g|}`.

    Where the variance is zero, the standard deviation counts as `SMALLEST_DEVIATION`, so that no score is infinite.

    Parameters
    ----------
    mean, variance : mapping of str to Tensor
        Mean and variance of each weight over the draws, by parameter name.
    groups : mapping of str to GroupMap
        The groups of every prunable parameter.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64

    Raises
    ------
    ValueError
        If a prunable parameter is missing, has another shape than its group map, or has a negative variance.

    References
    ----------
    Graves (2011), Practical variational inference for neural networks; Blundell et al. (2015), Weight uncertainty in
    neural networks, section 5.1.
    """
    return {name: _root_mean(_squared_ratio(mean, variance, name, group), group) for name, group in groups.items()}


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
        return group.sum(_weight(curvature, name, group) * _weight(draw, name, group).square()) / 2

    pairs = list(zip(draws, curvatures, strict=True))
    return {name: torch.stack([rise(*pair, name) for pair in pairs]).mean(0) for name in groups}


def inclusion_log_odds(log_included: Mapping[str, Tensor], log_excluded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Log odds of inclusion: :math:`s_g = \log \bar p(\gamma_g = 1) - \log \bar p(\gamma_g = 0)`.

    It ranks groups as the inclusion probability does, and goes on where that rounds to zero or one: both sides are
    averaged in log space.

    Parameters
    ----------
    log_included, log_excluded : mapping of str to Tensor, shape (G,), float64
        Logs of the averages over draws of :math:`p(\gamma_g = 1 \mid w_s)` and of :math:`p(\gamma_g = 0 \mid w_s)`.

    Returns
    -------
    dict of str to Tensor, shape (G,), float64

    Raises
    ------
    TypeError
        If an average is not float64.
    ValueError
        If the two mappings differ in names or shapes, or a log probability is infinite or above zero.
    """
    if log_included.keys() != log_excluded.keys():
        raise ValueError(f"included has {sorted(log_included)}, excluded has {sorted(log_excluded)}; give the same")
    return {name: _log_odds(name, log_included[name], log_excluded[name]) for name in log_included}


def random(groups: Mapping[str, GroupMap], seed: int) -> dict[str, Tensor]:
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


def _weight(values: Mapping[str, Tensor], name: str, group: GroupMap) -> Tensor:
    """Look up one weight-shaped tensor, in float64: squares of small weights underflow in float32."""
    if name not in values:
        raise ValueError(f"no values for prunable parameter {name!r}; got {sorted(values)}")
    if tuple(values[name].shape) != group.shape:
        raise ValueError(f"{name!r} has shape {tuple(values[name].shape)}; its groups need {group.shape}")
    return values[name].detach().double()


def _root_mean(squares: Tensor, group: GroupMap) -> Tensor:
    return (group.sum(squares) / group.group_size.to(squares.device)).sqrt()


def _squared_ratio(mean: Mapping[str, Tensor], variance: Mapping[str, Tensor], name: str, group: GroupMap) -> Tensor:
    centre, spread = _weight(mean, name, group), _weight(variance, name, group)
    if bool((spread < 0).any()):
        raise ValueError(f"variance of {name!r} is negative ({float(spread.min()):.3g}); variances are >= 0")
    # The floor keeps weights that never moved in the order of their size, above all that did.
    return (centre / spread.sqrt().clamp(min=SMALLEST_DEVIATION)).square()


def _log_odds(name: str, included: Tensor, excluded: Tensor) -> Tensor:
    for side, average in (("included", included), ("excluded", excluded)):
        if average.dtype != torch.float64:
            raise TypeError(f"log {side}[{name!r}] is {average.dtype}; average in torch.float64")
        if bool((average > 1e-9).any()) or not bool(average.isfinite().all()):
            raise ValueError(f"log {side}[{name!r}] is infinite or above 0; give logs of probabilities, of every group")
    if included.shape != excluded.shape:
        raise ValueError(f"{name!r}: included has shape {tuple(included.shape)}, excluded {tuple(excluded.shape)}")
    return included - excluded
