r"""Spike-and-slab EM after Saha, Liu and Liang: inclusion probabilities of weights, nodes and input features.

The paper's details (which spike, grouping, threshold) were not available to us; both readings are here, as families of
one interface: `ContinuousSpike` (R1) and `PointSpike` (R2).

R1, continuous spike. The prior is w | gamma_g ~ N(0, s1^2) or N(0, s0^2), s0 << s1, with gamma_g ~ Bernoulli(pi); the
posterior q(w) = N(mu, sigma^2), q(gamma_g) = Bernoulli(phi_g). The likelihood sees w alone, so phi has a closed form
given q(w), and coordinate ascent alternates

    E:  logit phi_g = logit pi + sum_{i in g} [ log(s0/s1) + (mu_i^2 + sigma_i^2) (s0^-2 - s1^-2) / 2 ]
    M:  a gradient step on NLL + sum_g [ phi_g KL(q_g || slab) + (1 - phi_g) KL(q_g || spike) ], phi held
    (optional)  pi = (sum phi + a - 1) / (G + a + b - 2),  Beta(a, b) prior.

R2, point-mass spike. From any normal posterior under the slab alone (by `point_spike` IVON's, too), the Savage-Dickey
ratio:

    logit phi_g = logit pi + sum_{i in g} [ log(sigma_i/s1) + mu_i^2 / (2 sigma_i^2) ].

References
----------
Saha, Liu, Liang (arXiv 2411.00273); Blundell et al. (ICML 2015), where gamma is summed out and its probability lost;
Carbonetto, Stephens (Bayesian Analysis 2012) and Friston, Penny (NeuroImage 2011) for R2.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational.evidence import (
    continuous_spike_divergence,
    continuous_spike_log_odds,
)
from sgmcmc_prune.baselines.variational.factors import Normal
from sgmcmc_prune.baselines.variational.families import TrainedNetwork, make_parts
from sgmcmc_prune.baselines.variational.graph import Site
from sgmcmc_prune.baselines.variational.layers import VariationalLayer
from sgmcmc_prune.baselines.variational.posterior import GaussianPosterior, point_spike
from sgmcmc_prune.baselines.variational.units import Unit
from sgmcmc_prune.priors.groups import GroupMap

#: What shares an indicator.
Group = Literal["weight", "node", "input"]


@dataclass
class Spike:
    """Hyperparameters of a unit; the spike's width and, if it is learned, the inclusion rate change while training."""

    slab_std: float
    spike_std: float
    inclusion: float


@dataclass(frozen=True)
class _Reading:
    """What both readings are told, and how they make layers."""

    group: Group = "weight"
    slab_std: float = 1.0
    inclusion: float = 0.1
    initial_std: float = 0.01

    def __post_init__(self) -> None:
        if self.group not in ("weight", "node", "input"):
            raise ValueError(f"group is {self.group!r}; choose weight, node or input")
        kl.check_inclusion(self.inclusion)

    def shared(self, sites: Sequence[Site], graph: fx.GraphModule) -> None:
        """Nothing is shared that is drawn."""
        if self.group == "node" and all(site.obstacle for site in sites):
            reasons = "; ".join(f"{site.name or site.norm}: {site.obstacle}" for site in sites)
            raise ValueError(f"found no layer whose nodes can be removed ({reasons})")

    def _parts(self, site: Site, graph: fx.GraphModule) -> dict[str, VariationalLayer]:
        return make_parts(site, graph, lambda name, key, value: Normal(value, self.initial_std))


@dataclass(frozen=True)
class ContinuousSpike(_Reading):
    """R1 as a family for `bayesianise`.

    Parameters
    ----------
    group : {"weight", "node", "input"}
        What shares an indicator: each weight and bias; the weights into a node that can be removed; the weights out of
        an input of the first layer. Weights without an indicator have the slab as prior.
    slab_std, spike_std : float
        s1 and the final s0; meaningful for standardised inputs.
    spike_start : float
        s0 falls from here geometrically over the first `anneal` of the steps: a wide spike lets groups leave it.
    anneal : float
        In [0, 1).
    inclusion : float
        pi, or its start where it is learned.
    learn_inclusion : bool
        Update pi of each layer by the Beta(1, 1) formula before each step.
    initial_std : float
        Where the standard deviations of the weights start.
    """

    spike_std: float = 0.05
    spike_start: float = 0.2
    anneal: float = 0.6
    learn_inclusion: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.spike_std <= self.spike_start <= self.slab_std:
            raise ValueError(
                f"spike_std {self.spike_std}, spike_start {self.spike_start} and slab_std {self.slab_std} must be "
                "positive and in this order"
            )
        if not 0 <= self.anneal < 1:
            raise ValueError(f"anneal is {self.anneal}; it must be in [0, 1), so that training ends at spike_std")

    def unit(self, site: Site, graph: fx.GraphModule, shared: None) -> "SpikeUnit":
        """The unit of one site."""
        return SpikeUnit(site, self._parts(site, graph), self)

    def posterior(self, network: TrainedNetwork) -> GaussianPosterior:
        """What training leaves: moments, and the log odds of inclusion under the final spike."""
        odds, groups = network.log_odds()
        return GaussianPosterior(network.plain, *network.moments(), odds, groups, network.readers_mask)


