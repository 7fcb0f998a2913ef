"""The zero-mean Gaussian prior N(0, v I)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sgmcmc_prune.priors.base import Prior


class Gaussian(Prior):
    """Independent N(0, variance) for every weight: weight decay 1 / (N variance) in the units of SGD."""

    def __init__(self, variance: float) -> None:
        if not (variance > 0 and math.isfinite(variance)):
            raise ValueError(f"prior variance is {variance}; it must be finite and > 0")
        self.variance = variance

    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """Sum over weights of -w^2 / (2 v) - log(2 pi v) / 2."""
        return gaussian_log_density(params.values(), self.variance)

    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """w / v."""
        return w / self.variance


def gaussian_log_density(tensors: object, variance: float) -> Tensor:
    """Log density of all entries of the tensors under N(0, variance): a 0-d float64 tensor."""
    total = torch.zeros((), dtype=torch.float64)
    for w in tensors:  # type: ignore[attr-defined]
        total = (
            total
            + (-w.double().square().sum() / (2 * variance) - w.numel() / 2 * math.log(2 * math.pi * variance)).cpu()
        )
    return total
