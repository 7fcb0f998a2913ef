"""Signal-to-noise ratio of the weights over the draws of a chain."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from sgmcmc_prune.criteria.base import Averages, Criterion, Scores, first_flagged, root_mean, weight
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.groups import GroupMap

#: Standard deviation of a weight that did not move.
SMALLEST_DEVIATION = 1e-100


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
    if (bad := first_flagged({name: (weight(variance, name, g) < 0).any() for name, g in groups.items()})) is not None:
        raise ValueError(f"variance of {bad!r} is negative ({float(variance[bad].min()):.3g}); variances are >= 0")
    return {name: root_mean(_squared_ratio(mean, variance, name, group), group) for name, group in groups.items()}


class SignalToNoise(Criterion):
    """|E w| / sd(w)."""

    kept_by_chains: ClassVar[bool] = True

    def refused(self, config: Any) -> str:
        """A variance takes two draws."""
        draws = config.schedule.num_draws
        if "signal_to_noise" in config.prune.post_hoc and draws < 2:
            return f"criterion signal_to_noise needs the variance over at least two draws of a chain; there are {draws}"
        return ""

    def observe(self, prior: Prior | None, name: str, w: Tensor, temperature: float) -> dict[str, Tensor]:
        """Both w and w^2."""
        return {"mean": w.double(), "square": w.double().square()}

    def scores(self, averages: Averages, groups: Mapping[str, GroupMap], seed: int) -> Scores:
        """`signal_to_noise`, by the variance of the draws, or in the chain by that of its last steps."""
        mean = averages["mean"]
        if "variance" in averages:
            return signal_to_noise(mean, averages["variance"], groups)
        variance = {n: (s - mean[n].square()).clamp(min=0) for n, s in averages["square"].items()}
        return signal_to_noise(mean, variance, groups)


def _squared_ratio(mean: Mapping[str, Tensor], variance: Mapping[str, Tensor], name: str, group: GroupMap) -> Tensor:
    centre, spread = weight(mean, name, group), weight(variance, name, group)
    # The floor keeps weights that never moved in the order of their size, above all that did.
    return (centre / spread.sqrt().clamp(min=SMALLEST_DEVIATION)).square()