@dataclass(frozen=True)
class PointSpike(_Reading):
    """R2 as a family for `bayesianise`: trained under the slab alone; the indicators are derived from what that leaves.

    Parameters
    ----------
    group : {"weight", "node", "input"}
        What shares an indicator, of the weights alone (see `ContinuousSpike`).
    slab_std, inclusion : float
        s1 and pi.
    initial_std : float
        Where the standard deviations of the weights start.
    """

    def unit(self, site: Site, graph: fx.GraphModule, shared: None) -> Unit:
        """The unit of one site."""
        return Unit(site, self._parts(site, graph), self.slab_std)

    def posterior(self, network: TrainedNetwork) -> GaussianPosterior:
        """What training leaves: moments, and the Savage-Dickey log odds of each group."""
        mean, variance = network.moments()
        sites = [unit.site for unit in network.units if _has_indicators(unit.site, self.group)]
        groups = {f"{s.name}.weight": GroupMap(self.group, tuple(mean[f"{s.name}.weight"].shape)) for s in sites}
        bare = GaussianPosterior(network.plain, mean, variance, {}, {}, network.readers_mask)
        return point_spike(bare, groups, self.slab_std, self.inclusion)


class SpikeUnit(Unit):
    """A layer under the mixture prior; its indicators are optimised out in closed form."""

    def __init__(self, site: Site, parts: dict[str, VariationalLayer], settings: ContinuousSpike) -> None:
        super().__init__(site, parts, settings.slab_std)
        self.settings = settings
        self.spike = Spike(settings.slab_std, settings.spike_start, settings.inclusion)
        self.groups = {name: group for name, f, _ in self.factors() if (group := self._group(name, f)) is not False}

    def kl(self) -> Tensor:
        """Sum of phi KL(slab) + (1 - phi) KL(spike) + KL(Bernoulli(phi), Bernoulli(pi)) at the optimal phi, 0-d."""
        terms, prior, s = [], self._prior(), self.spike
        for layer, part in self.parts.items():
            factors = {name: f for name, f, _ in self.factors() if name.rpartition(".")[0] == layer}
            if not factors.keys() & self.groups.keys():
                terms.append(part.divergence(*prior).sum())
                continue
            for name, f in factors.items():
                if name not in self.groups:
                    terms.append(f.divergence(*prior).sum())
                    continue
                law = (self.groups[name], s.spike_std, s.slab_std, s.inclusion)
                terms.append(continuous_spike_divergence(f.mean, f.log_std, f.kept, *law))
        return torch.stack(terms).sum()

    def log_odds(self) -> tuple[str, GroupMap, Tensor] | None:
        """Log odds of the layer's weights."""
        name = f"{self.site.name}.weight"
        groups = self.groups.get(name)
        if groups is None:
            return None
        return name, groups, self._log_odds(name, dict((n, f) for n, f, _ in self.factors())[name])

    def advance(self, progress: float) -> None:
        """Narrow the spike; re-estimate the inclusion rate."""
        s = self.settings
        fraction = min(1.0, progress / s.anneal) if s.anneal else 1.0
        width = s.spike_start * (s.spike_std / s.spike_start) ** fraction
        self.spike = dataclasses.replace(self.spike, spike_std=width)
        if s.learn_inclusion and self.groups:
            odds = torch.cat([self._log_odds(n, f) for n, f, _ in self.factors() if n in self.groups])
            mean = float(kl.responsibility(odds).mean())
            self.spike = dataclasses.replace(self.spike, inclusion=min(max(mean, 1e-6), 1 - 1e-6))

    @torch.no_grad()
    def _log_odds(self, name: str, factor: Normal) -> Tensor:
        s = self.spike
        mean, variance = factor.moments()
        return continuous_spike_log_odds(mean, variance, self.groups[name], s.spike_std, s.slab_std, s.inclusion)

    def _group(self, name: str, factor: Normal) -> GroupMap | Literal[False] | None:
        """Groups of one tensor; None: each entry its own; False: no indicators."""
        kind, is_layer = self.settings.group, name == f"{self.site.name}.weight"
        if kind == "weight" and name.rpartition(".")[0] == self.site.name:
            return GroupMap("weight", tuple(factor.mean.shape)) if is_layer else None
        if is_layer and kind != "weight" and _has_indicators(self.site, kind):
            return GroupMap(kind, tuple(factor.mean.shape))
        return False


def _has_indicators(site: Site, group: Group) -> bool:
    """Whether the weights of a site's layer have indicators."""
    return bool(site.name) and (group == "weight" or (site.first if group == "input" else not site.obstacle))
