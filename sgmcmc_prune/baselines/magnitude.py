"""Magnitude pruning: train dense and mask the smallest weights once, or gradually while training goes on.

Gradual pruning masks by magnitude every `every` steps, to the cubic schedule between two fractions of the training;
masked weights stay zero. What is ranked may be whole units instead, and another score may rank.

References
----------
Han, Pool, Tran, Dally: Learning both weights and connections for efficient neural networks (NeurIPS 2015).
Zhu, Gupta: To prune, or not to prune (arXiv 1710.01878).
Li, Kadav, Durdanovic, Samet, Graf: Pruning filters for efficient ConvNets (ICLR 2017).
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.training import Recipe, Trainer, single_weights
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.data.batches import TrainSet
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.pruning.schedule import cubic_sparsity


@dataclass(frozen=True)
class Gradual:
    """When to prune.

    Attributes
    ----------
    sparsity : float
        At the end, in [0, 1).
    begin, end : float
        Fractions of the training, 0 <= begin < end <= 1.
    every : int
        Steps between two masks.
    allocation : {"global", "layerwise", "erk"}
    """

    sparsity: float
    begin: float = 0.25
    end: float = 0.75
    every: int = 100
    allocation: str = "global"

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end <= 1 or self.every < 1:
            raise ValueError(
                f"begin is {self.begin}, end {self.end} and every {self.every}; "
                "give 0 <= begin < end <= 1 and every >= 1"
            )

    def sparsity_at(self, step: int, steps: int) -> float | None:
        """The sparsity of the mask that is due at a step of so many; None if none is due."""
        begin, end = (round(fraction * steps) for fraction in (self.begin, self.end))
        if not begin <= step <= end or ((step - begin) % self.every and step != end):
            return None
        return cubic_sparsity(step, begin, end, 0.0, self.sparsity)


#: Weights by name and groups to the groups' scores, higher = keep.
Ranking = Callable[[Mapping[str, Tensor], Mapping[str, GroupMap]], Mapping[str, Tensor]]


def fit(
    model: nn.Module,
    train: TrainSet,
    recipe: Recipe,
    gradual: Gradual | None = None,
    *,
    groups: Mapping[str, GroupMap] | None = None,
    ranking: Ranking = magnitude,
    watch: Callable[[Mapping[str, Tensor]], object] | None = None,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Train a copy of a network, dense or under gradual pruning.

    Parameters
    ----------
    model : Module
        Its weights are the start; it is not changed.
    train : TrainSet
        Inputs (n, ...) and targets (n, ...), on the model's device.
    recipe : Recipe
    gradual : Gradual, optional
        Without it the network stays dense, and has no mask: magnitude has no stopping rule.
    groups : mapping of str to GroupMap, optional
        What is pruned together, by parameter name; by default every weight by itself.
    ranking : callable
        What ranks the groups, by default their magnitudes.
    watch : callable, optional
        Shown the parameters at every step, with the gradients of its minibatch: for rankings that need these.
    likelihood : callable
    seed : int
        Of the minibatches.
    progress : bool

    Returns
    -------
    Fit
        Its scores are the ranking's at the end; masked weights have magnitude 0.

    Raises
    ------
    ValueError
        If the sparsity is out of range.
    RunError
        If the loss is not finite.
    """
    model = copy.deepcopy(model)
    groups = single_weights(model) if groups is None else dict(groups)
    trainer = Trainer.of_recipe(recipe, model, train, likelihood, seed)

    def update(step: int) -> masks.Mask | None:
        assert gradual is not None
        if watch is not None:
            watch(trainer.parameters)
        sparsity = gradual.sparsity_at(step, trainer.num_steps)
        if sparsity is None:
            return None
        scores = ranking(trainer.parameters, groups)
        return target_sparsity(scores, groups, sparsity, gradual.allocation, previous=trainer.mask)

    trainer.run(trainer.num_steps, update if gradual else None, recipe.optimizer, progress)
    return Fit(model, trainer.cost, (), ranking(trainer.parameters, groups), groups, trainer.mask)
