r"""RigL: train sparse from the start, moving connections from where weights are small to where gradients are large.

The network starts at random masks with Erdős-Rényi-kernel densities, its weights scaled to them (see `sparse_start`).
Every `every` steps until `stop` of the training,
each layer drops the fraction

    f(t) = alpha / 2 (1 + cos(pi t / T_end))

of its connections, those of the smallest magnitude, and grows as many where the dense gradient is largest. A grown
connection starts at zero. The step in which connections move also trains them; the paper's skips it. With alpha = 0 the
random masks stay: static sparse training, the control.

References
----------
Evci, Gale, Menick, Castro, Elsen: Rigging the lottery: making all tickets winners (ICML 2020); the start is that of
Evci, Ioannou, Keskin, Dauphin (arXiv 2010.03533).
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.sparse_start import fit_to_mask
from sgmcmc_prune.baselines.training import MaskUpdate, Recipe, Trainer, single_weights
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.criteria.random import random
from sgmcmc_prune.data.batches import TrainSet
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.priors import GroupMap
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.decision import target_sparsity


@dataclass(frozen=True)
class Topology:
    """When and how much the connections move; the defaults are the paper's.

    Attributes
    ----------
    every : int
        Steps between two moves.
    drop : float
        alpha, in [0, 1).
    stop : float
        T_end as a fraction of the training, in (0, 1].
    """

    every: int = 100
    drop: float = 0.3
    stop: float = 0.75

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.drop < 1 or not 0 < self.stop <= 1:
            raise ValueError(
                f"every is {self.every}, drop {self.drop} and stop {self.stop}; "
                "give every >= 1, drop in [0, 1) and stop in (0, 1]"
            )

    def fraction(self, step: int, num_steps: int) -> float:
        """Fraction of the connections to move at this step; 0 between moves and after the end."""
        end = self.stop * num_steps
        if step == 0 or step % self.every or step >= end:
            return 0.0
        return self.drop / 2 * (1 + math.cos(math.pi * step / end))


def move_connections(
    weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], mask: Mapping[str, Tensor], fraction: float
) -> masks.Mask:
    """Drop and grow the same number of connections in every layer; chance, not position, decides between equals.

    Parameters
    ----------
    weights, gradients : mapping of str to Tensor
        Weights, and the gradient of the loss with respect to *all* of them, masked ones included.
    mask : mapping of str to bool Tensor
        The present connections.
    fraction : float
        Of each layer's connections, rounded down.

    Returns
    -------
    dict of str to bool Tensor
        As many connections in each layer as before. A dropped one may be grown again at once.
    """
    moved = {}
    for name, kept in mask.items():
        # Connections that were just grown are all zero, and so are the gradients of units that nobody reads.
        shuffle = torch.randperm(kept.numel(), generator=torch.Generator().manual_seed(0)).to(kept.device)
        flat = kept.flatten()[shuffle]
        count = int(fraction * int(flat.sum()))
        size = weights[name].detach().abs().flatten()[shuffle].masked_fill(~flat, math.inf)
        staying = flat.clone()
        staying[size.argsort(stable=True)[:count]] = False
        demand = gradients[name].abs().flatten()[shuffle].masked_fill(staying, -math.inf)
        grown = staying.clone()
        grown[demand.argsort(descending=True, stable=True)[:count]] = True
        result = torch.empty_like(grown)
        result[shuffle] = grown
        moved[name] = result.view_as(kept)
    return moved


def fit(
    model: nn.Module,
    train: TrainSet,
    sparsity: float,
    recipe: Recipe,
    topology: Topology | None = None,
    *,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Train a sparse copy of a network, moving its connections.

    Parameters
    ----------
    model : Module
        Its weights are the start; it is not changed.
    train : TrainSet
        Inputs (n, ...) and targets (n, ...), on the model's device.
    sparsity : float
        Fraction of the prunable weights to mask, in [0, 1); the same at every step.
    recipe : Recipe
    topology : Topology, optional
    likelihood : callable
    seed : int
        Of minibatches and first masks.
    progress : bool

    Returns
    -------
    Fit
        Its scores are magnitudes; masked weights score 0.

    Raises
    ------
    ValueError
        If the sparsity is out of range.
    RunError
        If the loss is not finite.
    """
    model, topology = copy.deepcopy(model), topology or Topology()
    groups = single_weights(model)
    trainer = Trainer.of_recipe(recipe, model, train, likelihood, seed)
    mask = _random_mask(groups, sparsity, seed, train[0].device)
    fit_to_mask(trainer.parameters, mask)
    trainer.set_mask(mask)
    trainer.run(trainer.num_steps, _moves(trainer, topology), "rigl", progress)
    return Fit(model, trainer.cost, (), magnitude(trainer.parameters, groups), groups, trainer.mask)


def _random_mask(groups: Mapping[str, GroupMap], sparsity: float, seed: int, device: torch.device) -> masks.Mask:
    """Erdős-Rényi-kernel densities, at random within each layer."""
    scores = {name: score.to(device) for name, score in random(groups, seed).items()}
    return target_sparsity(scores, groups, sparsity, "erk")


def _moves(trainer: Trainer, topology: Topology) -> MaskUpdate:
    """The mask after each move, from the gradients that the backward pass has left."""

    def update(step: int) -> masks.Mask | None:
        fraction = topology.fraction(step, trainer.num_steps)
        if fraction == 0 or trainer.mask is None:
            return None
        weights = {name: trainer.parameters[name] for name in trainer.mask}
        gradients = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in weights.items()}
        return move_connections(weights, gradients, trainer.mask, fraction)

    return update
