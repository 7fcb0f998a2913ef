"""95 % intervals: of means over repetitions (seeds, runs), and of scores over examples, on their own and paired.

A score is a mean over examples (NLL, CRPS, a share of right answers), or the root of one (RMSE). What each example adds
to it tells how far the score would be another on other examples. That of a difference between two networks is told by
the differences example by example, which is much less where both err on the same ones. A likelihood says what each
example adds (`ObservationModel.each`); every interval over examples, in tables, sentences and figures, is made here.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # not scipy.stats, whose import costs over a second

from sgmcmc_prune.predictive.metrics import ROOTS, SHARES

#: What each example adds to each score.
Each = Mapping[str, ArrayLike]


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


def half_widths(each: Each) -> dict[str, float]:
    r"""Half of the 95 % interval of every score over examples.

    Of a mean it is Student's; of a share Wilson's, of which several labels of an example count as one. Of an RMSE it is
    that of the mean squared error :math:`\overline{e^2}` by the delta method,
    :math:`\mathrm{half}(\overline{e^2}) / (2\,\mathrm{RMSE})`, which is too narrow where few examples make most of the
    error.

    Parameters
    ----------
    each : mapping of str to array-like, shape (n,)

    Returns
    -------
    dict of str to float
        NaN of a single example.
    """
    return {
        key: float(wilson_half_width(terms.mean(), len(terms)) if key in SHARES else mean_and_half_width(terms)[1])
        for key, terms in _linear(each).items()
    }


def paired_half_widths(each: Each, reference: Each) -> dict[str, float]:
    r"""Half of the 95 % interval of every difference between two networks on the same examples.

    It is Student's, of the differences example by example. Of an RMSE these are
    :math:`e_i^2 / (2\,\mathrm{RMSE}) - e_i'^2 / (2\,\mathrm{RMSE}')` (delta method). Of a share two examples are added,
    of which each network alone gets one right: without these, two networks that agree everywhere would differ by
    exactly nothing.

    Parameters
    ----------
    each, reference : mapping of str to array-like, shape (n,)
        Of the two networks; scores that only one has are left out.

    Returns
    -------
    dict of str to float

    References
    ----------
    Bonett and Price (2012), Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data, Journal of Educational and Behavioral Statistics 37.
    """
    ours, theirs = _linear(each), _linear(reference)
    found = {}
    for key in ours.keys() & theirs.keys():
        differences = ours[key] - theirs[key]
        added = [1.0, -1.0] if key in SHARES else []
        found[key] = float(mean_and_half_width([*differences, *added])[1])
    return {key: found[key] for key in each if key in found}


def _linear(each: Each) -> dict[str, NDArray[np.float64]]:
    """What every example adds to each score, to first order: a root is replaced by its tangent."""
    found = {}
    for key, values in each.items():
        terms = np.asarray(values, dtype=np.float64)
        with np.errstate(invalid="ignore"):  # an RMSE of nothing has no interval
            found[key] = terms / (2 * np.sqrt(terms.mean())) if key in ROOTS else terms
    return found
