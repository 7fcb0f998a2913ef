r"""Sun, Song and Liang's consistent sparse deep learning: a point estimate under a marginal Gaussian mixture prior.

Every weight has the prior lambda N(0, v1) + (1 - lambda) N(0, v0) with the indicator summed out, at fixed and very
small lambda and v0:

1. SGD with momentum under N(0, v1) alone, for the first part of the training;
2. the same under the mixture: each weight decays at its expected precision r / v1 + (1 - r) / v0;
3. prune where r(w) < 1/2, which is |w| < w*, w*^2 = 2 log((1 - lambda) / lambda sqrt(v1 / v0)) / (1 / v0 - 1 / v1);
4. train what is left under N(0, v1), briefly.

The sparsity follows from lambda and v0. SGD is the sampler at T = 0, so the prior is the library's own, on weights with
two or more dimensions; biases and normalisation are N(0, v1) throughout, where the authors' code has the mixture too.

References
----------
Sun, Song, Liang: Consistent sparse deep learning: theory and computation (JASA 2022); settings from its released code.
"""

import copy
import math
from dataclasses import dataclass

from torch import Tensor, nn

from sgmcmc_prune.baselines.training import Trained, Trainer
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.likelihoods import Likelihood, categorical
from sgmcmc_prune.priors import Gaussian, SpikeSlab
from sgmcmc_prune.priors.spike_slab import check_hyperparameters, smallest_stable_spike
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.samplers import SGHMC


@dataclass(frozen=True)
class Recipe:
    """Training and prior; the prior's defaults are the authors' for ResNet-20 on CIFAR-10 at 10 % density.

    Attributes
    ----------
    inclusion_rate, spike_variance, slab_variance : float
        lambda, v0 and v1.
    epochs, plain_epochs, fine_tune_epochs : int
        Of stages 1 and 2 together, of stage 1, and of stage 4.
    lr, fine_tune_lr : float
        At the start; the first is annealed by one cosine over stages 1 and 2.
    momentum : float
    batch_size : int
    """

    inclusion_rate: float = 1e-6
    spike_variance: float = 4e-5
    slab_variance: float = 0.04
    epochs: int = 30
    plain_epochs: int = 15
    fine_tune_epochs: int = 1
    lr: float = 0.1
    fine_tune_lr: float = 1e-3
    momentum: float = 0.9
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_hyperparameters(self.inclusion_rate, self.spike_variance, self.slab_variance)
        if not 0 < self.plain_epochs < self.epochs or self.fine_tune_epochs < 1:
            raise ValueError(
                f"plain_epochs is {self.plain_epochs} of {self.epochs} epochs and fine_tune_epochs "
                f"{self.fine_tune_epochs}; give 0 < plain_epochs < epochs and at least 1"
            )


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    recipe: Recipe,
    *,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    allow_empty: bool = False,
    progress: bool = False,
) -> Trained:
    """Train a copy of a network under the mixture, prune it and fine-tune it.

    Parameters
    ----------
    model : Module
        Its weights are the start; it is not changed.
    train : tuple of Tensor
        Inputs (n, ...) and targets (n, ...), on the model's device.
    recipe : Recipe
    likelihood : callable
    seed : int
        Of the minibatches.
    allow_empty : bool
        Let a layer lose all its weights.
    progress : bool

    Returns
    -------
    Trained
        Its scores are the log-odds of inclusion before fine-tuning.

    Raises
    ------
    ValueError
        If the spike is too narrow for the step, or a layer lost all its weights.
    RunError
        If the loss is not finite.
    """
    model = copy.deepcopy(model)
    stream = MinibatchStream(*train, recipe.batch_size, seed, 0)
    mixture = _mixture(model, recipe)
    _check_stable(recipe, stream.num_data)
    spent = _train(model, stream, likelihood, recipe, mixture, progress)
    odds, mask = _decide(model, mixture)
    if not allow_empty:
        _refuse_empty(mask)
    spent += _fine_tune(model, stream, likelihood, recipe, mask, progress)
    return Trained("sun-mixture", model, odds, mask, spent)


