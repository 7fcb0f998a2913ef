"""Train a network to be sparsifiable, by maximising the Laplace marginal likelihood over its prior (SpaM).

    found = fit(model, (inputs, labels), Recipe(prior="parameterwise"), seed=0)
    found.scores; found.mask; found.predict(test_inputs)

The weights follow mean NLL + (T / N) / 2 sum_k delta_k theta_k^2, with the temperature of the evidence. Every
`recipe.every` steps the curvature is computed anew, and the precisions delta climb the evidence at
fixed weights. The final scores use a curvature computed at the final weights.

References
----------
Dhahri, Immer, Charpentier, Günnemann, Fortuin: Shaving weights with Occam's razor (NeurIPS 2024).
"""

import copy
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.laplace.blocks import DiagonalBlock
from sgmcmc_prune.baselines.laplace.curvature import Curvature, curvature
from sgmcmc_prune.baselines.laplace.evidence import PriorUpdate
from sgmcmc_prune.baselines.laplace.posterior import LaplaceFit, LaplacePosterior
from sgmcmc_prune.baselines.laplace.prior import PrecisionPrior
from sgmcmc_prune.baselines.laplace.recipe import Recipe
from sgmcmc_prune.baselines.training import Trainer
from sgmcmc_prune.data.batches import WHOLE, TrainSet, chosen, minibatches
from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.models.layers import find_layers
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity


def fit(
    model: nn.Module,
    train: TrainSet,
    recipe: Recipe,
    *,
    likelihood: Likelihood = categorical,
    skip: Collection[str] = (),
    seed: int = 0,
    after_update: Callable[[int, LaplacePosterior, masks.Mask | None], Any] | None = None,
    progress: bool = False,
) -> LaplaceFit:
    r"""Train a copy of a network with the marginal likelihood.

    Parameters
    ----------
    model : Module
        Its weights are the start; it is not changed.
    train : TrainSet
        Inputs (n, ...) and targets (n, ...), on the model's device.
    recipe : Recipe
    likelihood : callable
        (outputs, targets) -> negative log-likelihood of each example.
    skip : collection of str
        Modules without a curvature rule (normalisation, for one): trained under a flat prior, never pruned.
    seed : int
        Of the minibatches and of `monte_carlo`.
    after_update : callable, optional
        Called after each curvature with the number of steps done, the posterior, and the mask that weights are held to.
    progress : bool

    Returns
    -------
    LaplaceFit
        Its scores are the optimal posterior damage of single weights. After online pruning its mask is that of the
        final sparsity. Otherwise weights are masked in the order of their damage as long as the predicted rise of the
        negative log joint stays within the recipe's budget, :math:`\frac{T}{2N} \sum_k \mathrm{OPD}_k \le
        \varepsilon` nats per example: a rule of ours, where the paper sets the sparsity by hand.

    Raises
    ------
    ValueError
        If a layer has no curvature rule, or its curvature is singular; the message names the layer.
    RunError
        If the loss is not finite.
    """
    model = copy.deepcopy(model)
    trainer = _Trainer(model, train, recipe, likelihood, skip, seed)
    history: list[dict[str, Any]] = []
    for step in recipe.events:
        trainer.run(step - trainer.step, name=f"spam, to step {step}", progress=progress)
        posterior = trainer.posterior(trainer.revise())
        history.append(_summary(step, posterior))
        if after_update is not None:
            after_update(step, posterior, trainer.mask)
    scores, groups = posterior.damage(trainer.groups), trainer.groups
    mask = trainer.mask or _own_mask(scores, groups, recipe, trainer.stream.num_data)
    draws = list(posterior.draws(recipe.draws, seed, trainer.mask or {}))
    return LaplaceFit(model, trainer.cost, draws, scores, groups, mask, history, posterior=posterior)


def _summary(step: int, posterior: LaplacePosterior) -> dict[str, Any]:
    determined = sum(float(gamma.sum()) for gamma in posterior.well_determined().values())
    zeros = {name: w != 0 for name, w in posterior.weights.items() if w.ndim >= 2}
    return {
        "step": step,
        "log_evidence": posterior.log_evidence(),
        "effective_parameters": determined,
        "sparsity": masks.sparsity(zeros),
    }


