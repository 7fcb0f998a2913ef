"""One layer of a variational network with all that belongs to it: factors, gate, prior; its KL and its draws."""

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sgmcmc_prune.baselines.variational.factors import GatedNormal, GateRule, Normal, gate_values
from sgmcmc_prune.baselines.variational.gates import Gate, gated_divergence
from sgmcmc_prune.baselines.variational.graph import Site, column_values
from sgmcmc_prune.baselines.variational.layers import VariationalBatchNorm, VariationalLayer
from sgmcmc_prune.baselines.variational.scales import Horseshoe, Scales
from sgmcmc_prune.baselines.variational.statistics import per_row
from sgmcmc_prune.priors.groups import GroupMap


class Unit:
    r"""A layer and the normalisation after it, under the prior N(0, prior_std^2) (a normalisation's weight: about 1).

    Parameters
    ----------
    site : Site
    parts : dict of str to Module
        Variational layers by name: the layer, the normalisation, or both in this order.
    prior_std : float
        sigma_0.
    """

    gate: Gate | None = None
    gates_input = False

    def __init__(self, site: Site, parts: dict[str, VariationalLayer], prior_std: float) -> None:
        if not prior_std > 0:
            raise ValueError(f"prior_std is {prior_std}; it must be > 0")
        self.site, self.parts, self.prior_std = site, parts, prior_std

    def factors(self) -> Iterator[tuple[str, Normal, float]]:
        """Parameter name, factor and prior centre of each tensor."""
        for name, part in self.parts.items():
            centre = 1.0 if isinstance(part, VariationalBatchNorm) else 0.0
            yield f"{name}.weight", part.weight, centre
            if part.bias is not None:
                yield f"{name}.bias", part.bias, 0.0

    def kl(self) -> Tensor:
        """KL of everything in the unit, 0-d."""
        return self._divergence().sum()

    def _divergence(self) -> Tensor:
        """KL of the weights of each node from their prior, shape (J,)."""
        first, *others = (part.divergence(*self._prior()) for part in self.parts.values())
        return first + others[0] if others else first

    def _prior(self) -> tuple[Tensor | float, Tensor | float]:
        """Mean log standard deviation and mean precision of the slab: numbers, or one per node."""
        return math.log(self.prior_std), self.prior_std**-2

    def draw(
        self, gates: GateRule, sampled: bool, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Parameters of the plain layers, and the values of the node gates that their readers must apply."""
        return {name: factor.draw(sampled, gates, generator) for name, factor, _ in self.factors()}, None

    def log_odds(self) -> tuple[str, GroupMap, Tensor] | None:
        """Posterior log odds of inclusion: parameter, its groups, shape (G,); None where nothing is selected."""
        for name, factor, _ in self.factors():
            if isinstance(factor, GatedNormal):
                odds = factor.logits.detach()
                odds = odds if factor.kept is None else odds.masked_fill(factor.kept == 0, -math.inf)
                return name, GroupMap("weight", tuple(factor.mean.shape)), odds.flatten()
        return None

    def advance(self, progress: float) -> None:
        """Called before each step with the fraction of the training that is done."""


class StructuredUnit(Unit):
    r"""A unit with a gate on its nodes, or on the inputs of its layer, and a shrinkage scale on its nodes.

    Given its gate a node's weights have the slab as prior, so their divergence is weighted by g; that of its scale is
    not (it is part of `Scales.kl`): a closed node relaxes to the prior of its scale.

    .. math:: \sum_j g_j \sum_i KL(w_{ji}) + \sum_j KL(z_j)

    Parameters
    ----------
    gate : Gate or None
    gates_input : bool
        Whether the gate is on the inputs.
    scales : module or None
        Multiply the last part, or only shape the prior (a centred horseshoe, which needs a part without normalisation).
    """

    def __init__(
        self,
        site: Site,
        parts: dict[str, VariationalLayer],
        prior_std: float,
        gate: Gate | None,
        gates_input: bool = False,
        scales: Scales | None = None,
    ) -> None:
        super().__init__(site, parts, prior_std)
        self.gate, self.gates_input, self.scales = gate, gates_input, scales
        self.centred = isinstance(scales, Horseshoe) and scales.centred
        if scales is not None and not self.centred:
            list(parts.values())[-1].scale = functools.partial(_as_drawn, scales, site.name)

    def kl(self) -> Tensor:
        """KL of everything in the unit, 0-d."""
        if self.gate is None:
            return super().kl()
        if not self.gates_input:
            return gated_divergence(self._divergence(), self.gate.logits, self.gate.inclusion)
        log_std, precision = self._prior()
        terms = [self.gate.kl().sum()]
        for _, factor, centre in self.factors():
            prior = per_row(log_std, factor.mean), per_row(precision, factor.mean)
            terms.append((self._active(factor) * factor.divergence(*prior, centre)).sum())
        return torch.stack(terms).sum()

    def draw(
        self, gates: GateRule, sampled: bool, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Parameters of the plain layers times the scales as last drawn; closed nodes (or inputs) are exactly zero."""
        weights, _ = super().draw(gates, sampled, generator)
        scaled, part = list(self.parts.items())[-1]
        if part.scale is not None:
            scale = part.scale()
            for name in (name for name in weights if name.rpartition(".")[0] == scaled):
                weights[name] = weights[name] * per_row(scale, weights[name])
        if self.gate is None:
            return weights, None
        z = gate_values(self.gate.logits, gates, generator)
        if self.gates_input:
            name = f"{self.site.name}.weight"
            return weights | {name: weights[name] * column_values(z, 1, weights[name])}, None
        return {name: value * per_row((z > 0).to(z), value) for name, value in weights.items()}, z

    def log_odds(self) -> tuple[str, GroupMap, Tensor] | None:
        """Log odds of the node or input gates."""
        if self.gate is None:
            return None
        layer = self.parts[self.site.name]
        kind = "input" if self.gates_input else "node"
        return f"{self.site.name}.weight", GroupMap(kind, tuple(layer.weight.mean.shape)), self.gate.logits.detach()

    def _prior(self) -> tuple[Tensor | float, Tensor | float]:
        log_std, precision = super()._prior()
        if not self.centred:
            return log_std, precision
        assert isinstance(self.scales, Horseshoe)
        log_scale, scale_precision = self.scales.moments[self.site.name]
        return log_std + log_scale, precision * scale_precision

    def _active(self, factor: Normal) -> Tensor | float:
        """Probability that each entry of a factor is in the slab under gates on the inputs, broadcastable."""
        if self.gate is None or factor.mean.ndim == 1:
            return 1.0
        return column_values(self.gate.probability, 1, factor.mean)


def _as_drawn(scales: Scales, layer: str) -> Tensor:
    return scales.drawn[layer]
