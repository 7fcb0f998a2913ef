r"""Stochastic-approximation EM over the hyperparameters of a prior: a spike-and-slab, or one scale per weight matrix.

E-step, per layer, at the current draw w (temperature T > 0, groups that no mask removed):

    S = ( sum_g r_g,   sum_g r_g |w_g|^2 / T,   sum_g r_g |g|,   sum_g (1 - r_g) |w_g|^2 / T,   sum_g (1 - r_g) |g| ).

Stochastic approximation smooths the statistics over noisy draws with decreasing weights, S <- (1 - omega_k) S +
omega_k S~, omega_k = (1 + k / delay)^-decay; soft EM is omega = 1; hard EM is soft EM with r_g rounded to 0 or 1.

M-step, with G all groups of the layer (a masked group counts as gamma = 0) and pi ~ Beta(a, b):

    pi = (S_0 + a - 1) / (G + a + b - 2),        b = beta_b + complexity * G,
    v1 = S_1 / S_2,        v0 = S_3 / S_4,        v_min <= v0 <= v1 / ratio.

A Laplace spike has |w_g|_1 in place of |w_g|^2 in S_3, and v0 = 2 (S_3 / S_4)^2. Laplace and Student-t priors
(`ScaleEM`) smooth the mean of one statistic per weight matrix in the same way.

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

from sgmcmc_prune import native
from sgmcmc_prune.priors.layer import Layer
from sgmcmc_prune.priors.scale_family import ScaleFamily
from sgmcmc_prune.priors.spike_slab import SpikeSlab

Kind = Literal["fixed", "hard", "soft", "stochastic"]


@dataclass(frozen=True)
class EMSettings:
    """How the hyperparameters are learned.

    Parameters
    ----------
    kind : {"stochastic", "soft", "hard", "fixed"}
        "stochastic" smooths the statistics over draws, "soft" takes the last draw's alone, "hard" also rounds its
        responsibilities; "fixed" learns nothing.
    every : int
        Steps between two EM iterations.
    start : int
        Steps of the burn-in before the first one: while no weight has left its initial size, EM would empty the slab.
    learn_variances : {"none", "slab", "both"}
        Which variances the M-step updates; the inclusion rate always is, unless `kind` is "fixed".
    shared_variances : bool
        One spike and one slab for all layers, instead of per layer.
    beta_a : float
        a of the Beta(a, b) prior of each layer's inclusion rate, >= 1.
    beta_b : float
        b of the same, >= 1.
    complexity : float
        Adds complexity * G to b: a prior on the model's size that corrects for multiplicity (Beta(1, G) at 1), so that
        groups about which the data say nothing leave the slab. 0 is the plain Beta prior.
    variance_ratio : float
        Smallest slab-to-spike variance ratio, > 1.
    decay : float
        Iteration k counts with omega_k = (1 + k / delay)^-decay, if "stochastic"; in (1/2, 1].
    delay : float
        Iterations until those weights begin to fall, > 0.
    """

    kind: Kind = "stochastic"
    every: int = 20
    start: int = 0
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
        if self.start < 0:
            raise ValueError(f"em start is {self.start}; it must be a step of the burn-in, >= 0")
        if not (self.beta_a >= 1 and self.beta_b >= 1):
            raise ValueError(f"Beta({self.beta_a}, {self.beta_b}) has no interior mode; both must be >= 1")
        if not self.complexity >= 0:
            raise ValueError(f"em complexity is {self.complexity}; it must be >= 0")
        if not self.variance_ratio > 1:
            raise ValueError(f"variance_ratio is {self.variance_ratio}; the slab must be wider than the spike: > 1")
        if not 0.5 < self.decay <= 1 or not self.delay > 0:
            raise ValueError("stochastic approximation needs decay in (0.5, 1] and delay > 0")

    def due(self, step: int, burn_in: bool) -> bool:
        """Whether an EM iteration follows after this many steps; `start` counts in the burn-in alone."""
        return step % self.every == 0 and (step >= self.start or not burn_in)

    def omega(self, iteration: int) -> float:
        """omega_k, the weight of the newest draw in iteration k = 0, 1, ..."""
        return (1 + iteration / self.delay) ** -self.decay if self.kind == "stochastic" else 1.0


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
        omega = self.settings.omega(self.iteration)
        self.iteration += 1
        self._e_step(params, temperature, omega)
        self._m_step()

    @torch.no_grad()
    def _e_step(self, params: Mapping[str, Tensor], temperature: float, omega: float) -> None:
        for name, layer in self.prior.layers.items():
            new = self._fused_statistics(name, params[name], temperature)
            if new is None:
                r = torch.sigmoid(self.prior.log_odds(name, params[name], temperature))
                if self.settings.kind == "hard":
                    r = r.round()
                if self.prior.mode == "em":
                    layer.held = torch.lerp(layer.held, r.to(layer.held), omega)
                new = sufficient_statistics(layer, params[name], r, temperature)
            old = self.statistics.get(name)
            self.statistics[name] = new if old is None else torch.lerp(old, new, omega)

    def _fused_statistics(self, name: str, w: Tensor, temperature: float) -> Tensor | None:
        """The sums in one pass over memory, where the compiled tier knows the responsibility; else None."""
        form, layer = self.prior.fused_form(name), self.prior.layers[name]
        if form is None or form.kind != "mixture" or self.settings.kind == "hard":
            return None
        if not native.takes(w):
            return None
        alive = layer.alive if not bool(layer.alive.all()) else None
        r, square, size, rest = native.mixture_sums(w, alive, form.numbers["log_odds"], form.numbers["slope"])
        return torch.tensor([r, square / temperature, r, rest / temperature, size - r], dtype=torch.float64)

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
        _, slab_square, slab_size, spike_moment, spike_size = statistics.tolist()
        if s.learn_variances == "none":
            return
        if slab_size > 1:
            layer.slab_variance = max(slab_square / slab_size, s.variance_ratio * self.min_spike_variance)
        if s.learn_variances == "both" and spike_size > 1:
            layer.spike_variance = layer.spike_variance_from(spike_moment / spike_size)
        ceiling = layer.slab_variance / s.variance_ratio
        layer.spike_variance = min(max(layer.spike_variance, self.min_spike_variance), ceiling)

    def state_dict(self) -> dict[str, Any]:
        """Iteration count and smoothed statistics (the hyperparameters are in the prior's state)."""
        return {"iteration": self.iteration, "statistics": dict(self.statistics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration, self.statistics = state["iteration"], dict(state["statistics"])


class ScaleEM:
    """EM over the scale of each weight matrix under a Laplace or Student-t prior; biases keep the starting scale.

    At temperature T the prior is tempered with the posterior, p(w | scale)^(1 / T): the mean statistic is divided by T.

    Parameters
    ----------
    settings : EMSettings
        Of which `kind` ("hard" is "soft" here), `every`, `start`, `decay` and `delay` count.
    prior : ScaleFamily
        Its scales are updated in place.
    min_scale : float
        From the stability of the sampler.
    """

    def __init__(self, settings: EMSettings, prior: ScaleFamily, min_scale: float = 0.0) -> None:
        self.settings, self.prior, self.min_scale = settings, prior, min_scale
        self.iteration = 0
        self.statistics: dict[str, float] = {}

    @torch.no_grad()
    def update(self, params: Mapping[str, Tensor], temperature: float) -> None:
        """One E-step at the draw `params`, smoothed, and one M-step. Needs temperature > 0."""
        if not temperature > 0:
            raise ValueError("an E-step needs a draw: temperature > 0")
        if self.settings.kind == "fixed":
            return
        omega = self.settings.omega(self.iteration)
        self.iteration += 1
        for name, w in params.items():
            kept = self.prior.kept(name, w.detach()).double()
            if w.dim() > 1 and kept.numel():
                new = float(self.prior.statistic(kept, self.prior.scale_of(name)).mean()) / temperature
                smoothed = (1 - omega) * self.statistics.get(name, new) + omega * new
                self.statistics[name] = smoothed
                self.prior.scales[name] = max(self.prior.scale_from(smoothed), self.min_scale)

    def state_dict(self) -> dict[str, Any]:
        """Iteration count and smoothed statistics (the scales are in the prior's state)."""
        return {"iteration": self.iteration, "statistics": dict(self.statistics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration, self.statistics = state["iteration"], dict(state["statistics"])


def sufficient_statistics(layer: Layer, w: Tensor, responsibility: Tensor, temperature: float = 1.0) -> Tensor:
    """The five sums S of the module docstring for one layer, over groups that no mask removed: shape (5,), float64."""
    w, size = w.detach(), layer.groups.group_size.to(w)
    slab = responsibility * layer.alive.to(w)  # a masked group counts in neither
    spike = layer.alive.to(w) - slab
    square, moment = layer.groups.sum(w.square()), layer.groups.sum(layer.spike_moment(w))
    # Torch adds in pairs, so a sum is good to a few ulp in the type of the weights.
    sums = [slab, slab * square / temperature, slab * size, spike * moment / temperature, spike * size]
    return torch.stack([x.sum() for x in sums]).double().cpu()
