"""What the baselines share: a recipe, and a loop that holds a mask.

An algorithm is then what differs: when it chooses a mask and from what, or another loss of a minibatch.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.fit import Cost
from sgmcmc_prune.data.batches import MinibatchStream, TrainSet, minibatches
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import Likelihood, mean_nll
from sgmcmc_prune.machine.progress import counted
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks

#: Called after the backward pass of a step, gradients dense: the new mask, or None to keep the one there is.
MaskUpdate = Callable[[int], masks.Mask | None]


@dataclass(frozen=True)
class Recipe:
    """How a point estimate is trained.

    Attributes
    ----------
    optimizer : {"sgd", "adamw"}
    lr : float
        At the start; a cosine takes it to zero.
    momentum : float
        Of SGD.
    weight_decay : float
    steps, batch_size : int
        Length of the training in minibatches of so many examples.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    steps: int = 10_000
    batch_size: int = 128

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise ValueError(f"optimizer is {self.optimizer!r}; choose sgd or adamw")
        if not (0 < self.lr < math.inf and 0 <= self.momentum < 1 and self.weight_decay >= 0):
            raise ValueError(
                f"lr is {self.lr}, momentum {self.momentum} and weight_decay {self.weight_decay}; "
                "they must be > 0, in [0, 1) and >= 0"
            )
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps is {self.steps} and batch_size {self.batch_size}; both must be at least 1")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of all parameters of a model."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(model.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


class Trainer:
    """A network, its minibatches and its optimiser, with a mask that may change and otherwise holds.

    Parameters
    ----------
    model : Module
        Trained in place.
    stream : MinibatchStream
    likelihood : callable
    optimizer : Optimizer
        Of torch, or a sampler.
    steps : int
        Length of the cosine from the learning rate of each group of the optimiser's parameters.
    lr_min : float
        End of the cosine.

    Attributes
    ----------
    step, gradient_evaluations : int
        Done so far.
    num_steps : int
        Length of the present cosine.
    mask : dict of str to bool Tensor, or None
    """

    def __init__(
        self,
        model: nn.Module,
        stream: MinibatchStream,
        likelihood: Likelihood,
        optimizer: torch.optim.Optimizer,
        steps: int,
        lr_min: float = 0.0,
    ) -> None:
        self.model, self.stream, self.likelihood, self.optimizer = model, stream, likelihood, optimizer
        self.parameters = dict(model.named_parameters())
        self.started = time.perf_counter()
        self.step = self.gradient_evaluations = self._begin = 0
        self.rates, self.lr_min, self.num_steps = [group["lr"] for group in optimizer.param_groups], lr_min, steps
        self.mask: masks.Mask | None = None

    @classmethod
    def of_recipe(
        cls, recipe: Recipe, model: nn.Module, train: TrainSet, likelihood: Likelihood, seed: int
    ) -> "Trainer":
        """The loop of a point estimate: the recipe's optimiser and steps, on minibatches of the training data."""
        stream = minibatches(train, recipe.batch_size, seed, 0)
        return cls(model, stream, likelihood, recipe.build(model), recipe.steps)

    @property
    def cost(self) -> Cost:
        """What was spent so far."""
        return Cost(self.gradient_evaluations, time.perf_counter() - self.started)

    def anneal(self, lr: float, steps: int) -> None:
        """Begin a cosine here: from `lr` to `lr_min` in so many steps."""
        self.rates, self.num_steps, self._begin = [lr] * len(self.rates), steps, self.step

    @property
    def cosine(self) -> tuple[list[float], int, int]:
        """The present cosine: the rates at its top, its length, and the step at which it began."""
        return self.rates, self.num_steps, self._begin

    @cosine.setter
    def cosine(self, value: tuple[list[float], int, int]) -> None:
        self.rates, self.num_steps, self._begin = list(value[0]), int(value[1]), int(value[2])

    def run(self, steps: int, update: MaskUpdate | None = None, name: str = "", progress: bool = False) -> float:
        """Take so many steps, and return their mean loss (NaN for none).

        A step whose `update` gives a new mask sets it first, and moves what it keeps.

        Raises
        ------
        RunError
            If the loss is not finite.
        """
        self.model.train()
        total = 0.0
        for _ in counted(range(steps), name, "step", progress):
            total += self._gradient()
            mask = update(self.step) if update is not None else None
            if mask is not None:
                self.set_mask(mask)
            self.move()
            self.step += 1
        return total / steps if steps else math.nan

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """What a step lowers, 0-d: the mean negative log-likelihood of a minibatch."""
        return mean_nll(self.likelihood, self.model(inputs), targets)

    def gradient(self, inputs: Tensor, targets: Tensor) -> float:
        """Set `.grad` to the gradient of the loss; return the loss."""
        loss = self.loss(inputs, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.gradient_evaluations += len(inputs)
        return loss.item()

    def set_mask(self, mask: masks.Mask) -> None:
        """Hold these weights at zero from now on; the optimiser's averages of masked and of new weights are cleared."""
        masks.apply(mask, self.parameters)
        for name, kept in mask.items():
            held = kept if self.mask is None else kept & self.mask[name]
            for average in self.optimizer.state[self.parameters[name]].values():
                if isinstance(average, Tensor) and average.shape == kept.shape:
                    average.masked_fill_(~held, 0)
        self.mask = mask

    def release(self) -> None:
        """Train all weights from now on; the optimiser's averages begin anew."""
        self.mask = None
        for state in self.optimizer.state.values():
            for average in state.values():
                if isinstance(average, Tensor):
                    average.zero_()

    def _gradient(self) -> float:
        loss = self.gradient(*self.stream.batch(self.step))
        if not math.isfinite(loss):
            raise RunError(f"training diverged at step {self.step}: the loss is {loss}. Lower lr")
        return loss

    def move(self) -> None:
        """One step of the optimiser, at its place on the cosine and under the mask."""
        fraction = (self.step - self._begin) / self.num_steps
        for group, lr in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = self.lr_min + (lr - self.lr_min) * (1 + math.cos(math.pi * fraction)) / 2
        if self.mask is not None:
            gradients = {name: self.parameters[name].grad for name in self.mask}
            masks.apply(self.mask, {name: g for name, g in gradients.items() if g is not None})
        self.optimizer.step()
        if self.mask is not None:
            masks.apply(self.mask, self.parameters)


def single_weights(model: nn.Module) -> dict[str, GroupMap]:
    """Group maps of the prunable parameters, each weight a group of its own."""
    return {name: GroupMap("weight", tuple(p.shape)) for name, p in masks.prunable(model).items()}
