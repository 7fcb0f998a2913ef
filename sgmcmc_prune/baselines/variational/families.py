r"""The variational families: which gates and scales a network's weights get, under which prior.

    family       gate on     scale                    prior of a weight, given its gate
    mean_field   -           -                        N(0, s0^2)                              (Bayes by Backprop)
    ss_ig        node        -                        N(0, s0^2), 0 where closed
    ss_gl        node        group lasso              N(0, s0^2 tau^2), 0 where closed
    ss_ghs       node        regularised horseshoe    N(0, s0^2 s~^2), 0 where closed
    svbnn        weight      -                        N(0, s0^2), 0 where closed

References
----------
Blundell et al. (ICML 2015); Jantre, Bhattacharya, Maiti (Neural Networks 2023; IEEE TNNLS 2024); Bai, Song, Cheng
(NeurIPS 2020).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import fx, nn

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational.factors import GatedNormal, Normal, RelaxedNormal
from sgmcmc_prune.baselines.variational.gates import Gate
from sgmcmc_prune.baselines.variational.graph import Site
from sgmcmc_prune.baselines.variational.layers import (
    VariationalBatchNorm,
    VariationalConv2d,
    VariationalLayer,
    VariationalLinear,
)
from sgmcmc_prune.baselines.variational.posterior import GaussianPosterior, Posterior, point_spike
from sgmcmc_prune.baselines.variational.scales import GroupLasso, Horseshoe, Regulariser, Scales
from sgmcmc_prune.baselines.variational.units import StructuredUnit, Unit
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.masks import Mask


class TrainedNetwork(Posterior, Protocol):
    """What a family reads of the network that it was trained in."""

    units: list[Unit]

    def moments(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Means and variances of the weights of the plain network."""

    def readers_mask(self, mask: Mask) -> Mask:
        """A mask, with the weights that read what it removes."""


class Family(Protocol):
    """What `bayesianise` asks of a family."""

    def shared(self, sites: Sequence[Site], graph: fx.GraphModule) -> Any:
        """The part of the prior that all layers share: a module with `resample` and `kl`, or None."""

    def unit(self, site: Site, graph: fx.GraphModule, shared: Any) -> Unit:
        """The unit of one site."""

    def posterior(self, network: TrainedNetwork) -> Posterior:
        """What a trained network leaves."""


