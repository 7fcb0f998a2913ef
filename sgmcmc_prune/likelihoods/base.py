"""What a target is distributed as, given the network's outputs: one object answers every question about it.

A likelihood is called with outputs and targets and gives the negative log-likelihood of each example, in nats,
normalised. A plain function is enough for a sampler. A run asks more: how many numbers the network must give, which
targets are possible, what the draws predict together, and how good that is. An `ObservationModel` says so.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune.predictive.metrics import ROOTS
from sgmcmc_prune.predictive.predict import Predictive

#: outputs (n, ...), targets (n, ...) -> negative log-likelihood (n,)
Likelihood = Callable[[Tensor, Tensor], Tensor]
#: What a target is: a class label, a number as it is, or a number that a reader of tables may standardise.
Targets = Literal["labels", "numbers", "standardised"]


@dataclass(frozen=True)
class Mixture:
    """The outputs of some networks for the same inputs, with equal weights.

    Attributes
    ----------
    each : tuple of Tensor, shape (n, outputs)
        By network.
    """

    each: tuple[Tensor, ...]

    @cached_property
    def outputs(self) -> Tensor:
        """Those of all networks, shape (members, n, outputs), in float64."""
        return torch.stack(self.each).double()

    @property
    def members(self) -> int:
        """Number of networks."""
        return len(self.each)

    def pooled(self, other: "Mixture") -> "Mixture":
        """The members of both."""
        return Mixture((*self.each, *other.each))


#: What draws predict together: classes are averaged as they come, anything else keeps every member's outputs.
Prediction = Predictive | Mixture


class ObservationModel(ABC):
    """A likelihood that also predicts and is scored.

    Attributes
    ----------
    targets : {"labels", "numbers", "standardised"}
    stored : str
        Name and dimension of the network's outputs in the store of draws.
    expected : str
        Name of the expected target in the group `posterior_predictive`.
    headings : mapping of str to str
        The scores of a prediction, by key, as a table heads them. The first is the one that a person asks for.
    higher_is_better : bool
        Of that first score.
    draws_targets : bool
        Whether `draw` can be used.
    """

    targets: ClassVar[Targets] = "numbers"
    stored: ClassVar[tuple[str, str]] = ("outputs", "output")
    expected: ClassVar[tuple[str, str]] = ("mean", "component")
    headings: ClassVar[Mapping[str, str]]
    higher_is_better: ClassVar[bool] = False
    draws_targets: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of each example, in nats: shape (n,)."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """Expected target given the outputs (..., outputs): shape (..., k)."""

    @abstractmethod
    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """One target drawn for each example, given outputs (n, outputs) on the CPU: shape (n, k), or (n,) labels."""

    def num_outputs(self, width: int) -> int:
        """Numbers that the outputs have for targets of `width` numbers (of class labels: `width` classes)."""
        return width

    def num_network_outputs(self, width: int) -> int:
        """Those of them that the network itself gives; `completed` adds the rest."""
        return self.num_outputs(width)

    def completed(self, network: nn.Module, width: int) -> nn.Module:
        """The network with the parameters that the likelihood itself has, if it has any."""
        return network

    def in_unit(self, unit: float) -> "ObservationModel":
        """The same likelihood of targets that were divided by `unit`."""
        return self

    def check(self, targets: Tensor) -> None:
        """Refuse targets that no outcome can be; ValueError names the first example."""
        require_targets(targets, ~targets.isfinite(), "finite")

    def prediction(self, outputs: Tensor) -> Prediction:
        """What one network predicts that gives these outputs (n, outputs)."""
        return Mixture((outputs,))

    def score(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, float]:
        """The scores of a prediction, by the keys of `headings`: those of what its examples add (`each`).

        Parameters
        ----------
        prediction : Prediction
        targets : Tensor, shape (n, ...)
        unit : float
            One unit of the targets, in the units of the user's data.
        """
        return scores_of(self.each(prediction, targets, unit))

    def score_single(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, float]:
        """The first two of the scores, which every draw on its own gets."""
        return dict(list(self.score(prediction, targets, unit).items())[:2])

    def each(self, prediction: Any, targets: Tensor, unit: float = 1.0) -> dict[str, Tensor]:
        """What every example adds to a score that is a mean over examples, by key; of an RMSE its squared error.

        The intervals of scores are made of it (`predictive.intervals`): a score that is not here, or is not what its
        examples add up to (`scores_of`), has none.

        Parameters
        ----------
        prediction, targets, unit
            As of `score`.

        Returns
        -------
        dict of str to Tensor, shape (n,), float64
        """
        return {}

    def expected_target(self, prediction: Any) -> Tensor:
        """Mean of the targets under a prediction, shape (n, k)."""
        return self.mean(prediction.outputs).mean(0)

    @property
    def not_distilled(self) -> str:
        """Why no network can be trained to predict as others do together; empty where it can."""
        if type(self).cross_entropy is not ObservationModel.cross_entropy:
            return ""
        return f"no cross-entropy to a prediction is known for {type(self).__name__}; export --network mean"

    def cross_entropy(self, outputs: Tensor, prediction: Any) -> Tensor:
        r"""Mean of :math:`-\log p(y | f)` over targets y that a prediction draws, of each example: shape (n,), in nats.

        Lowered over f, it makes one network predict as the draws do together (`run.distil`).

        Raises
        ------
        ValueError
            If no closed form is known (`not_distilled`).
        """
        raise ValueError(self.not_distilled)

    def mixture_nll(self, prediction: Mixture, targets: Tensor) -> Tensor:
        r""":math:`-\log \frac1S \sum_s p(y | f_s)` of each example, in nats: shape (n,)."""
        members = torch.stack([-self(outputs, targets) for outputs in prediction.outputs])
        return math.log(len(members)) - members.logsumexp(0)


def scores_of(each: Mapping[str, Tensor]) -> dict[str, float]:
    """The scores to which every example adds something (`ObservationModel.each`): means, or their roots."""
    means = {key: values.mean() for key, values in each.items()}
    return {key: float(mean.sqrt() if key in ROOTS else mean) for key, mean in means.items()}


def require_targets(targets: Tensor, bad: Tensor, expected: str) -> None:
    """ValueError that names the first example whose target is bad."""
    rows = bad.unsqueeze(-1).flatten(1).any(1).nonzero().flatten().tolist()
    if rows:
        raise ValueError(f"the target of example {rows[0]} is {targets[rows[0]].tolist()}; it must be {expected}")


def check_targets(likelihood: Likelihood, targets: Tensor) -> None:
    """Refuse targets that no outcome of a likelihood can be; ValueError names the first example."""
    if isinstance(likelihood, ObservationModel):
        likelihood.check(targets)
    else:
        require_targets(targets, ~targets.isfinite(), "finite")


def columns(outputs: Tensor, targets: Tensor, per_target: int = 1) -> tuple[Tensor, Tensor]:
    """Both as (n, numbers); ValueError if outputs do not hold `per_target` real numbers for each of the targets'.

    Nothing is broadcast.
    """
    both = [x.unsqueeze(-1).flatten(1) if x.ndim else x for x in (outputs, targets)]
    if outputs.ndim == 0 or targets.ndim == 0 or targets.dtype.is_complex or len(both[0]) != len(both[1]):
        fits = False
    else:
        fits = both[0].shape[1] == per_target * both[1].shape[1]
    if not fits:
        many = "as many real numbers" if per_target == 1 else f"{per_target} outputs for every number of a target"
        raise ValueError(
            f"outputs have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)} ({targets.dtype}); give "
            f"{many} for each example: (n,) or (n, k)"
        )
    return both[0], both[1] if targets.dtype.is_floating_point else both[1].to(outputs)


def mean_nll(likelihood: Likelihood, outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch: what a sampler's `.grad` must be the gradient of."""
    return torch.mean(likelihood(outputs, targets))
