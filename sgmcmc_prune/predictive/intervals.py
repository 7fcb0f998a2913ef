"""Means over repetitions (seeds, runs) with Student-t intervals."""

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
