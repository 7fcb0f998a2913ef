r"""Deng et al.'s SGHMC-SA: sample weights, adapt a Laplace-spike prior by stochastic approximation, prune by magnitude.

1. SGHMC on the posterior whose prior holds the smoothed responsibilities: Laplace spike, Gaussian slab.
2. E- and M-steps at the noisy draws, smoothed with weights that decrease; soft EM without the smoothing is worse in the
   paper, and is `EMSettings(kind="soft")` here.
3. At each epoch's end, mask the smallest |w| of every layer up to s(t) = S (1 - 2^(-t / half_life)); masked weights are
   set to zero and move on from there, so that each epoch chooses anew.

Sampler, prior and EM are the library's own. Departures from the paper: the scale sigma of each layer is not a variable
of its own (the M-step learns the slab variance in its place); one temperature, not annealed; all layers are pruned, the
first included.

References
----------
Deng, Zhang, Liang, Lin: An adaptive empirical Bayesian method for sparse deep learning (NeurIPS 2019), algorithm 1.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from sgmcmc_prune.baselines.training import Trained, Trainer, counted, single_weights
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.em import EM
from sgmcmc_prune.em_settings import EMSettings
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.priors import GroupMap, SpikeSlab
from sgmcmc_prune.priors.spike_slab import smallest_stable_spike
from sgmcmc_prune.pruning import criteria, masks
from sgmcmc_prune.pruning.allocation import check_sparsity
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.samplers import SGHMC


@dataclass(frozen=True)
class Recipe:
    """Sampling, prior and pruning.

    Attributes
    ----------
    inclusion_rate, spike_variance, slab_variance : float
        Starting values; the spike's variance stays.
    em : EMSettings
    temperature : float
        T > 0.
    half_life : int
        Steps after which half of the final sparsity is reached; the paper's 0.99^(t / 50) has 3449.
    epochs, draws : int
        Length, and how many of the last epochs end with a draw that is averaged.
    lr, lr_min, momentum, batch_size
        The step follows one cosine from `lr` to `lr_min` > 0.
    """

    inclusion_rate: float = 0.5
    spike_variance: float = 1e-4
    slab_variance: float = 0.05
    em: EMSettings = field(default_factory=EMSettings)
    temperature: float = 1.0
    half_life: int = 3449
    epochs: int = 30
    draws: int = 5
    lr: float = 0.1
    lr_min: float = 0.01
    momentum: float = 0.9
    batch_size: int = 128

    def __post_init__(self) -> None:
        if self.half_life < 1 or not 1 <= self.draws <= self.epochs:
            raise ValueError(
                f"half_life is {self.half_life}, draws {self.draws} and epochs {self.epochs}; "
                "give half_life >= 1 and 1 <= draws <= epochs"
            )
        if not (self.temperature > 0 and 0 < self.lr_min <= self.lr):
            raise ValueError(
                f"temperature is {self.temperature}, lr_min {self.lr_min} and lr {self.lr}; give temperature > 0 and "
                "0 < lr_min <= lr"
            )


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    sparsity: float,
    recipe: Recipe,
    *,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    progress: bool = False,
) -> Trained:
    """Sample a copy of a network while it is pruned.

    Parameters
    ----------
    model : Module
        Its weights are the start; it is not changed.
    train : tuple of Tensor
        Inputs (n, ...) and targets (n, ...), on the model's device.
    sparsity : float
        S, in [0, 1), of every layer; the last epoch and every draw have it exactly.
    recipe : Recipe
    likelihood : callable
    seed : int
        Of minibatches and noise.
    progress : bool

    Returns
    -------
    Trained
        Its scores are magnitudes at the end; each draw of the ensemble has its own mask of that sparsity.

    Raises
    ------
    ValueError
        If the sparsity is out of range, or the spike too narrow for the step.
    RunError
        If the loss is not finite.
    """
    check_sparsity(sparsity)
    model = copy.deepcopy(model)
    trainer, em = _begin(model, train, recipe, likelihood, seed)
    groups = single_weights(model)
    draws: list[Mapping[str, Tensor]] = []
    mask: masks.Mask = {}
    for epoch in counted(range(recipe.epochs), "sghmc-sa", "epoch", progress):
        _epoch(trainer, em, recipe)
        drawn = epoch >= recipe.epochs - recipe.draws
        target = sparsity if drawn else sparsity * (1 - math.exp2(-trainer.step / recipe.half_life))
        mask = _prune(trainer, groups, target)
        if drawn:
            draws.append({name: p.detach().clone() for name, p in trainer.parameters.items()})
    scores = criteria.magnitude(trainer.parameters, groups)
    return Trained("sghmc-sa", model, scores, mask, trainer.gradient_evaluations, draws)


def _begin(
    model: nn.Module, train: tuple[Tensor, Tensor], recipe: Recipe, likelihood: Likelihood, seed: int
) -> tuple[Trainer, EM]:
    """The loop around SGHMC, and the EM that adapts its prior."""
    stream = MinibatchStream(*train, recipe.batch_size, seed, 0)
    prior, floor = _prior(model, recipe, stream.num_data)
    sampler = SGHMC(
        model.named_parameters(),
        lr=recipe.lr,
        num_data=stream.num_data,
        momentum=recipe.momentum,
        temperature=recipe.temperature,
        prior=prior,
        seed=seed,
    )
    return Trainer(model, stream, likelihood, sampler, recipe.epochs, recipe.lr_min), EM(recipe.em, prior, floor)


def _prior(model: nn.Module, recipe: Recipe, num_data: int) -> tuple[SpikeSlab, float]:
    """The prior, and the narrowest spike that the step can follow."""
    floor = smallest_stable_spike(recipe.lr, num_data, 1.0, recipe.momentum)
    if recipe.spike_variance < floor:
        raise ValueError(
            f"spike_variance {recipe.spike_variance:.3g} is too narrow for the step {recipe.lr:g}: under {floor:.3g} "
            "a step leaps over the spike; widen it or lower lr"
        )
    prior = SpikeSlab(
        dict(model.named_parameters()),
        mode="em",
        spike="laplace",
        inclusion_rate=recipe.inclusion_rate,
        spike_variance=recipe.spike_variance,
        slab_variance=recipe.slab_variance,
    )
    return prior, floor


def _epoch(trainer: Trainer, em: EM, recipe: Recipe) -> None:
    """One epoch of SGHMC with EM iterations in between."""
    end = trainer.step + trainer.steps_per_epoch
    while trainer.step < end:
        until = min(end, (trainer.step // recipe.em.every + 1) * recipe.em.every)
        trainer.run(until - trainer.step)
        if recipe.em.due(trainer.step, burn_in=True):
            em.update(trainer.parameters, recipe.temperature)


def _prune(trainer: Trainer, groups: Mapping[str, GroupMap], sparsity: float) -> masks.Mask:
    """Set the smallest weights of each layer to zero, once."""
    mask = target_sparsity(criteria.magnitude(trainer.parameters, groups), groups, sparsity, "layerwise")
    masks.apply(mask, trainer.parameters)
    return mask
