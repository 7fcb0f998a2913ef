"""What every training leaves: one network, the draws that are averaged, scores, a mask of its own, and the cost.

fit.single(inputs)    class probabilities of the one network
fit.predict(inputs)   their average over the draws
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor, nn

from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.predictive.predict import class_probabilities, posterior_predictive
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.masked import masked_network
from sgmcmc_prune.pruning.masks import Mask

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Cost:
    """What a training took; costs add up.

    Attributes
    ----------
    gradient_evaluations : int
        Backward passes of one example; passes for curvatures and saliencies count.
    seconds : float
        Wall time.
    """

    gradient_evaluations: int
    seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.gradient_evaluations + other.gradient_evaluations, self.seconds + other.seconds)


@dataclass(frozen=True)
class Fit:
    """What a training leaves; it is never changed.

    Attributes
    ----------
    model : Module
        The one network: a point estimate, or a posterior's means.
    cost : Cost
    draws : sequence of mappings of str to Tensor
        The ensemble's weights (and buffers, where these differ); empty for a point estimate.
    scores : mapping of str to Tensor, shape (G,)
        Scores of the groups, higher = keep.
    groups : mapping of str to GroupMap
        The groups that are scored, by parameter name.
    mask : mask, or None
        What the method itself keeps (True = kept); None where it has no stopping rule.
    history : sequence of mappings
        Records made while it was trained.
    """

    model: nn.Module
    cost: Cost
    draws: Sequence[Weights] = ()
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    groups: Mapping[str, GroupMap] = field(default_factory=dict)
    mask: Mask | None = None
    history: Sequence[Mapping[str, Any]] = ()

    @property
    def members(self) -> int:
        """Networks in the ensemble."""
        return max(1, len(self.draws))

    def single(self, inputs: Tensor) -> Tensor:
        """Class probabilities of the one network, shape (n, classes), float64."""
        return class_probabilities(self.model, inputs)

    def predict(self, inputs: Tensor) -> Tensor:
        """Class probabilities averaged over the draws, shape (n, classes), float64; without draws those of `single`."""
        if not self.draws:
            return self.single(inputs)
        own = dict(self.model.named_parameters())  # a draw may leave out what is frozen
        return posterior_predictive(self.model, [{**own, **draw} for draw in self.draws], inputs).probabilities

    def under(self, mask: Mask, batches: Callable[[], Sequence[Tensor]]) -> Self:
        """The same fit with masked weights at zero in every network, and BatchNorm statistics that fit them.

        Parameters
        ----------
        mask : mask
            Of every prunable parameter.
        batches : callable
            Gives the inputs for these statistics, as `Run.statistics_batches` does.
        """
        own = network_state(self.model)  # a weight that two layers share is there once, whatever a draw holds

        def masked(weights: Weights) -> nn.Module:
            held = {name: weights.get(name, value) for name, value in own.items()}
            return masked_network(self.model, held, mask, batches)

        draws = [network_state(masked(draw)) for draw in self.draws]
        return replace(self, model=masked({}), draws=draws, mask=mask)
