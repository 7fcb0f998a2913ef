"""How precise is the average of one chain: batch means."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit  # not scipy.stats, whose import costs over a second

#: Fewer batches than this give no standard error.
MIN_BATCHES = 8


class BatchMeans(NamedTuple):
    """A mean of correlated values, its standard error (NaN under eight batches), and the number of batches."""

    mean: float
    standard_error: float
    num_batches: int


def batch_means(x: ArrayLike, batches: int | None = None) -> BatchMeans:
    r"""Mean of one chain and its standard error by non-overlapping batch means.

    With B batches of equal length and means :math:`\bar x_b`, the squared error is
    :math:`\frac{1}{B (B - 1)} \sum_b (\bar x_b - \bar x)^2`. It is right when a batch is much longer than the
    autocorrelation time, and too small otherwise. In a cyclical run a batch is a cycle: pass the number of cycles.

    Parameters
    ----------
    x : array_like, shape (n,)
        Values in the order they were drawn. The first n mod B are left out, of the mean too.
    batches : int, optional
        B, at most n; the whole part of sqrt(n) unless given.

    Returns
    -------
    BatchMeans
        In units of `x`; under eight batches the standard error is NaN: it would itself be known to some 30% at best.

    Raises
    ------
    ValueError
        Values that are missing, not finite or not a vector; fewer than one batch or more than n.

    References
    ----------
    Flegal and Jones (2010), Batch means and spectral variance estimators in MCMC, Annals of Statistics 38.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"batch means need a non-empty vector of finite values, not shape {values.shape} or NaN")
    count = math.isqrt(values.size) if batches is None else batches
    if not 1 <= count <= values.size:
        raise ValueError(f"batches is {count}; {values.size} values allow 1 to {values.size}")
    means = values[values.size % count :].reshape(count, -1).mean(1)
    error = float(means.std(ddof=1)) / math.sqrt(count) if count >= MIN_BATCHES else math.nan
    return BatchMeans(float(means.mean()), error, count)


def batch_means_interval(x: ArrayLike, probability: float = 0.95, batches: int | None = None) -> tuple[float, float]:
    r"""Confidence interval for the mean of one chain, :math:`\bar x \pm t_{B-1}(\frac{1 + p}{2})\,\mathrm{se}`.

    Parameters
    ----------
    x : array_like, shape (n,)
        Values in the order they were drawn.
    probability : float
        Coverage, between 0 and 1.
    batches : int, optional
        As in `batch_means`.

    Returns
    -------
    tuple of float
        Lower and upper end; NaN under eight batches.

    Raises
    ------
    ValueError
        A probability outside (0, 1); and as `batch_means`.
    """
    check_probability(probability)
    mean, standard_error, num_batches = batch_means(x, batches)
    half = float(stdtrit(num_batches - 1, (1 + probability) / 2)) * standard_error
    return mean - half, mean + half


def check_probability(probability: float) -> None:
    """Raise ValueError unless 0 < probability < 1."""
    if not 0 < probability < 1:
        raise ValueError(f"probability is {probability}; it must be between 0 and 1")
