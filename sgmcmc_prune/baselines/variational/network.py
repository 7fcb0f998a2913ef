"""The variational counterpart of an ordinary network: convert, run, and draw plain networks from it."""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational.factors import GatedNormal, GateRule, LogNormal
from sgmcmc_prune.baselines.variational.families import Family
from sgmcmc_prune.baselines.variational.gates import LOGIT_BOUND, Gate
from sgmcmc_prune.baselines.variational.graph import Site, column_values, find_sites, mask_readers, trace
from sgmcmc_prune.baselines.variational.layers import once
from sgmcmc_prune.baselines.variational.posterior import median_mask
from sgmcmc_prune.baselines.variational.units import Unit
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.masks import Mask

#: |mean| and log standard deviation of a log scale at which they are stopped, so that E exp stays finite.
_LOG_BOUND, _LOG_STD_BOUND = 15.0, 1.5


class VariationalNetwork(nn.Module):
    """A network with a factorised posterior over its weights; made by `bayesianise`.

    `forward` is always random: it draws weights and gates for each example (it trains, and estimates the bound;
    training mode concerns normalisation only). Predictions come from plain networks: `draw` gives their parameters.

    Attributes
    ----------
    plain : Module
        The network it was made from, with the normalisation statistics of the last `sync`.
    units : list of Unit
        Its layers.
    """

    def __init__(self, plain: nn.Module, graph: fx.GraphModule, units: list[Unit], shared: Any) -> None:
        super().__init__()
        self.graph, self.units, self.shared = graph, units, shared
        self._plain = [plain]  # in a list: its parameters are not this module's
        self._gates = [m for m in self.modules() if isinstance(m, Gate | GatedNormal)]
        self._log_normals = [m for m in self.modules() if isinstance(m, LogNormal)]

    @property
    def plain(self) -> nn.Module:
        """The ordinary network, with the current normalisation statistics."""
        plain = self._plain[0]
        buffers = dict(self.graph.named_buffers())
        for name, buffer in plain.named_buffers():
            module, _, key = name.rpartition(".")
            buffer.copy_(buffers.get(f"{module}.normalise.{key}", buffers.get(name, buffer)))
        return plain

    def forward(self, x: Tensor) -> Tensor:
        """Outputs under one draw of weights and gates per example."""
        self._resample()
        return self.graph(x)

    def kl(self) -> Tensor:
        """KL of the posterior from the prior, 0-d, in nats: it enters the loss as kl / num_data."""
        self._resample()
        return self._divergence()

    def outputs_and_kl(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` and `kl` by the same draw of the scales and the same moments: much cheaper than one by one."""
        self._resample()
        with once(part for unit in self.units for part in unit.parts.values()):
            return self.graph(x), self._divergence()

    def _resample(self) -> None:
        if self.shared is not None:
            self.shared.resample()

    def _divergence(self) -> Tensor:
        terms = [unit.kl() for unit in self.units]
        if self.shared is not None:
            terms.append(self.shared.kl())
        return torch.stack(terms).sum()

    @torch.no_grad()
    def draw(
        self, gates: GateRule = "sample", sampled: bool = True, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Parameters of one plain network.

        Parameters
        ----------
        gates : {"sample", "median", "mean"}
            A draw of the gates, the median model (g >= 1/2), or their probabilities as factors.
        sampled : bool
            Draw weights and scales, or take their means (a horseshoe scale: the exponential of its mean log).
        generator : torch.Generator, optional
            On the CPU; the global one if not given.

        Returns
        -------
        dict of str to Tensor
            By the plain network's names. A closed node has no incoming and no outgoing weights.
        """
        if self.shared is not None:
            self.shared.resample(sampled, generator)
        weights = {name: parameter.detach() for name, parameter in self._plain[0].named_parameters()}
        states = {}
        for unit in self.units:
            drawn, states[unit] = unit.draw(gates, sampled, generator)
            weights |= drawn
        for unit, z in states.items():
            if z is not None:
                for reader, block in unit.site.readers:
                    name = f"{reader}.weight"
                    weights[name] = weights[name] * column_values(z, block, weights[name])
        return weights

    def log_odds(self) -> tuple[dict[str, Tensor], dict[str, GroupMap]]:
        """Posterior log odds of inclusion, shape (G,) by parameter name, and the groups."""
        found = [selected for unit in self.units if (selected := unit.log_odds()) is not None]
        return {name: odds for name, _, odds in found}, {name: groups for name, groups, _ in found}

    def mask(self) -> Mask:
        """The median probability model, with the weights that read closed nodes."""
        return median_mask(*self.log_odds(), self.readers_mask)

    def moments(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Mean and variance of each parameter by the plain network's names (without node gates and scales)."""
        found = {name: factor.moments() for unit in self.units for name, factor, _ in unit.factors()}
        return {n: m.detach() for n, (m, _) in found.items()}, {n: v.detach() for n, (_, v) in found.items()}

    def readers_mask(self, mask: Mask) -> Mask:
        """Add to a mask the columns that read removed nodes (see `mask_readers`)."""
        return mask_readers(mask, [unit.site for unit in self.units], self._plain[0])

    def mask_weights(self, mask: Mask) -> None:
        """Fix masked weights at zero: they are neither drawn nor trained, and cost nothing.

        Raises
        ------
        ValueError
            If a name is no parameter's, or a shape is not the parameter's.
        """
        factors = {name: factor for unit in self.units for name, factor, _ in unit.factors()}
        for name, kept in mask.items():
            if name not in factors:
                raise ValueError(f"the mask names {name!r}, which is no parameter; choose from {', '.join(factors)}")
            if kept.shape != factors[name].mean.shape:
                shapes = tuple(kept.shape), tuple(factors[name].mean.shape)
                raise ValueError(f"the mask of {name!r} has shape {shapes[0]}; its parameter has {shapes[1]}")
            factors[name].kept = kept.to(factors[name].mean)

    @torch.no_grad()
    def constrain(self) -> None:
        """Put gate logits and log scales back inside their bounds; called after each optimiser step."""
        for gate in self._gates:
            bound = LOGIT_BOUND + abs(kl.log_odds(gate.inclusion))
            gate.logits.clamp_(-bound, bound)
        for factor in self._log_normals:
            factor.mean.clamp_(-_LOG_BOUND, _LOG_BOUND)
            factor.log_std.clamp_(max=_LOG_STD_BOUND)


def bayesianise(model: nn.Module, family: Family) -> VariationalNetwork:
    """Turn an ordinary network into its variational counterpart.

    Every Linear, Conv2d and BatchNorm layer gets factors whose means start at the model's own weights. Node gates stand
    after activation and normalisation. They are put where a node can be removed: in a residual network on the inner
    channels of each block, not on the residual stream; never on the output layer (`Site.obstacle` says why).

    Parameters
    ----------
    model : Module
        Left as it is. Its forward must be traceable by `torch.fx` (no branching on values).
    family : Family
        Such as `mean_field()`, `ss_ig()`, `ss_gl()`, `ss_ghs()`, `svbnn()`.

    Returns
    -------
    VariationalNetwork
        On the model's device, in its precision.

    Raises
    ------
    ValueError
        If a layer cannot be converted (named, with what is supported), or the family has nothing to gate.
    TypeError
        If `family` is not a family.
    """
    if not callable(getattr(family, "unit", None)):
        raise TypeError(f"family is {family!r}; give what a family's function returns, such as ss_ig()")
    _check_untied(model)
    plain = copy.deepcopy(model)
    graph = trace(copy.deepcopy(model))
    sites = _trained(find_sites(graph), graph)
    if not sites:
        raise ValueError(f"{type(model).__name__} has no layer that can be converted")
    shared = family.shared(sites, graph)
    units = [family.unit(site, graph, shared) for site in sites]
    for unit in units:
        _install(graph, unit)
    graph.graph.lint()
    graph.recompile()
    _warn_unread(model, graph)
    like = next(model.parameters())
    return VariationalNetwork(plain, graph, units, shared).to(like.device, like.dtype)


def _trained(sites: list[Site], graph: fx.GraphModule) -> list[Site]:
    """The sites that are trained: frozen layers stay as they are, and what they read cannot be removed."""
    found = []
    for site in sites:
        own = [p for name in (site.name, site.norm) if name for p in graph.get_submodule(name).parameters()]
        moving = {p.requires_grad for p in own}
        if len(moving) > 1:
            raise ValueError(
                f"layer {site.name!r} is frozen in part; freeze all of it and its normalisation, or nothing"
            )
        frozen = [name for name, _ in site.readers if not graph.get_submodule(name).weight.requires_grad]
        if frozen and not site.obstacle:
            site.obstacle = f"{frozen[0]!r} reads it, and is frozen"
        if True in moving:
            found.append(site)
    return found


def _check_untied(model: nn.Module) -> None:
    """Two layers that share a parameter would get a factor each."""
    seen: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if (first := seen.setdefault(id(parameter), name)) != name:
            raise ValueError(f"{first!r} and {name!r} are one parameter; tied weights cannot be converted")


def _install(graph: fx.GraphModule, unit: Unit) -> None:
    """Replace the unit's layers, and insert its gate."""
    for name, part in unit.parts.items():
        graph.set_submodule(name, part)
    label = (unit.site.name or unit.site.norm).replace(".", "_")
    if unit.gate is not None and unit.gates_input:
        _insert_before(graph, unit.site.start, f"{label}_input_gate", unit.gate)
    elif unit.gate is not None:
        _insert_after(graph, unit.site.gated, f"{label}_gate", unit.gate)


def _insert_after(graph: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
    graph.add_submodule(name, module)
    with graph.graph.inserting_after(node):
        new = graph.graph.call_module(name, (node,))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


def _insert_before(graph: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
    graph.add_submodule(name, module)
    source = node.args[0]
    with graph.graph.inserting_before(node):
        node.args = (graph.graph.call_module(name, (source,)), *node.args[1:])


def _warn_unread(model: nn.Module, graph: fx.GraphModule) -> None:
    """Parameters that the traced forward never uses stay as they are; say so."""
    used = {str(node.target) for node in graph.graph.nodes if node.op == "call_module"}
    unused = [n for n, _ in model.named_parameters() if n.rpartition(".")[0] not in used]
    if unused:
        warnings.warn(f"parameters that the forward pass does not use stay fixed: {', '.join(unused)}", stacklevel=3)