def _train(
    model: nn.Module,
    stream: MinibatchStream,
    likelihood: Likelihood,
    recipe: Recipe,
    mixture: SpikeSlab,
    progress: bool,
) -> int:
    """Stages 1 and 2; returns their gradient evaluations."""
    sampler = _sgd(model, recipe, recipe.lr, stream.num_data)
    # A sampler's step must stay above zero, even at the end of a cosine.
    trainer = Trainer(model, stream, likelihood, sampler, recipe.epochs, lr_min=1e-3 * recipe.lr)
    plain_steps = recipe.plain_epochs * trainer.steps_per_epoch
    trainer.run(plain_steps, name="sun-mixture: plain", progress=progress)
    sampler.prior = mixture
    trainer.run(trainer.num_steps - plain_steps, name="sun-mixture: mixture", progress=progress)
    return trainer.gradient_evaluations


def _decide(model: nn.Module, mixture: SpikeSlab) -> tuple[dict[str, Tensor], masks.Mask]:
    """Stage 3: the log-odds of inclusion, and a mask of what is likelier in the slab."""
    parameters = dict(model.named_parameters())
    odds = {name: mixture.log_odds(name, parameters[name]).double() for name in mixture.layers}
    return odds, {name: mixture.layers[name].groups.expand(score >= 0).clone() for name, score in odds.items()}


def _fine_tune(
    model: nn.Module,
    stream: MinibatchStream,
    likelihood: Likelihood,
    recipe: Recipe,
    mask: masks.Mask,
    progress: bool,
) -> int:
    """Stage 4; returns its gradient evaluations."""
    lr = recipe.fine_tune_lr
    sampler = _sgd(model, recipe, lr, stream.num_data)
    trainer = Trainer(model, stream, likelihood, sampler, recipe.fine_tune_epochs, lr_min=lr)
    trainer.set_mask(mask)
    trainer.run(trainer.num_steps, name="sun-mixture: fine-tune", progress=progress)
    return trainer.gradient_evaluations


def _sgd(model: nn.Module, recipe: Recipe, lr: float, num_data: int) -> SGHMC:
    """SGD with momentum is the sampler at T = 0; under N(0, v1)."""
    return SGHMC(
        model.named_parameters(),
        lr=lr,
        num_data=num_data,
        momentum=recipe.momentum,
        temperature=0.0,
        prior=Gaussian(recipe.slab_variance),
    )


def _mixture(model: nn.Module, recipe: Recipe) -> SpikeSlab:
    return SpikeSlab(
        dict(model.named_parameters()),
        mode="marginal",
        inclusion_rate=recipe.inclusion_rate,
        spike_variance=recipe.spike_variance,
        slab_variance=recipe.slab_variance,
        dense_variance=recipe.slab_variance,
    )


def _check_stable(recipe: Recipe, num_data: int) -> None:
    """The spike meets the learning rate that the cosine has reached when the mixture begins."""
    lr = recipe.lr * (1 + math.cos(math.pi * recipe.plain_epochs / recipe.epochs)) / 2
    floor = smallest_stable_spike(lr, num_data, 1.0, recipe.momentum)
    if recipe.spike_variance < floor:
        raise ValueError(
            f"spike_variance {recipe.spike_variance:.3g} is too narrow for the step {lr:.3g} where the mixture begins: "
            f"SGD would be unstable under {floor:.3g}; widen the spike, lower lr or lengthen plain_epochs"
        )


def _refuse_empty(mask: masks.Mask) -> None:
    for name, kept in mask.items():
        if not bool(kept.any()):
            raise ValueError(
                f"all weights of {name!r} fell into the spike; raise inclusion_rate or spike_variance, or pass "
                "allow_empty=True"
            )
