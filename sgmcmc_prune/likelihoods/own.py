"""A user's own likelihood that is a plain function: what can be said of its predictions without knowing more."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sgmcmc_prune.likelihoods.base import Likelihood, ObservationModel
from sgmcmc_prune.likelihoods.categorical import Categorical


class OwnOfLabels(Categorical):
    """A function of logits and class labels: predictions are the softmax of the outputs."""

    def __init__(self, function: Likelihood) -> None:
        self.function = function

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(outputs, targets)


class OwnOfNumbers(ObservationModel):
    """A function of outputs and numbers: predictions are judged by their NLL, and outputs are averaged."""

    headings: ClassVar[Mapping[str, str]] = {"nll": "NLL"}
    draws_targets = False

    def __init__(self, function: Likelihood) -> None:
        self.function = function

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(outputs, targets)

    def mean(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Nothing is known of the distribution."""
        raise TypeError("a function of outputs and targets cannot draw; subclass ObservationModel")

    def each(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Tensor]:
        """NLL."""
        return {"nll": self.mixture_nll(prediction, targets)}


def observation_model(likelihood: Likelihood, labels: bool) -> ObservationModel:
    """A likelihood as an observation model.

    Parameters
    ----------
    likelihood : ObservationModel, or callable
    labels : bool
        Whether the data's targets are class labels: then a plain function is one of logits.
    """
    if isinstance(likelihood, ObservationModel):
        return likelihood
    return OwnOfLabels(likelihood) if labels else OwnOfNumbers(likelihood)