@dataclass(frozen=True)
class Structured:
    """A mean-field posterior with gates and scales. The functions below name the usual combinations.

    Parameters
    ----------
    gates : {"none", "node", "input", "weight"}
        What may be switched off. `input` is feature selection: a gate on each input of the first layer.
    scale : {"none", "group-lasso", "horseshoe"}
    centred : bool
        Whether a horseshoe scale enters the prior alone, rather than multiplying the weights.
    regulariser : float or "learned"
        c of the horseshoe.
    prior_std : float
        sigma_0.
    inclusion : float or mapping from layer name to float
        Prior inclusion probability lambda of each gate, inside (0, 1).
    start : float
        Where the gates start. High for inputs (two inputs that act together must be open together); low for nodes of
        a network that is much too wide, where a start near 1 keeps them all.
    initial_std : float
        Where the standard deviations start.
    relaxed : bool
        Draw gates on weights, once for each minibatch, rather than integrate them out.
    """

    gates: Literal["none", "node", "input", "weight"] = "none"
    scale: Literal["none", "group-lasso", "horseshoe"] = "none"
    centred: bool = False
    regulariser: Regulariser = 1.0
    prior_std: float = 1.0
    inclusion: float | Mapping[str, float] = 0.1
    start: float = 0.99
    initial_std: float = 0.01
    relaxed: bool = False

    def __post_init__(self) -> None:
        if self.gates not in ("none", "node", "input", "weight"):
            raise ValueError(f"gates is {self.gates!r}; choose none, node, input or weight")
        if self.scale not in ("none", "group-lasso", "horseshoe"):
            raise ValueError(f"scale is {self.scale!r}; choose none, group-lasso or horseshoe")
        if self.scale != "none" and self.gates not in ("node", "input"):
            raise ValueError(f"scale {self.scale!r} needs gates='node' or 'input'; gates is {self.gates!r}")
        if self.relaxed and self.gates != "weight":
            raise ValueError(f"relaxed is for gates='weight'; gates is {self.gates!r}, whose gates are always drawn")
        if self.centred and self.scale != "horseshoe":
            raise ValueError("the centred form exists for the horseshoe only; set scale='horseshoe'")
        kl.check_inclusion(self.start, "the gates' start")
        values = self.inclusion if isinstance(self.inclusion, Mapping) else {"": self.inclusion}
        for name, value in values.items():
            kl.check_inclusion(value, f"inclusion of {name!r}" if name else "inclusion")

    def shared(self, sites: Sequence[Site], graph: fx.GraphModule) -> Scales | None:
        """The scales of all nodes."""
        gated = [site for site in sites if self._gates_here(site)]
        if self.gates in ("node", "input") and (not gated or (self.gates == "input" and len(gated) > 1)):
            reasons = "; ".join(f"{site.name or site.norm}: {site.obstacle or 'not the first layer'}" for site in sites)
            raise ValueError(f"found {len(gated)} layers whose {self.gates}s can be gated ({reasons})")
        layers = [site for site in sites if site.name]
        if isinstance(self.inclusion, Mapping) and (unknown := set(self.inclusion) - {site.name for site in layers}):
            raise ValueError(
                f"inclusion names {sorted(unknown)}, which are no layers; choose from {[site.name for site in layers]}"
            )
        if self.scale == "group-lasso":
            return GroupLasso({s.name: (s.num_nodes, _group_size(s, graph)) for s in layers}, self.initial_std)
        if self.scale == "horseshoe":
            num_nodes = {site.name: site.num_nodes for site in layers}
            return Horseshoe(num_nodes, self.initial_std, self.regulariser, centred=self.centred)
        return None

    def unit(self, site: Site, graph: fx.GraphModule, shared: Scales | None) -> Unit:
        """The unit of one site."""
        parts = make_parts(site, graph, self._weight if self.gates == "weight" else self._normal)
        if self.gates == "weight" or not site.name:
            return Unit(site, parts, self.prior_std)
        if self.centred and site.norm:
            raise ValueError(f"{site.norm!r} undoes the scale of {site.name!r}: use the non-centred horseshoe")
        gate = None
        if self._gates_here(site):
            num = graph.get_parameter(f"{site.name}.weight").shape[1] if self.gates == "input" else site.num_nodes
            gate = Gate(int(num), self._inclusion(site.name), self.start)
        return StructuredUnit(site, parts, self.prior_std, gate, self.gates == "input", shared)

    def posterior(self, network: TrainedNetwork) -> Posterior:
        """The network itself; without gates its moments, and per weight the evidence against a point mass at zero."""
        if self.gates != "none":
            return network
        mean, variance = network.moments()
        groups = {n: GroupMap("weight", tuple(m.shape)) for n, m in mean.items() if m.ndim >= 2}
        bare = GaussianPosterior(network.plain, mean, variance, {}, {}, network.readers_mask)
        return point_spike(bare, groups, self.prior_std, 0.5)

    def _gates_here(self, site: Site) -> bool:
        if self.gates == "input":
            return site.first
        return self.gates == "node" and bool(site.name) and not site.obstacle

    def _inclusion(self, name: str) -> float:
        if not isinstance(self.inclusion, Mapping):
            return self.inclusion
        if name not in self.inclusion:
            raise ValueError(f"inclusion gives no value for layer {name!r}; it has {sorted(self.inclusion)}")
        return self.inclusion[name]

    def _normal(self, name: str, key: str, value: torch.Tensor) -> Normal:
        return Normal(value, self.initial_std)

    def _weight(self, name: str, key: str, value: torch.Tensor) -> Normal:
        if key != "weight" or value.ndim < 2:
            return Normal(value, self.initial_std)
        factor = RelaxedNormal if self.relaxed else GatedNormal
        return factor(value, self.initial_std, self._inclusion(name), self.start)


def mean_field(**settings: Any) -> Structured:
    """Bayes by Backprop: a normal factor for each weight (Blundell et al. 2015)."""
    return Structured(**settings)


def ss_ig(**settings: Any) -> Structured:
    """Spike and slab on nodes, independent normal slab (Jantre et al. 2023)."""
    return Structured(gates="node", **settings)


def ss_gl(**settings: Any) -> Structured:
    """Spike and slab on nodes, group-lasso slab, non-centred (Jantre et al. 2024)."""
    return Structured(gates="node", scale="group-lasso", **settings)


def ss_ghs(**settings: Any) -> Structured:
    """Spike and slab on nodes, regularised group-horseshoe slab (Jantre et al. 2024)."""
    return Structured(gates="node", scale="horseshoe", **settings)


def svbnn(**settings: Any) -> Structured:
    """Spike and slab on weights (Bai et al. 2020)."""
    return Structured(gates="weight", **settings)


def make_parts(site: Site, graph: fx.GraphModule, factor: Any) -> dict[str, VariationalLayer]:
    """Variational layers of a site; `factor(layer_name, "weight" or "bias", value)` makes each factor."""
    parts: dict[str, VariationalLayer] = {}
    for name in filter(None, (site.name, site.norm)):
        source = graph.get_submodule(name)
        weight = factor(name, "weight", source.weight)
        bias = factor(name, "bias", source.bias) if source.bias is not None else None
        if isinstance(source, nn.Linear):
            parts[name] = VariationalLinear(weight, bias)
        elif isinstance(source, nn.Conv2d):
            parts[name] = VariationalConv2d(weight, bias, source)
        else:
            assert isinstance(source, nn.BatchNorm1d | nn.BatchNorm2d)
            bare = type(source)(source.num_features, source.eps, source.momentum, False, source.track_running_stats)
            bare.load_state_dict({k: v for k, v in source.state_dict().items() if k not in ("weight", "bias")})
            parts[name] = VariationalBatchNorm(weight, bias, bare)
    return parts


def _group_size(site: Site, graph: fx.GraphModule) -> int:
    """K: how many weights of a node its scale multiplies."""
    if site.norm:
        return 2
    layer = graph.get_submodule(site.name)
    return layer.get_parameter("weight")[0].numel() + (layer.bias is not None)
