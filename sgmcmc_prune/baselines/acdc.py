r"""AC/DC: train dense and sparse in turns, so that weights that a mask held at zero may come back.

The training begins dense. Then sparse and dense phases of equal length alternate, and a last sparse phase is the
fine-tuning. A sparse phase masks the smallest weights of all layers together, as they are when it begins, and holds
them at zero; a dense phase trains all weights from there, with a momentum that begins at zero. One cosine runs over all
phases.

References
----------
Peste, Iofinova, Vladu, Alistarh: AC/DC: alternating compressed/decompressed training of deep neural networks (NeurIPS
2021), algorithm 1; the shares of the phases are about those of its ImageNet experiments.
"""

import copy
from dataclasses import dataclass

from torch import nn

from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.training import MaskUpdate, Recipe, Trainer, single_weights
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.data.batches import TrainSet
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.allocation import check_sparsity
from sgmcmc_prune.pruning.decision import target_sparsity


@dataclass(frozen=True)
class Phases:
    """When a training is dense, and when sparse.

    Attributes
    ----------
    warm_up, fine_tune : float
        The first dense and the last sparse part, as fractions of the training, both > 0 and together below 1.
    pairs : int
        Sparse phases between them, each with the dense one that follows it.
    """

    warm_up: float = 0.1
    fine_tune: float = 0.15
    pairs: int = 7

    def __post_init__(self) -> None:
        if not (self.warm_up > 0 and self.fine_tune > 0 and self.warm_up + self.fine_tune < 1 and self.pairs >= 1):
            raise ValueError(
                f"warm_up is {self.warm_up}, fine_tune {self.fine_tune} and pairs {self.pairs}; give fractions > 0 "
                "that are below 1 together, and at least one pair"
            )

    def begin(self, steps: int) -> dict[int, bool]:
        """The step at which each phase after the warm-up begins, and whether it is sparse.

        Raises
        ------
        ValueError
            If a phase would have no step.
        """
        first, last = self.warm_up * steps, (1 - self.fine_tune) * steps
        count = 2 * self.pairs
        found = {round(first + (last - first) * i / count): i % 2 == 0 for i in range(count + 1)}
        if len(found) <= count or steps in found:
            raise ValueError(f"{steps} steps are too few for {self.pairs} pairs of phases; train longer, or give fewer")
        return found


def fit(
    model: nn.Module,
    train: TrainSet,
    sparsity: float,
    recipe: Recipe,
    phases: Phases | None = None,
    *,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Train a copy of a network, dense and sparse in turns.

    Parameters
    ----------
    model : Module
        Its weights are the start; it is not changed.
    train : TrainSet
        Inputs (n, ...) and targets (n, ...), on the model's device.
    sparsity : float
        Of the sparse phases, and at the end: fraction of the prunable weights to mask, in [0, 1).
    recipe : Recipe
    phases : Phases, optional
    likelihood : callable
    seed : int
        Of the minibatches.
    progress : bool

    Returns
    -------
    Fit
        Its scores are the magnitudes at the end; masked weights score 0.

    Raises
    ------
    ValueError
        If the sparsity is out of range, or a phase would have no step.
    RunError
        If the loss is not finite.
    """
    check_sparsity(sparsity)
    model = copy.deepcopy(model)
    trainer, groups = Trainer.of_recipe(recipe, model, train, likelihood, seed), single_weights(model)
    trainer.run(trainer.num_steps, _turns(trainer, sparsity, phases or Phases()), "ac/dc", progress)
    return Fit(model, trainer.cost, (), magnitude(trainer.parameters, groups), groups, trainer.mask)


def _turns(trainer: Trainer, sparsity: float, phases: Phases) -> MaskUpdate:
    """The mask with which a sparse phase begins; where a dense one does, the trainer lets go of its mask."""
    begin, groups = phases.begin(trainer.num_steps), single_weights(trainer.model)

    def update(step: int) -> masks.Mask | None:
        sparse = begin.get(step)
        if sparse:
            return target_sparsity(magnitude(trainer.parameters, groups), groups, sparsity)
        if sparse is not None:
            trainer.release()
        return None

    return update
