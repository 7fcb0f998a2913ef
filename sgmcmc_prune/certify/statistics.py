"""From independent replicates to verdicts: rows of the table, their p-values, and the family-wise false-alarm rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri, stdtr

Array = NDArray[np.float64]
MIN_REPLICATES = 64


@dataclass(frozen=True)
class Row:
    """One line of the certificate: what a sampler gave, beside the exact value.

    Attributes
    ----------
    sampler, preconditioner, target, statistic : str
    exact, estimate, standard_error : float
        In the units of the statistic; the error is over independent replicates.
    z : float
        (estimate - exact) / standard_error; for a test of a whole distribution the normal deviate of its p-value.
    p_value : float
        Two-sided.
    must_fail : bool
        The sampler is known to be wrong, and stands in the table to show that the table can tell.
    """

    sampler: str
    preconditioner: str
    target: str
    statistic: str
    exact: float
    estimate: float
    standard_error: float
    z: float
    p_value: float
    must_fail: bool = False


@dataclass(frozen=True)
class Label:
    """Who is tested on what: the first columns of a row."""

    sampler: str
    preconditioner: str
    target: str
    must_fail: bool = False

    def row(self, statistic: str, exact: float, estimate: float, error: float, z: float, p_value: float) -> Row:
        """Put numbers behind the label."""
        first = (self.sampler, self.preconditioner, self.target)
        return Row(*first, statistic, exact, estimate, error, z, p_value, self.must_fail)


def mean_row(label: Label, statistic: str, exact: float, values: Array, log: bool = False) -> Row:
    r"""Student's test that independent replicates have the exact mean.

    Parameters
    ----------
    values : Array, shape (R,)
        One value per replicate, R >= 64.
    log : bool
        Compare logarithms (of variances and temperatures), the error by the delta method.

    Raises
    ------
    ValueError
        For fewer than 64 replicates: their standard error would itself be too uncertain.
    """
    if values.ndim != 1 or len(values) < MIN_REPLICATES:
        raise ValueError(f"{statistic}: values have shape {values.shape}; give one for each of 64 replicates or more")
    if not np.isfinite(values).all():
        return label.row(statistic, exact, math.nan, math.nan, math.inf, 0.0)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if log:
        exact, mean, error = math.log(exact), math.log(mean) if mean > 0 else math.nan, error / abs(mean)
    return deviate_row(label, statistic, exact, mean, error, len(values) - 1)


def deviate_row(label: Label, statistic: str, exact: float, estimate: float, error: float, dof: float) -> Row:
    """Student's test of an estimate with a known standard error; a value that is not finite is rejected."""
    z = (estimate - exact) / error
    if not math.isfinite(z):
        return label.row(statistic, exact, estimate, error, math.inf, 0.0)
    return label.row(statistic, exact, estimate, error, z, 2 * float(stdtr(dof, -abs(z))))


def equality_row(label: Label, statistic: str, exact: float, estimate: float, tolerance: float) -> Row:
    """A number that rounding alone may change: p is 1 within the tolerance and 0 outside (NaN is outside)."""
    z = (estimate - exact) / tolerance
    return label.row(statistic, exact, estimate, tolerance, z, 1.0 if abs(z) <= 1 else 0.0)


def distribution_rows(label: Label, normals: Array) -> list[Row]:
    """Kolmogorov-Smirnov and Anderson-Darling tests that values, shape (n,), are independent standard normals."""
    from scipy.stats import kstest, norm  # an import of over a second

    if not np.isfinite(normals).all():
        return [label.row("Kolmogorov-Smirnov", 0.0, math.nan, math.nan, math.inf, 0.0)]
    smirnov = kstest(normals, "norm")
    log_cdf, log_sf = norm.logcdf(np.sort(normals)), norm.logsf(np.sort(normals))
    square = anderson_darling(log_cdf, log_sf)
    found = [
        ("Kolmogorov-Smirnov D", float(smirnov.statistic), float(smirnov.pvalue)),
        ("Anderson-Darling A2", square, anderson_darling_tail(square)),
    ]
    return [label.row(name, math.nan, value, math.nan, -float(ndtri(p / 2)), p) for name, value, p in found]


def anderson_darling(log_cdf: Array, log_sf: Array) -> float:
    r"""A^2 = -n - sum_i (2 i - 1) / n (log F(x_(i)) + log (1 - F(x_(n+1-i)))), from values at the ordered sample."""
    n = len(log_cdf)
    weights = (2 * np.arange(1, n + 1) - 1) / n
    return float(-n - weights @ (log_cdf + log_sf[::-1]))


def anderson_darling_tail(square: float) -> float:
    r"""P(A^2 > x) of a sample from a known law, sqrt(3) P(chi^2_1 > 2 x), at most 1.

    A^2 is in the limit a sum of chi^2_1 variables with weights 1 / (j (j + 1)), whose largest is 1/2; Zolotarev's tail
    has the factor prod_{j > 1} (1 - 2 / (j (j + 1)))^-1/2 = sqrt(3). It is 5 % low at p = .01 and exact as p goes to 0.

    References
    ----------
    Anderson, Darling (Annals of Mathematical Statistics 1952); Zolotarev (Theory of Probability 1961).
    """
    return min(1.0, math.sqrt(3) * float(chdtrc(1, max(2 * square, 0.0))))


def holm(p_values: Sequence[float], false_alarm: float) -> list[bool]:
    """Which null hypotheses Holm's procedure rejects: any true one with probability `false_alarm` at most.

    Raises
    ------
    ValueError
        If the rate is not inside (0, 1).
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is {false_alarm}; it must be inside (0, 1)")
    rejected = [False] * len(p_values)
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        if not p_values[i] <= false_alarm / (len(p_values) - rank):
            break
        rejected[int(i)] = True
    return rejected
