"""One layer of a variational network with all that belongs to it: factors, gate, scale, prior; its KL and its draws."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.baselines.variational.factors import GatedNormal, GateRule, Normal, gate_values
from sgmcmc_prune.baselines.variational.gates import Gate
from sgmcmc_prune.baselines.variational.graph import Site
from sgmcmc_prune.baselines.variational.layers import VariationalBatchNorm
from sgmcmc_prune.baselines.variational.scales import HorseshoeScale, Scale
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
    scale: Scale | None = None
    scales_forward = False

    def __init__(self, site: Site, parts: dict[str, Any], prior_std: float) -> None:
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
        log_std, precision = math.log(self.prior_std), self.prior_std**-2
        return torch.stack([factor.kl(log_std, precision, centre).sum() for _, factor, centre in self.factors()]).sum()

    def draw(
        self, gates: GateRule, sampled: bool, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Parameters of the plain layers, and the values of the node gates that their readers must apply."""
        return {name: factor.draw(sampled, gates, generator) for name, factor, _ in self.factors()}, None

    def log_odds(self) -> tuple[str, GroupMap, Tensor] | None:
        """Posterior log odds of inclusion: parameter, its groups, shape (G,); None where nothing is selected."""
        for name, factor, _ in self.factors():
            if isinstance(factor, GatedNormal):
                return name, GroupMap("weight", tuple(factor.mean.shape)), factor.logits.detach().flatten()
        return None

    def advance(self, progress: float) -> None:
        """Called before each step with the fraction of the training that is done."""


class StructuredUnit(Unit):
    r"""A unit with a gate on its nodes, or on the inputs of its layer, and a shrinkage scale on its nodes.

    Given its gate a node's weights have the slab as prior, so their divergence is weighted by g; the scale's is not: a
    closed node relaxes to the prior of its scale.

    .. math:: \sum_j g_j \sum_i KL(w_{ji}) + \sum_j KL(z_j) + \sum_j KL(s_j)

    Parameters
    ----------
    gate : Gate or None
    gates_input : bool
        Whether the gate is on the inputs.
    scale : module or None
        Multiplies the last part (non-centred), or only shapes the prior (`centred`).
    centred : bool
        Horseshoe only, and only without normalisation.
    """

    def __init__(
        self,
        site: Site,
        parts: dict[str, Any],
        prior_std: float,
        gate: Gate | None,
        gates_input: bool = False,
        scale: Scale | None = None,
        centred: bool = False,
    ) -> None:
        super().__init__(site, parts, prior_std)
        self.gate, self.gates_input, self.scale = gate, gates_input, scale
        self.scales_forward = scale is not None and not centred
        if self.scales_forward:
            list(parts.values())[-1].scale = scale

    def kl(self) -> Tensor:
        """KL of everything in the unit, 0-d."""
        log_std, precision = self._prior()
        terms = [module.kl().sum() for module in (self.gate, self.scale) if module is not None]
        if self.gates_input:
            for _, factor, centre in self.factors():
                prior = per_row(log_std, factor.mean), per_row(precision, factor.mean)
                terms.append((self._active(factor) * factor.divergence(*prior, centre)).sum())
        else:
            rows = torch.stack([factor.kl(log_std, precision, centre) for _, factor, centre in self.factors()]).sum(0)
            terms.append((rows if self.gate is None else rows * self.gate.probability).sum())
        return torch.stack(terms).sum()

    def draw(
        self, gates: GateRule, sampled: bool, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Parameters of the plain layers with the scale multiplied in; closed nodes (or inputs) are exactly zero."""
        weights, _ = super().draw(gates, sampled, generator)
        scaled = list(self.parts)[-1]
        if self.scale is not None and self.scales_forward:
            scale = self.scale.draw(sampled, generator)
            for name in weights:
                if name.rpartition(".")[0] == scaled:
                    weights[name] = weights[name] * per_row(scale, weights[name])
        if self.gate is None:
            return weights, None
        z = gate_values(self.gate.logits, gates, generator)
        if self.gates_input:
            name = f"{self.site.name}.weight"
            return weights | {name: weights[name] * _columns(z, weights[name])}, None
        return {name: value * per_row((z > 0).to(z), value) for name, value in weights.items()}, z

    def log_odds(self) -> tuple[str, GroupMap, Tensor] | None:
        """Log odds of the node or input gates."""
        if self.gate is None:
            return None
        layer = self.parts[self.site.name]
        kind = "input" if self.gates_input else "node"
        return f"{self.site.name}.weight", GroupMap(kind, tuple(layer.weight.mean.shape)), self.gate.logits.detach()

    def _prior(self) -> tuple[Tensor | float, Tensor | float]:
        """Mean log standard deviation and mean precision of the slab: numbers, or one per node."""
        log_std, precision = math.log(self.prior_std), self.prior_std**-2
        if self.scales_forward or not isinstance(self.scale, HorseshoeScale):
            return log_std, precision
        log_scale, scale_precision = self.scale.prior_moments()
        return log_std + log_scale, precision * scale_precision

    def _active(self, factor: Normal) -> Tensor | float:
        """Probability that each entry of a factor is in the slab under gates on the inputs, broadcastable."""
        return 1.0 if self.gate is None or factor.mean.ndim == 1 else _columns(self.gate.probability, factor.mean)


def _columns(values: Tensor, like: Tensor) -> Tensor:
    """One value per input, broadcastable over a weight (out, in, ...)."""
    return values.view(1, -1, *([1] * (like.ndim - 2)))
