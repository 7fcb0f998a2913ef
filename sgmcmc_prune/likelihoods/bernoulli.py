"""Yes or no, once or several times for each example: the logistic function of each output."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune.likelihoods.base import ObservationModel, columns, require_targets


class Bernoulli(ObservationModel):
    """Logistic likelihood: outputs are logits, targets 0 or 1, both (n,), (n, 1) or (n, k), which count together."""

    headings: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "nll": "NLL", "brier": "Brier"}
    expected = ("probability", "component")
    higher_is_better = True

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of each example, summed over its k labels."""
        outputs, targets = columns(outputs, targets)
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs), reduction="none").sum(1)

    def check(self, targets: Tensor) -> None:
        """Refuse anything but 0 and 1."""
        require_targets(targets, ~((targets == 0) | (targets == 1)), "0 or 1")

    def mean(self, outputs: Tensor) -> Tensor:
        """Probabilities of 1."""
        return outputs.sigmoid()

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Zeros and ones."""
        return torch.bernoulli(outputs.sigmoid(), generator=generator)

    def each(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Tensor]:
        """Share of its labels that are right, NLL, and mean Brier score of its labels."""
        p, y = columns(self.expected_target(prediction), targets)
        return {
            "accuracy": ((p > 0.5) == (y > 0.5)).double().mean(1),
            "nll": self.mixture_nll(prediction, targets),
            "brier": (p - y).square().mean(1),
        }
