"""Heavy-tailed priors with one learned scale per weight matrix: what Laplace and Student-t share."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sgmcmc_prune import names
from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.priors.base import FITTED, Prior, total
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.settings import check_positive


class ScaleFamily(Prior):
    """Independent weights, w_j / scale of a fixed density; `em.ScaleEM` learns the scale of each weight matrix.

    Parameters
    ----------
    scale : float
        Starting scale of every parameter; those with fewer than two dimensions keep it.

    Attributes
    ----------
    scales : dict of str to float
        Learned scales, by name.
    """

    def __init__(self, scale: float) -> None:
        check_positive("prior scale", scale)
        self.scale = scale
        self.scales: dict[str, float] = {}
        self.masks: dict[str, Tensor] = {}

    def departures(self, settings: EMSettings) -> list[str]:
        """Fitted scales."""
        return [FITTED] if settings.kind != "fixed" else []

    def check(self, params: Mapping[str, Tensor]) -> dict[str, str]:
        """Take any parameters before a scale is learned or a mask set; later those alone that it knows by name."""
        known = {**dict.fromkeys(self.scales), **dict.fromkeys(self.masks)}
        found = names.match(known, params)
        if known and not found:
            raise ValueError(
                f"the prior has learned scales or masks of {names.shown(known)}, and the sampler has "
                f"{names.shown(params)}; make a new prior for this network"
            )
        back = {theirs: ours for ours, theirs in found.items()}
        return {name: back.get(name, name) for name in params}

    def cut(self, params: Mapping[str, Tensor], positions: Mapping[str, Tensor]) -> "ScaleFamily":
        """With the same scales."""
        smaller = copy.copy(self)
        smaller.scales, smaller.masks = dict(self.scales), {}
        return smaller

    def hyperparameters(self, name: str) -> dict[str, float]:
        """`scale` of one parameter."""
        return {"scale": self.scale_of(name)}

    def scale_of(self, name: str) -> float:
        """Scale of one parameter."""
        return self.scales.get(name, self.scale)

    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """Sum of the log densities of all weights that no mask removed, float64."""
        return total(self.log_densities(self.kept(n, w).double(), self.scale_of(n)) for n, w in params.items())

    def kept(self, name: str, w: Tensor) -> Tensor:
        """The weights that no mask removed."""
        return w[self.masks[name]] if name in self.masks else w

    def set_mask(self, mask: Mapping[str, Tensor]) -> None:
        """Leave masked weights out of the log density and of the M-step."""
        check_mask(mask, mask)
        self.masks = {name: kept.clone() for name, kept in mask.items()}

    @abstractmethod
    def log_densities(self, w: Tensor, scale: float) -> Tensor:
        """Log p(w_j | scale) of each weight, shaped like `w`."""

    @abstractmethod
    def statistic(self, w: Tensor, scale: float) -> Tensor:
        """The E-step of each weight given the current scale: its mean determines the next scale."""

    @abstractmethod
    def scale_from(self, mean_statistic: float) -> float:
        """M-step: the scale that maximises the expected log density."""

    def state_dict(self) -> dict[str, Any]:
        """Learned scales, and masks."""
        return {"scales": dict(self.scales), "masks": dict(self.masks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scales, self.masks = dict(state["scales"]), dict(state["masks"])
