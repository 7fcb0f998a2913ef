"""Class labels: the softmax of the outputs."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune.likelihoods.base import ObservationModel, Prediction
from sgmcmc_prune.predictive import metrics
from sgmcmc_prune.predictive.predict import predictive_of

#: No class has this label. Torch leaves examples with its "ignored" label, by default -100, out without a word.
_NO_LABEL = -(2**63)


class Categorical(ObservationModel):
    """Softmax likelihood: outputs are logits (n, classes), targets class indices (n,) of any integer type."""

    targets = "labels"
    stored = ("logits", "class")
    expected = ("probability", "class")
    headings: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "nll": "NLL", "brier": "Brier", "ece": "ECE"}
    higher_is_better = True

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each example."""
        if targets.dtype.is_floating_point or targets.dtype.is_complex or targets.dtype == torch.bool:
            raise TypeError(f"class labels are {targets.dtype}; give integers (of one-hot rows, argmax(1))")
        if outputs.ndim != 2 or targets.shape != outputs.shape[:1] or outputs.shape[1] < 2:
            raise ValueError(
                f"outputs have shape {tuple(outputs.shape)} and class labels {tuple(targets.shape)}; give "
                "(n, classes), with two classes or more, and (n,)"
            )
        try:
            return F.cross_entropy(outputs, targets.long(), reduction="none", ignore_index=_NO_LABEL)
        except IndexError as error:
            raise ValueError(f"class labels must be 0 to {outputs.shape[1] - 1}: {error}") from error

    def mean(self, outputs: Tensor) -> Tensor:
        """Class probabilities."""
        return outputs.softmax(-1)

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """One label for each example."""
        return torch.multinomial(outputs.softmax(1), 1, generator=generator).squeeze(1)

    def prediction(self, outputs: Tensor) -> Prediction:
        """Class probabilities, and their entropy."""
        return predictive_of(outputs)

    def score(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, float]:
        """Accuracy, NLL, Brier score and expected calibration error."""
        return metrics.summarise(prediction.probabilities, targets)

    def each(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Tensor]:
        """Whether it is right, NLL and Brier score; a calibration error is no mean over examples."""
        return metrics.each(prediction.probabilities, targets)

    def cross_entropy(self, outputs: Tensor, prediction: Any) -> Tensor:
        r""":math:`-\sum_k \bar p_k \log \mathrm{softmax}(f)_k`."""
        return -(prediction.probabilities.to(outputs) * outputs.log_softmax(1)).sum(1)

    def expected_target(self, prediction: Any) -> Tensor:
        """Averaged class probabilities."""
        probabilities: Tensor = prediction.probabilities
        return probabilities
