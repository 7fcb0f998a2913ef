r"""Stochastic-approximation EM over the hyperparameters of a prior: a spike-and-slab, or one scale per weight matrix.

**Objective.** With U(w; theta) = N * mean NLL(w) - log p(w | theta), the log prior normalised, EM climbs the tempered
evidence with a prior on theta,

    J(theta) = T log Z(theta) + log p(theta),        Z(theta) = integral exp(-U(w; theta) / T) dw.

Mode `gibbs` has the sum over the indicators inside Z, exp(log p(w, gamma | theta) / T); mode `em` has the expectation
of log p(w, gamma | theta) under the held responsibilities in place of log p(w | theta). By Jensen's inequality
J(theta') - J(theta) >= E[log p(w | theta') - log p(w | theta)] + log p(theta') - log p(theta), the expectation under
exp(-U(w; theta) / T). So the statistics of a draw are those of T = 1, and T appears in two places only: the draws come
from the tempered posterior, and where the joint is tempered (`gibbs`, `em`) the responsibility is sigmoid(eta / T).

**E-step**, per layer, at the current draw w (T > 0, groups that no mask removed), with r_g the responsibility, in mode
`em` the held one:

    S = ( sum_g r_g,   sum_g r_g |w_g|^2,   sum_g r_g |g|,   sum_g (1 - r_g) |w_g|^2,   sum_g (1 - r_g) |g| ).

Stochastic approximation smooths the statistics over noisy draws with decreasing weights, S <- (1 - omega_k) S +
omega_k S~, omega_k = (1 + k / delay)^-decay; soft EM is omega = 1; hard EM is soft EM with r_g rounded to 0 or 1.

**M-step**, with G all groups of the layer (one that is masked or was cut out counts as gamma = 0) and pi ~ Beta(a, b):

    pi = (S_0 + a - 1) / (G + a + b - 2),        b = beta_b + complexity * G,
    v1 = S_1 / S_2,        v0 = S_3 / S_4,        v_min <= v0 <= v1 / ratio.

A Laplace spike has |w_g|_1 in place of |w_g|^2 in S_3, and v0 = 2 (S_3 / S_4)^2. Laplace and Student-t priors
(`ScaleEM`) smooth the mean of one statistic per weight matrix in the same way.

Below T = 1 the objective has a second maximum where the data leave small weights free: a spike of no width, in which
they are exactly zero (as T falls, J becomes the joint density at its mode, which has no bound there). So the spike's
variance is not learned unless asked for, and stops at v_min.

References
----------
Castillo, van der Vaart (Annals of Statistics 2012) and Rockova, George (JASA 2018), for the Beta(1, G) prior.
Delyon, Lavielle, Moulines (Annals of Statistics 1999); Rockova, George: EMVS (JASA 2014);
Deng, Zhang, Liang, Lin: An adaptive empirical Bayesian method for sparse deep learning (NeurIPS 2019).
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune import native
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.layer import Layer
from sgmcmc_prune.priors.scale_family import ScaleFamily
from sgmcmc_prune.priors.spike_slab import SpikeSlab


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
        found = {}
        for name, layer in self.prior.layers.items():
            new = self._fused_statistics(name, params[name])
            if new is None:
                r = torch.sigmoid(self.prior.log_odds(name, params[name], temperature))
                if self.settings.kind == "hard":
                    r = r.round()
                if self.prior.mode == "em":
                    layer.held = torch.lerp(layer.held, r.to(layer.held), omega)
                    r = layer.held
                new = sufficient_statistics(layer, params[name], r)
            found[name] = new
        if not found:
            return
        together = torch.stack(list(found.values())).cpu()  # a GPU is waited for once, and not for every layer
        for name, new in zip(found, together, strict=True):
            old = self.statistics.get(name)
            self.statistics[name] = new if old is None else torch.lerp(old, new, omega)

    def _fused_statistics(self, name: str, w: Tensor) -> Tensor | None:
        """The sums in one pass over memory, where the compiled tier knows the responsibility; else None."""
        form, layer = self.prior.fused_form(name), self.prior.layers[name]
        if form is None or form.kind != "mixture" or self.settings.kind == "hard":
            return None
        if not native.takes(w):
            return None
        alive = layer.alive if not bool(layer.alive.all()) else None
        r, square, size, rest = native.mixture_sums(w, alive, form.numbers["log_odds"], form.numbers["slope"])
        return torch.tensor([r, square, r, rest, size - r], dtype=torch.float64)

    def _m_step(self) -> None:
        s = self.settings
        for name, layer in self.prior.layers.items():
            total = layer.total
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
        if slab_size > 1:  # else nearly nothing is in the slab, and says nothing about it
            layer.slab_variance = max(slab_square / slab_size, s.variance_ratio * self.min_spike_variance)
        if s.learn_variances == "both" and spike_size > 1:
            layer.spike_variance = layer.spike_variance_from(spike_moment / spike_size)
        ceiling = layer.slab_variance / s.variance_ratio
        layer.spike_variance = min(max(layer.spike_variance, self.min_spike_variance), ceiling)

    def restart(self) -> None:
        """Forget the statistics so far: after a mask they are those of groups that are gone."""
        self.iteration, self.statistics = 0, {}

    def state_dict(self) -> dict[str, Any]:
        """Iteration count and smoothed statistics (the hyperparameters are in the prior's state)."""
        return {"iteration": self.iteration, "statistics": dict(self.statistics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration, self.statistics = state["iteration"], dict(state["statistics"])


class ScaleEM:
    """EM over the scale of each weight matrix under a Laplace or Student-t prior; biases keep the starting scale.

    The objective is that of the module docstring, so the statistic of a draw does not depend on the temperature.

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
        found = {}
        for name, w in params.items():
            kept = self.prior.kept(name, w.detach()).double()
            if w.dim() > 1 and kept.numel():
                found[name] = self.prior.statistic(kept, self.prior.scale_of(name)).mean()
        if not found:
            return
        for name, new in zip(found, torch.stack(list(found.values())).tolist(), strict=True):  # a GPU waits once
            smoothed = (1 - omega) * self.statistics.get(name, new) + omega * new
            self.statistics[name] = smoothed
            self.prior.scales[name] = max(self.prior.scale_from(smoothed), self.min_scale)

    def restart(self) -> None:
        """Forget the statistics so far, as `EM.restart`."""
        self.iteration, self.statistics = 0, {}

    def state_dict(self) -> dict[str, Any]:
        """Iteration count and smoothed statistics (the scales are in the prior's state)."""
        return {"iteration": self.iteration, "statistics": dict(self.statistics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration, self.statistics = state["iteration"], dict(state["statistics"])


def sufficient_statistics(layer: Layer, w: Tensor, responsibility: Tensor) -> Tensor:
    """The five sums S of the module docstring for one layer, over groups that no mask removed: shape (5,), float64."""
    w, size = w.detach(), layer.groups.sizes(w)
    slab = responsibility * layer.alive.to(w)  # a masked group counts in neither
    spike = layer.alive.to(w) - slab
    square, moment = layer.groups.sum(w.square()), layer.groups.sum(layer.spike_moment(w))
    # Torch adds in pairs, so a sum is good to a few ulp in the type of the weights.
    sums = [slab, slab * square, slab * size, spike * moment, spike * size]
    return torch.stack([x.sum() for x in sums]).double()


def adaptation(settings: EMSettings, prior: Prior, min_variance: float) -> Any:
    """What learns the hyperparameters of a prior, or None. Nothing gets narrower than the sampler's step follows."""
    if isinstance(prior, SpikeSlab):
        return EM(settings, prior, min_variance)
    if isinstance(prior, ScaleFamily):
        # Twice the floor: a Student-t density curves (nu + 1) / nu times as much at 0 as the Gaussian of its scale.
        return ScaleEM(settings, prior, math.sqrt(2 * min_variance))
    return prior.adaptation(settings, min_variance)


def settings_read(settings: EMSettings, family: type[Prior], mode: str) -> set[str]:
    """Which of the settings count for a prior of some kind (of a `SpikeSlab`, in some mode)."""
    names, clock = {field.name for field in fields(EMSettings)}, {"kind", "every", "start"}
    fixed, smoothing = settings.kind == "fixed", {"decay", "delay"}
    others = set() if settings.kind == "stochastic" else smoothing
    if issubclass(family, SpikeSlab):
        if fixed:  # the E-step goes on where responsibilities are held
            return clock if mode == "em" else {"kind"}
        unused = {"shared_variances", "variance_ratio"} if settings.learn_variances == "none" else set()
        return names - others - unused
    if issubclass(family, ScaleFamily):
        return {"kind"} if fixed else clock | (smoothing - others)
    return names if family.adaptation is not Prior.adaptation else set()
