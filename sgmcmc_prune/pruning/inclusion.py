"""Streaming averages over the draws of one chain: inclusion probabilities with standard errors, moments, a user's own.

All belong to one chain: hidden units permute between chains, so nothing here is ever pooled over chains by weight.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.criteria.inclusion import log_probabilities

#: Under this many batches a batch-means standard error is not trustworthy, and is reported as NaN.
MIN_BATCHES = 8


class InclusionAverage:
    r"""Rao-Blackwellised inclusion probability of each group, (1/S) sum_s p(gamma_g = 1 | w_s), by batches.

    A batch is a whole cycle in a cyclical run, and at constant step a stretch longer than the autocorrelation time. The
    standard error comes from the variance of the batch means.

    Groups are ranked by averages in log space, log (1/S) sum_s p(gamma_g = 1 | w_s) and the same of gamma_g = 0: one of
    the two tells groups apart where the probability has rounded to zero or one. The untempered log-odds are averaged
    beside them, (1/S) sum_s eta_g(w_s).

    All tensors have shape (G,) and are float64.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.count = 0
        self._in_batch = 0
        self._sums: dict[str, Tensor] = {}

    def update(self, log_odds: Tensor, temperature: float = 1.0) -> None:
        """Add one draw.

        Parameters
        ----------
        log_odds : Tensor, shape (G,)
            eta_g(w_s), untempered.
        temperature : float
            p(gamma_g = 1 | w_s) = sigmoid(eta_g / temperature): see `SpikeSlab.indicator_temperature`.
        """
        eta = log_odds.double()
        included, excluded = log_probabilities(eta, temperature)
        if not self._sums:
            names = ("log_odds", "batch", "last", "mean", "square")
            self._sums = {name: torch.zeros_like(eta) for name in names}
            self._sums |= {name: torch.full_like(eta, -math.inf) for name in ("log_included", "log_excluded")}
        s = self._sums
        s["log_included"] = torch.logaddexp(s["log_included"], included)
        s["log_excluded"] = torch.logaddexp(s["log_excluded"], excluded)
        s["log_odds"] += eta
        s["batch"] += included.exp()
        self.count += 1
        self._in_batch += 1

    def end_batch(self) -> None:
        """Close the current batch (Welford's update of the mean and spread of batch means)."""
        if self._in_batch == 0:
            return
        s = self._sums
        self.batches += 1
        s["last"] = s["batch"] / self._in_batch
        deviation = s["last"] - s["mean"]
        s["mean"] += deviation / self.batches
        s["square"] += deviation * (s["last"] - s["mean"])
        s["batch"].zero_()
        self._in_batch = 0

    @property
    def log_included(self) -> Tensor:
        """Log of the mean of p(gamma = 1 | w_s)."""
        count = self._checked_count()
        return self._sums["log_included"] - math.log(count)

    @property
    def log_excluded(self) -> Tensor:
        """Log of the mean of p(gamma = 0 | w_s)."""
        count = self._checked_count()
        return self._sums["log_excluded"] - math.log(count)

    @property
    def included(self) -> Tensor:
        """Mean of p(gamma = 1 | w_s)."""
        return self.log_included.exp().clamp(max=1.0)

    @property
    def excluded(self) -> Tensor:
        """Mean of p(gamma = 0 | w_s)."""
        return self.log_excluded.exp().clamp(max=1.0)

    @property
    def expected_log_odds(self) -> Tensor:
        """Mean of the untempered log-odds eta(w_s)."""
        count = self._checked_count()
        return self._sums["log_odds"] / count

    @property
    def last_batch(self) -> Tensor:
        """Mean of p(gamma = 1 | w_s) over the last closed batch: the inclusion of one cycle."""
        self._checked_count()
        return self._sums["last"]

    @property
    def standard_error(self) -> Tensor:
        """Monte-Carlo standard error from batch means; NaN under eight batches."""
        self._checked_count()
        if self.batches < MIN_BATCHES:
            return torch.full_like(self._sums["mean"], math.nan)
        return (self._sums["square"] / (self.batches * (self.batches - 1))).sqrt()

    def _checked_count(self) -> int:
        if self.count == 0:
            raise ValueError("no draw was collected yet: there is no inclusion probability")
        return self.count

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a resume."""
        return {"batches": self.batches, "count": self.count, "in_batch": self._in_batch, "sums": dict(self._sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.batches, self.count, self._in_batch = state["batches"], state["count"], state["in_batch"]
        self._sums = dict(state["sums"])


class Moments:
    """Running mean and variance of a tensor over draws (Welford)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._square: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Add one draw."""
        x = x.detach()
        if self._mean is None or self._square is None:
            self._mean, self._square = torch.zeros_like(x), torch.zeros_like(x)
        self.count += 1
        deviation = x - self._mean
        self._mean += deviation / self.count
        self._square += deviation * (x - self._mean)

    @property
    def mean(self) -> Tensor:
        """Mean over draws."""
        if self._mean is None:
            raise ValueError("no draw was collected yet: there is no mean")
        return self._mean

    @property
    def variance(self) -> Tensor:
        """Unbiased variance over draws; needs two."""
        if self._square is None or self.count < 2:
            raise ValueError(f"a variance needs at least two draws; there are {self.count}")
        return self._square / (self.count - 1)

    @property
    def mean_square(self) -> Tensor:
        """Mean of the squares over draws."""
        mean = self.mean.double()
        assert self._square is not None, "as there is a mean"
        return mean.square() + self._square.double() / self.count

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a resume."""
        return {"count": self.count, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.count, self._mean, self._square = state["count"], state["mean"], state["square"]


class Observed:
    """Running means over draws of whatever a criterion observes, by name and by parameter.

    Parameters
    ----------
    log_space : set of str
        What is observed as a logarithm: the mean is the log of the mean.
    """

    def __init__(self, log_space: frozenset[str] = frozenset()) -> None:
        self.log_space = log_space
        self.count = 0
        self._totals: dict[str, dict[str, Tensor]] = {}

    def update(self, observed: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Add one draw: what was observed, by parameter and by name."""
        found = {name: {key: value.double() for key, value in values.items()} for name, values in observed.items()}
        if self.count:
            then = {(key, name): total.shape for key, column in self._totals.items() for name, total in column.items()}
            now = {(key, name): value.shape for name, values in found.items() for key, value in values.items()}
            if then != now:
                raise ValueError(f"it observed {list(then)} at first, and {list(now)} now, or other shapes")
        self.count += 1
        for name, values in found.items():
            for key, value in values.items():
                column = self._totals.setdefault(key, {})
                if name not in column:
                    column[name] = value.clone()
                elif key in self.log_space:
                    column[name] = torch.logaddexp(column[name], value)
                else:
                    column[name] = column[name] + value

    @property
    def means(self) -> dict[str, dict[str, Tensor]]:
        """The means, float64, by name and by parameter."""
        return {
            key: {n: t - math.log(self.count) if key in self.log_space else t / self.count for n, t in column.items()}
            for key, column in self._totals.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a resume."""
        return {"count": self.count, "totals": {key: dict(column) for key, column in self._totals.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.count, self._totals = state["count"], {key: dict(column) for key, column in state["totals"].items()}
