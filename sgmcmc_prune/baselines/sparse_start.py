r"""A network that is sparse from the first step: each unit's weights fit the inputs that it still has.

A start whose variance is c / n for n inputs keeps the scale of the signal; under a mask that leaves a unit k_j of them,
the signal shrinks with every layer until neither it nor the gradient arrives. With

    w_ji <- w_ji sqrt(n / k_j)

the variance is c / k_j. At 99 % this decides whether a network learns at all.

References
----------
Evci, Ioannou, Keskin, Dauphin: Gradient flow in sparse neural networks and how lottery tickets win (arXiv 2010.03533).
"""

import copy
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.training import Recipe, Trainer, single_weights
from sgmcmc_prune.data.batches import TrainSet, minibatches
from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.likelihoods import Likelihood
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.pruning.masks import Mask, prunable

#: A network at its start and a batch (inputs, targets) under a likelihood to scores of single weights, higher = keep.
Score = Callable[[nn.Module, Tensor, Tensor, Likelihood], Mapping[str, Tensor]]


def fit_by_score(
    model: nn.Module,
    train: TrainSet,
    sparsity: float,
    recipe: Recipe,
    score: Score,
    likelihood: Likelihood,
    *,
    examples: int,
    passes: int,
    seed: int,
    name: str,
    progress: bool,
    rescale: bool,
    gain: float = 1.0,
) -> Fit:
    """Draw a start, prune it once by the scores of one batch, then train what is left.

    Parameters
    ----------
    model : Module
        Gives the architecture, and the start of all parameters that are not pruned; it is not changed.
    train, sparsity, recipe, likelihood
        As of every such method.
    score : callable
    examples, passes : int
        Training examples behind the scores, and the backward passes that each of them takes.
    seed, name, progress, rescale
        As of `train_sparse`.
    gain : float
        As of `variance_scaling`.
    """
    model = copy.deepcopy(model)
    variance_scaling(prunable(model), seed, gain)
    first = minibatches(train, min(examples, len(train[1])), seed, 1).batch(0)
    scores = score(model, *first, likelihood)
    mask = target_sparsity(scores, single_weights(model), sparsity)
    return train_sparse(
        *(model, train, mask, scores, recipe, likelihood),
        spent=passes * len(first[1]),
        seed=seed,
        name=name,
        progress=progress,
        rescale=rescale,
    )


def train_sparse(
    model: nn.Module,
    train: TrainSet,
    mask: Mask,
    scores: Mapping[str, Tensor],
    recipe: Recipe,
    likelihood: Likelihood,
    *,
    spent: int,
    seed: int,
    name: str,
    progress: bool,
    rescale: bool,
) -> Fit:
    """Train a network under a mask that was found at its start.

    Parameters
    ----------
    model : Module
        At its start; trained in place.
    train : TrainSet
    mask : mask
    scores : mapping of str to Tensor, shape (G,)
        Of single weights: what the mask was made from.
    recipe, likelihood
        As of every training.
    spent : int
        Gradient evaluations that finding the mask took.
    seed : int
        Of the minibatches.
    name : str
        Of the progress bar.
    progress : bool
    rescale : bool
        Whether each unit's weights are fitted to the inputs that it still has.
    """
    trainer = Trainer.of_recipe(recipe, model, train, likelihood, seed)
    trainer.gradient_evaluations += spent
    if rescale:
        fit_to_mask(trainer.parameters, mask)
    trainer.set_mask(mask)
    trainer.run(trainer.num_steps, name=name, progress=progress)
    return Fit(model, trainer.cost, (), scores, single_weights(model), mask)


@torch.no_grad()
def fit_to_mask(parameters: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> None:
    """Scale the kept weights of each unit (row) for the inputs that its mask leaves, in place.

    Parameters
    ----------
    parameters : mapping of str to Tensor
    mask : mapping of str to bool Tensor
        True = kept. A unit without inputs stays as it is.
    """
    for name, kept in mask.items():
        rows = kept.flatten(1)
        scale = (rows.shape[1] / rows.sum(1).clamp_min(1)).sqrt()
        parameters[name].mul_(scale.view(-1, *[1] * (kept.ndim - 1)).to(parameters[name]))


@torch.no_grad()
def variance_scaling(parameters: Mapping[str, Tensor], seed: int, gain: float = 1.0) -> None:
    """Draw weights anew, in place: normals of variance gain / fan-in, cut at two standard deviations.

    Parameters
    ----------
    parameters : mapping of str to Tensor, shape (units, ...)
        All dimensions but the first are inputs.
    seed : int
    gain : float
        2 is He's for ReLU.
    """
    generator = seeded_generator("variance-scaling", seed)
    for weight in parameters.values():
        # A normal that is cut at two standard deviations has 0.8796 of its own.
        std = math.sqrt(gain / weight[0].numel()) / 0.87962566103423978
        drawn = torch.nn.init.trunc_normal_(torch.empty(weight.shape), 0, std, -2 * std, 2 * std, generator)
        weight.copy_(drawn)
