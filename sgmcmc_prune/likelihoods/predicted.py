"""The posterior predictive of some inputs as a user reads it: means, samples and intervals in units of the targets."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sgmcmc_prune.likelihoods.base import Mixture, ObservationModel, Prediction

#: Samples, over all members, from which an interval is taken.
SAMPLES = 1000


@dataclass(frozen=True)
class Predicted:
    """The posterior predictive of some inputs, in the units of the user's targets.

    Attributes
    ----------
    likelihood : ObservationModel
    prediction : Predictive, or Mixture
        As the likelihood made it: averaged class probabilities, or the outputs of every draw.
    centre, unit : float or Tensor, shape (k,)
        How the targets were standardised.
    """

    likelihood: ObservationModel
    prediction: Prediction
    centre: float | Tensor = 0.0
    unit: float | Tensor = 1.0

    def __repr__(self) -> str:
        """Of what, for how many examples, by how many networks."""
        name = type(self.likelihood).__name__
        return f"<Predicted, {name}: {len(self.mean):,} examples, {self.prediction.members:,} members>"

    @property
    def mean(self) -> Tensor:
        """Expected targets (n, k), or class probabilities (n, classes)."""
        return self.unit * self.likelihood.expected_target(self.prediction) + self.centre

    def samples(self, seed: int = 0, of_each: int = 1) -> Tensor:
        """Targets drawn from the predictive, noise included.

        Parameters
        ----------
        seed : int
            The same seed gives the same targets.
        of_each : int
            Targets of each member, that is of each draw.

        Returns
        -------
        Tensor, shape (members * of_each, n, k)

        Raises
        ------
        ValueError
            Of class probabilities, and of a likelihood that cannot draw.

        Examples
        --------
        >>> posterior.predict(x[:5]).samples(of_each=3).shape
        torch.Size([48, 5, 1])
        """
        if not isinstance(self.prediction, Mixture):
            raise ValueError("class probabilities are averaged over draws; the targets' distribution is `mean` itself")
        if not self.likelihood.draws_targets:
            raise ValueError(
                "a function of outputs and targets cannot draw; give an ObservationModel as the likelihood"
            )
        generator = torch.Generator().manual_seed(seed)
        members = [outputs for outputs in self.prediction.outputs for _ in range(of_each)]
        drawn = [self.likelihood.draw(outputs.cpu(), generator) for outputs in members]
        values = torch.stack(drawn)
        centre, unit = (torch.as_tensor(part).to(values) for part in (self.centre, self.unit))
        return unit * values + centre

    def interval(self, probability: float = 0.9, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Equal-tailed interval of new targets, noise included, from a thousand samples or more.

        Parameters
        ----------
        probability : float
            Inside the interval, in (0, 1).
        seed : int
            Of the samples.

        Returns
        -------
        low, high : Tensor, shape (n, k)

        Raises
        ------
        ValueError
            For a probability outside (0, 1), and as `samples`.

        Examples
        --------
        >>> low, high = posterior.predict(x[:5]).interval(0.9)
        >>> bool((low < high).all())
        True
        """
        if not 0 < probability < 1:
            raise ValueError(f"probability is {probability}; it must be inside (0, 1)")
        tail = (1 - probability) / 2
        low, high = self.samples(seed, math.ceil(SAMPLES / self.prediction.members)).quantile(
            torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0
        )
        return low, high
