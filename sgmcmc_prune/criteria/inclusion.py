"""Inclusion under a spike-and-slab prior: the probability, EM's responsibility, and the expected log-odds.

The expected log-odds, the average over draws of each group's conditional log-odds, rank otherwise than the probability
where all are near one: there the small complements come from the few draws in which a weight crosses zero, while the
mean of the log-odds weighs how far from it the weight stays.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune import choices
from sgmcmc_prune.criteria.base import Averages, Criterion, Scores, first_flagged
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.priors.spike_slab import SpikeSlab


def log_probabilities(log_odds: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log p(gamma = 1) and log p(gamma = 0) at log-odds eta / T; neither is infinite."""
    eta = log_odds / temperature
    return F.logsigmoid(eta), F.logsigmoid(-eta)


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
    for side, averages in (("included", log_included), ("excluded", log_excluded)):
        for name, average in averages.items():
            if average.dtype != torch.float64:
                raise TypeError(f"log {side}[{name!r}] is {average.dtype}; average in torch.float64")
            if average.shape != log_included[name].shape:
                shapes = tuple(log_included[name].shape), tuple(average.shape)
                raise ValueError(f"{name!r}: included has shape {shapes[0]}, excluded {shapes[1]}")
    flags = {
        f"{side}[{name!r}]": (average > 1e-9).any() | ~average.isfinite().all()
        for side, averages in (("included", log_included), ("excluded", log_excluded))
        for name, average in averages.items()
    }
    if (bad := first_flagged(flags)) is not None:
        raise ValueError(f"log {bad} is infinite or above 0; give logs of probabilities, of every group")
    return {name: log_included[name] - log_excluded[name] for name in log_included}


class _Inclusion(Criterion):
    """What the probability and the responsibility share: the mean of p(gamma = 1 | w), ranked by its log-odds."""

    kept_by_chains: ClassVar[bool] = True
    log_space: ClassVar[frozenset[str]] = frozenset({"log_included", "log_excluded"})

    def observe(self, prior: Prior | None, name: str, w: Tensor, temperature: float) -> dict[str, Tensor]:
        """Logs of p(gamma = 1 | w) and of p(gamma = 0 | w)."""
        sparse = spike_slab(prior)
        included, excluded = log_probabilities(sparse.log_odds(name, w), sparse.indicator_temperature(temperature))
        return {"log_included": included, "log_excluded": excluded}

    def scores(self, averages: Averages, groups: Mapping[str, GroupMap], seed: int) -> Scores:
        """`inclusion_log_odds`."""
        return inclusion_log_odds(averages["log_included"], averages["log_excluded"])


class InclusionProbability(_Inclusion):
    """Posterior probability of the slab, in the modes `marginal` and `gibbs`."""

    probabilities: ClassVar[bool] = True

    def inclusion(self, averages: Averages, scores: Scores) -> Scores:
        """The mean of p(gamma = 1 | w) itself."""
        return {name: average.exp().clamp(max=1.0) for name, average in averages["log_included"].items()}

    def refused(self, config: Any) -> str:
        """In mode em the chain yields a responsibility."""
        if has_indicators(config) and config.prior.mode != "em":
            return ""
        return (
            "criterion inclusion_probability needs prior.family spike_slab in mode marginal or gibbs; in mode em the "
            "chain yields em_responsibility, and under another prior there is none: set prune.post_hoc and "
            "prune.in_chain to magnitude, say"
        )


class EMResponsibility(_Inclusion):
    """The same average in mode `em`, which is no posterior probability."""

    def refused(self, config: Any) -> str:
        """It has its meaning in mode em alone."""
        sparse = has_indicators(config) and config.prior.mode == "em"
        return "" if sparse else "criterion em_responsibility needs prior.family spike_slab in mode em"


class ExpectedLogOdds(Criterion):
    """Mean of the conditional log-odds, untempered."""

    kept_by_chains: ClassVar[bool] = True

    def refused(self, config: Any) -> str:
        """There are indicators under a spike-and-slab prior alone."""
        sparse = has_indicators(config)
        return "" if sparse else "criterion expected_log_odds needs prior.family spike_slab"

    def observe(self, prior: Prior | None, name: str, w: Tensor, temperature: float) -> dict[str, Tensor]:
        """eta(w)."""
        return {"log_odds": spike_slab(prior).log_odds(name, w)}

    def scores(self, averages: Averages, groups: Mapping[str, GroupMap], seed: int) -> Scores:
        """The means."""
        return dict(averages["log_odds"])


def has_indicators(config: Any) -> bool:
    """Whether the prior of a configuration is a spike-and-slab, ours or a user's."""
    family = choices.load("prior", config.prior.family)
    return isinstance(family, type) and issubclass(family, SpikeSlab)


def spike_slab(prior: Prior | None) -> SpikeSlab:
    """The prior, if it has indicators; ValueError if not."""
    if not isinstance(prior, SpikeSlab):
        raise ValueError(f"a criterion of inclusion needs a spike-and-slab prior, not {type(prior).__name__}")
    return prior
