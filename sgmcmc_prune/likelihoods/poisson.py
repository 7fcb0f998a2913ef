"""Counts: the outputs are logarithms of rates."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sgmcmc_prune.likelihoods.base import ObservationModel, columns, require_targets


class Poisson(ObservationModel):
    """Poisson likelihood, exp(f) - y f + log y!: outputs f are log-rates, targets counts, both (n,) or (n, k)."""

    headings: ClassVar[Mapping[str, str]] = {"rmse": "RMSE", "nll": "NLL"}

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-probability of the counts of each example."""
        f, y = columns(outputs, targets)
        y = y.to(f)
        return (f.exp() - y * f + torch.lgamma(y + 1)).sum(1)

    def check(self, targets: Tensor) -> None:
        """Refuse what is no count."""
        require_targets(targets, ~((targets >= 0) & (targets == targets.round())), "a count: 0, 1, 2, ...")

    def mean(self, outputs: Tensor) -> Tensor:
        """Rates."""
        return outputs.exp()

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Counts."""
        return torch.poisson(outputs.exp(), generator=generator)

    def each(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Tensor]:
        """Squared error of the expected count, and NLL."""
        rate, y = columns(self.expected_target(prediction), targets)
        return {"rmse": (rate - y).square().mean(1), "nll": self.mixture_nll(prediction, targets)}
