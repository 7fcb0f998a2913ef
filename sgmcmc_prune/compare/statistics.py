"""Ranks of methods with a critical difference."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def average_ranks(scores: Mapping[str, Sequence[float]], higher_is_better: bool) -> dict[str, float]:
    """Mean rank of each method over blocks (a data set, a sparsity, a seed); 1 is best, ties share their mean rank.

    Parameters
    ----------
    scores : mapping of method to sequence of float, one per block
    higher_is_better : bool
    """
    from scipy import stats

    table = np.array(list(scores.values()))
    ranks = stats.rankdata(-table if higher_is_better else table, axis=0)
    return dict(zip(scores, ranks.mean(1).tolist(), strict=True))


def friedman(ranks: Mapping[str, float], blocks: int) -> float:
    r"""The p-value of Friedman's test that all methods rank alike, from their average ranks R_j over n blocks.

    .. math:: \chi^2_F = \frac{12 n}{k (k + 1)} \left(\sum_j R_j^2 - \frac{k (k + 1)^2}{4}\right)

    is chi-squared with k - 1 degrees of freedom for many blocks (without the correction for ties, so that ties make it
    conservative).
    """
    from scipy import stats

    k = len(ranks)
    statistic = 12 * blocks / (k * (k + 1)) * (sum(r * r for r in ranks.values()) - k * (k + 1) ** 2 / 4)
    return float(stats.chi2.sf(statistic, k - 1))


def critical_difference(methods: int, blocks: int, alpha: float = 0.05) -> float:
    r"""Nemenyi's critical difference of average ranks, :math:`q_\alpha \sqrt{k (k + 1) / (6 n)}`.

    :math:`q_\alpha` is the quantile of the studentised range at infinite degrees of freedom, divided by
    :math:`\sqrt 2`.

    References
    ----------
    Demšar: Statistical comparisons of classifiers over multiple data sets (JMLR 2006).
    """
    from scipy import stats

    quantile = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * blocks))