def _own_mask(
    scores: Mapping[str, Tensor], groups: Mapping[str, GroupMap], recipe: Recipe, num_data: int
) -> masks.Mask:
    """By the sparsity of online pruning, or the budget of damage."""
    if recipe.online is not None:
        return target_sparsity(scores, groups, recipe.online.final)
    damage = torch.cat(list(scores.values())).sort().values.cumsum(0) * recipe.temperature / 2
    masked = int((damage <= recipe.damage * num_data).sum())
    return target_sparsity(scores, groups, min(masked, len(damage) - 1) / len(damage))


class _Trainer(Trainer):
    """The shared loop, with a learned prior in the gradient."""

    def __init__(
        self,
        model: nn.Module,
        train: TrainSet,
        recipe: Recipe,
        likelihood: Likelihood,
        skip: Collection[str],
        seed: int,
    ) -> None:
        stream = minibatches(train, recipe.batch_size, seed, 0)
        optimizer = torch.optim.Adam if recipe.optimizer == "adam" else partial(torch.optim.SGD, momentum=0.9)
        built = optimizer(model.parameters(), lr=recipe.lr)
        super().__init__(model, stream, likelihood, built, recipe.steps, recipe.lr_min)
        self.recipe, self.seed, self.train = recipe, seed, train
        names = [name for layer in find_layers(model, skip) for name in (layer.weight, layer.bias) if name]
        self.weights = {name: self.parameters[name] for name in names}
        self.groups = {n: GroupMap("weight", tuple(w.shape)) for n, w in self.weights.items() if w.ndim >= 2}
        self.prior = PrecisionPrior(recipe.prior, self.weights, recipe.precision)
        self.decay = self._decay()
        self.update = PriorUpdate(self.prior, recipe.update, recipe.prior_steps, recipe.prior_lr)
        self._compute = partial(
            curvature, structure=recipe.structure, estimator=recipe.estimator, likelihood=likelihood, skip=skip
        )

    def gradient(self, inputs: Tensor, targets: Tensor) -> float:
        """The gradient of the mean negative log-likelihood, and the prior's."""
        loss = super().gradient(inputs, targets)
        for name, w in self.weights.items():
            if w.grad is not None:
                w.grad.addcmul_(self.decay[name], w.detach())
        return loss

    def revise(self) -> Curvature:
        """Prune and update the prior where that is due now; the curvature used."""
        prune_to = self.recipe.online.sparsity(self.step, self.recipe.steps) if self.recipe.online else None
        found = self.curvature()
        if prune_to is not None:
            self.prune(found, prune_to)
            found = self.curvature()
        if self.recipe.updates_at(self.step):
            self.update_prior(found)
        return found

    def curvature(self) -> Curvature:
        """At the present weights; masked weights have none, which takes them out of the evidence."""
        num_data = self.stream.num_data
        index: Tensor | slice = WHOLE
        if self.recipe.curvature_share < 1:
            count = math.ceil(self.recipe.curvature_share * num_data)
            order = torch.randperm(num_data, generator=seeded_generator("curvature", self.seed, self.step))
            index = order[:count].to(self.train[0].device)
        inputs, targets = chosen(self.train, index, self.seed, 1, self.step)
        found = self._compute(self.model, inputs, targets, seed=self.seed + self.step, num_data=num_data)
        self.gradient_evaluations += found.gradient_evaluations
        blocks = dict(found.blocks)
        for name, kept in (self.mask or {}).items():
            block = blocks[name]
            assert isinstance(block, DiagonalBlock)
            blocks[name] = DiagonalBlock(name, block.curvature * kept)
        return Curvature(blocks, found.log_likelihood, found.gradient_evaluations)

    def update_prior(self, found: Curvature) -> None:
        self.update(found, self.weights, self.recipe.temperature)
        self.decay = self._decay()

    def prune(self, found: Curvature, sparsity: float) -> None:
        mask = target_sparsity(self.posterior(found).damage(self.groups), self.groups, sparsity, previous=self.mask)
        if self.recipe.online is not None and self.recipe.online.mode == "hard":
            self.set_mask(mask)
        else:
            masks.apply(mask, self.weights)

    def posterior(self, found: Curvature) -> LaplacePosterior:
        weights = {name: w.detach() for name, w in self.weights.items()}
        return LaplacePosterior(weights, self.prior, found, self.recipe.temperature)

    def _decay(self) -> dict[str, Tensor]:
        """T delta / N, the prior's pull in units of the mean negative log-likelihood."""
        scale = self.recipe.temperature / self.stream.num_data
        return {n: (scale * delta).to(self.weights[n]) for n, delta in self.prior.precision().items()}
