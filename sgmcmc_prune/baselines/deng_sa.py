r"""Deng et al.'s SGHMC-SA: sample weights, adapt a Laplace-spike prior by stochastic approximation, prune by magnitude.

1. SGHMC on the posterior whose prior holds the smoothed responsibilities: Laplace spike, Gaussian slab. The temperature
   falls from 1/1000 by one factor an epoch.
2. E- and M-steps at the noisy draws, smoothed with weights that decrease; soft EM without the smoothing is worse in the
   paper, and is `EMSettings(kind="soft")` here. Responsibilities are those of the draw itself, without tempering.
3. Every `prune_every` steps (an epoch, in the paper), mask the smallest |w| of every layer up to
   s(t) = S (1 - 2^(-t / half_life)); masked weights are set to zero and move on from there, so that each time chooses
   anew.
4. Mask to S, and sample on under that mask; networks of this part are averaged.

Sampler, prior and EM are the library's own. Departures from the paper: the scale sigma of each layer is not a variable
of its own (the M-step learns the slab variance in its place); all layers are pruned, the first included; the step
follows a cosine.

References
----------
Deng, Zhang, Liang, Lin: An adaptive empirical Bayesian method for sparse deep learning (NeurIPS 2019), algorithm 1.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from sgmcmc_prune.baselines.fit import Fit, Weights
from sgmcmc_prune.baselines.training import Trainer, single_weights
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.data.batches import TrainSet, minibatches
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.machine.progress import counted
from sgmcmc_prune.priors import GroupMap, SpikeSlab
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.spike_slab import smallest_stable_spike
from sgmcmc_prune.pruning import masks
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
    temperature, final_temperature : float
        T at the start and at the end of the adaptive part, T > 0; the paper's factor is 1.005 in 1000 epochs.
    half_life : int
        Steps after which half of the final sparsity is reached; the paper's 0.99^(t / 50) has 3449.
    steps, prune_every, fine_tune_steps : int
        Length of the adaptive part, steps between two of its masks, and length of the part under the last mask.
    draws : int
        Networks that are averaged, evenly spaced in the last part.
    lr, lr_min, momentum, batch_size
        The step follows one cosine over both parts from `lr` to `lr_min` > 0.
    """

    inclusion_rate: float = 0.5
    spike_variance: float = 1e-4
    slab_variance: float = 0.05
    em: EMSettings = field(default_factory=EMSettings)
    temperature: float = 1e-3
    final_temperature: float = 1e-3 * 1.005**-1000
    half_life: int = 3449
    steps: int = 10_000
    prune_every: int = 400
    fine_tune_steps: int = 2_000
    draws: int = 5
    lr: float = 0.1
    lr_min: float = 0.002
    momentum: float = 0.9
    batch_size: int = 128

    def __post_init__(self) -> None:
        if min(self.half_life, self.steps, self.prune_every) < 1 or not 1 <= self.draws <= self.fine_tune_steps:
            raise ValueError(
                f"half_life is {self.half_life}, steps {self.steps}, prune_every {self.prune_every}, draws {self.draws}"
                f" and fine_tune_steps {self.fine_tune_steps}; give at least 1, and draws <= fine_tune_steps"
            )
        if not (0 < self.final_temperature <= self.temperature and 0 < self.lr_min <= self.lr):
            raise ValueError(
                f"temperature is {self.temperature}, final_temperature {self.final_temperature}, lr_min {self.lr_min} "
                f"and lr {self.lr}; give 0 < final_temperature <= temperature and 0 < lr_min <= lr"
            )

    def temperature_at(self, step: int) -> float:
        """T after so many steps of the adaptive part: geometric."""
        return float(self.temperature * (self.final_temperature / self.temperature) ** min(1.0, step / self.steps))


def fit(
    model: nn.Module,
    train: TrainSet,
    sparsity: float,
    recipe: Recipe,
    *,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    progress: bool = False,
) -> Fit:
    """Sample a copy of a network while it is pruned.

    Parameters
    ----------
    model : Module
        Its weights are the start; it is not changed.
    train : TrainSet
        Inputs (n, ...) and targets (n, ...), on the model's device.
    sparsity : float
        S, in [0, 1), of every layer.
    recipe : Recipe
    likelihood : callable
    seed : int
        Of minibatches and noise.
    progress : bool

    Returns
    -------
    Fit
        Its scores are the magnitudes that the last mask was chosen by.

    Raises
    ------
    ValueError
        If the sparsity is out of range, or the spike too narrow for the step.
    RunError
        If the loss is not finite.
    """
    check_sparsity(sparsity)
    model = copy.deepcopy(model)
    trainer, sampler, em = _begin(model, train, recipe, likelihood, seed)
    groups = single_weights(model)
    for begin in counted(range(0, recipe.steps, recipe.prune_every), "sghmc-sa", "mask", progress):
        sampler.configure(temperature=recipe.temperature_at(begin))
        _adapt(trainer, em, recipe, min(begin + recipe.prune_every, recipe.steps))
        now = sparsity * (1 - math.exp2(-trainer.step / recipe.half_life))
        masks.apply(smallest(trainer.parameters, groups, now), trainer.parameters)
    scores, mask = magnitude(trainer.parameters, groups), smallest(trainer.parameters, groups, sparsity)
    trainer.set_mask(mask)
    draws = _fine_tune(trainer, recipe)
    return Fit(model, trainer.cost, draws, scores, groups, mask)


def _begin(
    model: nn.Module, train: TrainSet, recipe: Recipe, likelihood: Likelihood, seed: int
) -> tuple[Trainer, SGHMC, EM]:
    """The loop around SGHMC, the sampler, and the EM that adapts its prior."""
    stream = minibatches(train, recipe.batch_size, seed, 0)
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
    steps = recipe.steps + recipe.fine_tune_steps
    return Trainer(model, stream, likelihood, sampler, steps, recipe.lr_min), sampler, EM(recipe.em, prior, floor)


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


def smallest(parameters: Mapping[str, Tensor], groups: Mapping[str, GroupMap], sparsity: float) -> masks.Mask:
    """A mask without the smallest weights of each layer."""
    return target_sparsity(magnitude(parameters, groups), groups, sparsity, "layerwise")


def _adapt(trainer: Trainer, em: EM, recipe: Recipe, end: int) -> None:
    """SGHMC to a step, with EM iterations in between."""
    while trainer.step < end:
        until = min(end, (trainer.step // recipe.em.every + 1) * recipe.em.every)
        trainer.run(until - trainer.step)
        if recipe.em.due(trainer.step, burn_in=True):
            em.update(trainer.parameters, 1.0)


def _fine_tune(trainer: Trainer, recipe: Recipe) -> list[Weights]:
    """Sample on under the mask; the networks at the ends of equal parts."""
    draws: list[Weights] = []
    for index in range(1, recipe.draws + 1):
        trainer.run(recipe.steps + index * recipe.fine_tune_steps // recipe.draws - trainer.step)
        draws.append({name: p.detach().clone() for name, p in trainer.parameters.items()})
    return draws
