r"""Stochastic-approximation EM over the hyperparameters of a spike-and-slab prior.

E-step, per layer, at the current draw w (temperature T > 0, groups that no mask removed):

    S = ( sum_g r_g,   sum_g r_g |w_g|^2 / T,   sum_g r_g |g|,   sum_g (1 - r_g) |w_g|^2 / T,   sum_g (1 - r_g) |g| ).

Stochastic approximation smooths the statistics over noisy draws with decreasing weights, S <- (1 - omega_k) S +
omega_k S~, omega_k = (1 + k / delay)^-decay; soft EM is omega = 1; hard EM is soft EM with r_g rounded to 0 or 1.

M-step, with G all groups of the layer (a masked group counts as gamma = 0) and pi ~ Beta(a, b):

    pi = (S_0 + a - 1) / (G + a + b - 2),        b = beta_b + complexity * G,
    v1 = S_1 / S_2,        v0 = S_3 / S_4,        v_min <= v0 <= v1 / ratio.

References
----------
Castillo, van der Vaart (Annals of Statistics 2012) and Rockova, George (JASA 2018), for the Beta(1, G) prior.
Delyon, Lavielle, Moulines (Annals of Statistics 1999); Rockova, George: EMVS (JASA 2014);
Deng, Zhang, Liang, Lin: An adaptive empirical Bayesian method for sparse deep learning (NeurIPS 2019).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sgmcmc_prune.priors.spike_slab import Layer, SpikeSlab

Kind = Literal["fixed", "hard", "soft", "stochastic"]


@dataclass(frozen=True)
class EMSettings:
    """How the hyperparameters are learned.

    Parameters
    ----------
    kind : {"stochastic", "soft", "hard", "fixed"}
    every : int
        Steps between two EM iterations.
    learn_variances : {"none", "slab", "both"}
        Which variances the M-step updates; the inclusion rate always is, unless `kind` is "fixed".
    shared_variances : bool
        One spike and one slab for all layers, instead of per layer.
    beta_a, beta_b : float
        Beta(a, b) prior of each layer's inclusion rate, both >= 1.
    complexity : float
        Adds complexity * G to b: a prior on the model's size that corrects for multiplicity (Beta(1, G) at 1), so that
        groups about which the data say nothing leave the slab. 0 is the plain Beta prior.
    variance_ratio : float
        Smallest slab-to-spike variance ratio, > 1.
    decay, delay : float
        Weights omega_k = (1 + k / delay)^-decay; decay in (1/2, 1].
    """

    kind: Kind = "stochastic"
    every: int = 20
    learn_variances: Literal["none", "slab", "both"] = "slab"
    shared_variances: bool = False
    beta_a: float = 1.0
    beta_b: float = 1.0
    complexity: float = 1.0
    variance_ratio: float = 10.0
    decay: float = 0.75
    delay: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", "hard", "soft", "stochastic"):
            raise ValueError(f"em kind is {self.kind!r}; choose fixed, hard, soft or stochastic")
        if self.learn_variances not in ("none", "slab", "both"):
            raise ValueError(f"em learn_variances is {self.learn_variances!r}; choose none, slab or both")
        if self.every < 1:
            raise ValueError(f"em every is {self.every}; it must be at least 1 step")
        if not (self.beta_a >= 1 and self.beta_b >= 1):
            raise ValueError(f"Beta({self.beta_a}, {self.beta_b}) has no interior mode; both must be >= 1")
        if not self.complexity >= 0:
            raise ValueError(f"em complexity is {self.complexity}; it must be >= 0")
        if not self.variance_ratio > 1:
            raise ValueError(f"variance_ratio is {self.variance_ratio}; the slab must be wider than the spike: > 1")
        if not 0.5 < self.decay <= 1 or not self.delay > 0:
            raise ValueError("stochastic approximation needs decay in (0.5, 1] and delay > 0")


class EM:
    """The EM loop of one chain: `update` is one iteration at the current draw.

    Parameters
    ----------
    settings : EMSettings
    prior : SpikeSlab
        Its hyperparameters are updated in place (and its held responsibilities, in mode "em").
    min_spike_variance : float
        v_min, from the stability of the sampler.
    """

    def __init__(self, settings: EMSettings, prior: SpikeSlab, min_spike_variance: float = 0.0) -> None:
        self.settings, self.prior, self.min_spike_variance = settings, prior, min_spike_variance
        self.iteration = 0
        self.statistics: dict[str, Tensor] = {}

    def update(self, params: Mapping[str, Tensor], temperature: float) -> None:
        """One E-step at the draw `params`, smoothed, and one M-step. Needs temperature > 0: a draw, not an optimum."""
        if not temperature > 0:
            raise ValueError("an E-step needs a draw: temperature > 0")
        if self.settings.kind == "fixed":
            if self.prior.mode == "em":
                self._e_step(params, temperature, 1.0)
            return
        omega = self._omega()
        self.iteration += 1
        self._e_step(params, temperature, omega)
        self._m_step()

    def _omega(self) -> float:
        s = self.settings
        return (1 + self.iteration / s.delay) ** -s.decay if s.kind == "stochastic" else 1.0

    @torch.no_grad()
    def _e_step(self, params: Mapping[str, Tensor], temperature: float, omega: float) -> None:
        for name, layer in self.prior.layers.items():
            r = torch.sigmoid(self.prior.log_odds(name, params[name], temperature))
            if self.settings.kind == "hard":
                r = r.round()
            if self.prior.mode == "em":
                layer.held = torch.lerp(layer.held, r.to(layer.held), omega)
            new = sufficient_statistics(layer, params[name], r, temperature)
            old = self.statistics.get(name)
            self.statistics[name] = new if old is None else torch.lerp(old, new, omega)

    def _m_step(self) -> None:
        s = self.settings
        for name, layer in self.prior.layers.items():
            total = layer.groups.num_groups
            b = s.beta_b + s.complexity * total
            rate = (float(self.statistics[name][0]) + s.beta_a - 1) / (total + s.beta_a + b - 2)
            # Half a group away from 0 and 1, where the log-odds would be infinite for ever.
            layer.inclusion_rate = min(max(rate, 0.5 / total), 1 - 0.5 / total)
        if s.shared_variances:
            pooled = torch.stack(list(self.statistics.values())).sum(0)
            for layer in self.prior.layers.values():
                self._update_variances(layer, pooled)
        else:
            for name, layer in self.prior.layers.items():
                self._update_variances(layer, self.statistics[name])

    def _update_variances(self, layer: Layer, statistics: Tensor) -> None:
        s = self.settings
        _, slab_square, slab_size, spike_square, spike_size = statistics.tolist()
        if s.learn_variances == "none":
            return
        if slab_size > 1:
            layer.slab_variance = max(slab_square / slab_size, s.variance_ratio * self.min_spike_variance)
        if s.learn_variances == "both" and spike_size > 1:
            layer.spike_variance = spike_square / spike_size
        ceiling = layer.slab_variance / s.variance_ratio
        layer.spike_variance = min(max(layer.spike_variance, self.min_spike_variance), ceiling)

    def state_dict(self) -> dict[str, Any]:
        """Iteration count and smoothed statistics (the hyperparameters are in the prior's state)."""
        return {"iteration": self.iteration, "statistics": dict(self.statistics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration, self.statistics = state["iteration"], dict(state["statistics"])


def sufficient_statistics(layer: Layer, w: Tensor, responsibility: Tensor, temperature: float = 1.0) -> Tensor:
    """The five sums S of the module docstring for one layer, over groups that no mask removed: shape (5,), float64."""
    alive = layer.alive.to(w.device)
    r = responsibility.double()[alive]
    square = layer.groups.sum(w.detach().double().square())[alive] / temperature
    size = layer.groups.group_size.to(w.device).double()[alive]
    return torch.stack([r.sum(), r @ square, r @ size, (1 - r) @ square, (1 - r) @ size]).cpu()
