"""How a network is trained with the marginal likelihood."""

import math
from dataclasses import dataclass
from typing import Literal

from sgmcmc_prune.baselines.laplace.curvature import Estimator, Structure
from sgmcmc_prune.baselines.laplace.evidence import Update
from sgmcmc_prune.baselines.laplace.online import OnlinePruning
from sgmcmc_prune.baselines.laplace.prior import PriorStructure


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes
    ----------
    prior : {"scalar", "layerwise", "unitwise", "parameterwise"}
        Which weights share a precision.
    structure : {"diagonal", "kfac"}
        Of the curvature.
    estimator : {"ggn", "monte_carlo", "empirical"}
        Of the curvature.
    update : {"adam", "mackay", "closed_form"}
        How the precisions are updated.
    prior_steps, prior_lr
        Steps of each update, and Adam's step size in the log precisions.
    every, burn_in : int
        The precisions are updated after each step t >= burn_in that is a multiple of `every` before the end. With
        `burn_in` above `steps` they never are: this is the MAP baseline, with weight decay T delta / N.
    curvature_share : float
        Fraction of the training examples, drawn anew each time, over which a curvature is summed and scaled to all. The
        released code takes one minibatch.
    temperature : float
        T: the log-likelihood counts 1 / T times, in the training loss and in the evidence alike. Below 1 for augmented
        data.
    precision : float
        Starting delta.
    steps, batch_size : int
    optimizer : {"adam", "sgd"}
        SGD has momentum 0.9.
    lr, lr_min : float
        Learning rate, annealed by a cosine to `lr_min`; constant if they are equal.
    online : OnlinePruning, optional
        Prune during training.
    damage : float
        Budget of the method's own mask: predicted rise of the negative log joint, in nats per example.
    draws : int
        Networks averaged in a prediction.
    """

    prior: PriorStructure = "parameterwise"
    structure: Structure = "diagonal"
    estimator: Estimator = "ggn"
    update: Update = "adam"
    prior_steps: int = 100
    prior_lr: float = 0.1
    every: int = 500
    burn_in: int = 0
    curvature_share: float = 1.0
    temperature: float = 1.0
    precision: float = 1.0
    steps: int = 10_000
    batch_size: int = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    lr_min: float = 1e-3
    online: OnlinePruning | None = None
    damage: float = 0.01
    draws: int = 30

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "every", "draws", "prior_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not (0 < self.temperature < math.inf and 0 < self.precision < math.inf):
            raise ValueError(
                f"temperature is {self.temperature} and precision {self.precision}; both must be finite and > 0"
            )
        if not 0 < self.lr_min <= self.lr < math.inf:
            raise ValueError(f"lr is {self.lr} and lr_min {self.lr_min}; they must satisfy 0 < lr_min <= lr")
        if not 0 < self.curvature_share <= 1:
            raise ValueError(f"curvature_share is {self.curvature_share}; it is a fraction of the data, in (0, 1]")
        if not self.damage >= 0:
            raise ValueError(f"damage is {self.damage}; a budget is >= 0 nats per example")
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer is {self.optimizer!r}; choose adam or sgd")
        if self.structure == "kfac" and self.online is not None and self.online.mode == "hard":
            raise ValueError(
                "the evidence of a masked layer has no Kronecker form; prune online in mode 'regrow', or use diagonal"
            )

    @property
    def events(self) -> list[int]:
        """The steps after which a curvature is due: for the prior, for a mask, and at the end for the fit."""
        masks = self.online.every if self.online else self.steps
        return [t for t in range(1, self.steps + 1) if self.updates_at(t) or t % masks == 0 or t == self.steps]

    def updates_at(self, step: int) -> bool:
        """Whether the prior is updated after this step."""
        return step >= self.burn_in and (self.steps - step) % self.every == 0
