"""Sparsity as a pure function of the step: how much of the growth is left at each fraction of its time."""

from sgmcmc_prune.pruning.allocation import check_sparsity


def cubic_sparsity(step: int, begin: int, end: int, initial: float, final: float) -> float:
    r"""Sparsity that rises fast first, while there are many superfluous weights, and slowly at the end.

    .. math:: s_t = s_f - (s_f - s_i) \left(1 - \frac{t - t_0}{t_1 - t_0}\right)^3

    between `begin` and `end`; exactly `initial` up to `begin` and exactly `final` from `end` on.

    Parameters
    ----------
    step : int
        The current step t.
    begin, end : int
        First and last step of the ramp, begin < end.
    initial, final : float
        Sparsity before and after, 0 <= initial <= final < 1.

    Returns
    -------
    float
        Sparsity in [initial, final], never falling as `step` rises.

    Raises
    ------
    ValueError
        If the steps are not in order, or the sparsities are not in order in [0, 1).

    References
    ----------
    Zhu and Gupta (2017), To prune, or not to prune: exploring the efficacy of pruning for model compression, eq. 1.
    """
    if begin >= end:
        raise ValueError(f"the sparsity ramp begins at step {begin} and ends at {end}; begin must be before end")
    check_sparsity(initial)
    check_sparsity(final)
    if initial > final:
        raise ValueError(f"initial sparsity {initial} is above final sparsity {final}; sparsity can only rise")
    if step <= begin:
        return initial
    return final - (final - initial) * cubic((step - begin) / (end - begin))


def cubic(fraction: float) -> float:
    """(1 - t)^3: what is left of the growth at a fraction t of its time."""
    return max(0.0, 1 - fraction) ** 3


def linear(fraction: float) -> float:
    """1 - t."""
    return max(0.0, 1 - fraction)
