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
#: Of a standard normal variable 95 % lie within so much of zero.
NORMAL = 1.96


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
    z, p, n = NORMAL, np.asarray(share, dtype=np.float64), np.asarray(count, dtype=np.float64)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def wilson_half_width(share: ArrayLike, count: ArrayLike) -> NDArray[np.float64]:
    """The larger of the two sides of that interval, which is not centred at the share: share ± this holds all of it."""
    p = np.asarray(share, dtype=np.float64)
    low, high = wilson_interval(p, count)
    half: NDArray[np.float64] = np.maximum(p - low, high - p)
    return half


@np.errstate(invalid="ignore", over="ignore")  # an infinite NLL has no interval
def half_widths(each: Each) -> dict[str, float]:
    r"""Half of the 95 % interval of every score over examples.

    Of a mean it is Student's; of a share the larger side of Wilson's, of which several labels of an example count as
    one. A score named like a share that is none, such as an accuracy in percent, is a mean. Of an RMSE it is
    that of the mean squared error :math:`\overline{e^2}` by the delta method,
    :math:`\mathrm{half}(\overline{e^2}) / (2\,\mathrm{RMSE})`, which is too narrow where few examples make most of the
    error.

    Parameters
    ----------
    each : mapping of str to array-like, shape (n,)

    Returns
    -------
    dict of str to float
        NaN of a single example, unless it is of a share, and of terms that are not finite.
    """
    return {
        key: float(
            wilson_half_width(terms.mean(), len(terms)) if _is_share(key, terms) else mean_and_half_width(terms)[1]
        )
        for key, terms in _linear(each).items()
    }


@np.errstate(invalid="ignore", over="ignore")
def paired_half_widths(each: Each, reference: Each) -> dict[str, float]:
    r"""Half of the 95 % interval of every difference between two networks on the same examples.

    It is Student's, of the differences example by example (NaN of one). Of an RMSE these are
    :math:`e_i^2 / (2\,\mathrm{RMSE}) - e_i'^2 / (2\,\mathrm{RMSE}')` (delta method).

    Of a share two examples are added, of which each network alone gets one right: without these, two networks that
    agree everywhere would differ by exactly nothing. With the variance :math:`s^2` of these n + 2 differences (divided
    by n + 2) it is :math:`z\,s / \sqrt{n + 2}`, and at most 1, as the difference itself. The paper's interval is
    centred at their mean, n / (n + 2) of the difference.

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
        if _is_share(key, ours[key]) and _is_share(key, theirs[key]):
            added = np.array([*differences, 1.0, -1.0])
            found[key] = min(1.0, float(NORMAL * added.std() / np.sqrt(len(added))))
        else:
            found[key] = float(mean_and_half_width(differences)[1])
    return {key: found[key] for key in each if key in found}


def _is_share(key: str, terms: NDArray[np.float64]) -> bool:
    """Whether a score named like one is a share of every example."""
    return key in SHARES and bool(((terms >= 0) & (terms <= 1)).all())


def _linear(each: Each) -> dict[str, NDArray[np.float64]]:
    """What every example adds to each score, to first order: a root is replaced by its tangent."""
    found = {}
    for key, values in each.items():
        terms = np.asarray(values, dtype=np.float64)
        found[key] = terms / (2 * np.sqrt(terms.mean())) if key in ROOTS else terms  # an RMSE of nothing has none
    return found
