"""Means over repetitions (seeds, runs) with Student-t intervals, and shares of examples with binomial ones."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # not scipy.stats, whose import costs over a second


def mean_and_half_width(values: ArrayLike, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the first axis and half-width of its Student-t interval.

    For differences paired by seed it is the interval of the paired t-test.

    Parameters
    ----------
    values : array-like, shape (n, ...)
    level : float
        Coverage of the interval.

    Returns
    -------
    mean, half_width : array of float64, shape (...)
        Scalars if the values are. The half-width is NaN for fewer than two values, the mean for none.
    """
    x = np.asarray(values, dtype=np.float64)
    unknown = np.full(x.shape[1:], np.nan)[()]
    if len(x) < 2:
        return (x.mean(0) if len(x) else unknown), unknown
    half: NDArray[np.float64] = stdtrit(len(x) - 1, (1 + level) / 2) * x.std(0, ddof=1) / np.sqrt(len(x))
    return x.mean(0), half


def wilson_interval(share: ArrayLike, count: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of a binomial share; unlike the normal one it has a width at shares of 0 and 1.

    Parameters
    ----------
    share, count : array-like, of one shape
        The shares, and the number of examples of each.

    Returns
    -------
    low, high : array of float64
    """
    z, p, n = 1.96, np.asarray(share, dtype=np.float64), np.asarray(count, dtype=np.float64)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = wilson_half_width(p, n)
    return centre - half, centre + half


def wilson_half_width(share: ArrayLike, count: ArrayLike) -> NDArray[np.float64]:
    """Half of the width of that interval."""
    z, p, n = 1.96, np.asarray(share, dtype=np.float64), np.asarray(count, dtype=np.float64)
    half: NDArray[np.float64] = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return half
