"""Train a network by stochastic variational inference, with rounds of Bayesian model reduction in between.

    fitted = fit(model, (inputs, labels), "bmr-spike-slab", Recipe(), seed=0)
    fitted.scores(); fitted.mask(); fitted.predict(test_inputs)

Every step lowers mean NLL + KL / N on a minibatch, with one draw of the weights. After the warm-up, and between rounds,
a BMR method removes the weights whose absence has the better evidence. Removed weights do not come back. The methods:

================  =====================================================================================
flat-map          point estimate under N(0, s^2), one scale s per layer with a hyperprior (`FlatScale`)
flat-ff           fully factorised Gaussian posterior under the same prior
tiered-ff         the same under a regularised horseshoe per output unit (`HorseshoeScale`)
bmr-spike-slab    flat-ff, and reduction to a spike with a Beta inclusion rate per layer
bmr-horseshoe     flat-ff, and reduction to a regularised horseshoe
================  =====================================================================================
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.baselines.bmr.adabelief import AdaBelief
from sgmcmc_prune.baselines.bmr.fitted import Fitted
from sgmcmc_prune.baselines.bmr.horseshoe import HorseshoeSettings
from sgmcmc_prune.baselines.bmr.layers import Layer, layers_of
from sgmcmc_prune.baselines.bmr.posterior import NetworkPosterior
from sgmcmc_prune.baselines.bmr.recipe import METHODS, Recipe
from sgmcmc_prune.baselines.bmr.rounds import reduce_horseshoe, reduce_spike_slab, refuse_empty
from sgmcmc_prune.baselines.bmr.scales import FlatScale, HorseshoeScale, Scale
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.errors import RunError
from sgmcmc_prune.likelihoods import Likelihood, categorical, mean_nll


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    method: str,
    recipe: Recipe,
    *,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    allow_empty: bool = False,
    horseshoe: HorseshoeSettings | None = None,
    after_round: Callable[[int, Fitted], Any] | None = None,
    progress: bool = False,
) -> Fitted:
    """Fit one of the methods that Markovic et al. compare.

    The output layer is never pruned. Biases and normalisation weights are, like all weights of their layer.

    Parameters
    ----------
    model : nn.Module
        Gives the architecture; its own weights are neither used nor changed. It runs in training mode.
    train : tuple of Tensor
        Inputs (n, ...) and targets (n, ...), on the model's device.
    method : str
        One of `METHODS`.
    recipe : Recipe
    likelihood : Likelihood
    seed : int
        Of starting values, noise and minibatches.
    allow_empty : bool
        Let a reduction remove all weights of a layer (harmless only where a skip connection passes it).
    horseshoe : HorseshoeSettings, optional
        For bmr-horseshoe.
    after_round : callable, optional
        Called with the round (from 1) and the fit as it stands, before the reduction that may follow.
    progress : bool

    Returns
    -------
    Fitted

    Raises
    ------
    ValueError
        If the method is unknown, or the model cannot be cut into layers.
    RunError
        If the loss is not finite, or a layer lost all its weights.
    """
    from tqdm import tqdm  # not at the top: baselines import with torch alone

    fitted, trainer = _begin(method, model, train, recipe, likelihood, seed)
    warm_up = recipe.warm_up if method.startswith("bmr") else 0
    with tqdm(total=warm_up + recipe.rounds * recipe.iterations, desc=method, unit="step", disable=not progress) as bar:
        trainer.run(warm_up, bar)
        for index in range(1, recipe.rounds + 1):
            _reduce(fitted, horseshoe or HorseshoeSettings(), trainer.generator, allow_empty)
            _train_round(fitted, trainer, index, bar)
            if after_round is not None:
                after_round(index, fitted)
    return fitted


def _begin(
    method: str, model: nn.Module, train: tuple[Tensor, Tensor], recipe: Recipe, likelihood: Likelihood, seed: int
) -> tuple[Fitted, "Trainer"]:
    """The fit before its first step, and what trains it."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; choose one of {', '.join(METHODS)}")
    layers = layers_of(model)
    generator = torch.Generator(train[0].device).manual_seed(seed)
    posterior = NetworkPosterior(layers, _scales(method, layers), generator, point=method == "flat-map")
    stream = MinibatchStream(*train, recipe.batch_size, seed, 0)
    trainer = Trainer(model, posterior, stream, likelihood, recipe.lr, generator)
    return Fitted(method, model, posterior, recipe, seed), trainer


def _scales(method: str, layers: list[Layer]) -> list[Scale]:
    """One hyperprior per layer; the last has its own."""
    last = layers[-1]
    if method == "tiered-ff":
        return [HorseshoeScale(layer.rows, layer is last) for layer in layers]
    return [FlatScale(layer is last) for layer in layers]


def _reduce(fitted: Fitted, settings: HorseshoeSettings, generator: torch.Generator, allow_empty: bool) -> None:
    if fitted.method == "bmr-spike-slab":
        reduce_spike_slab(fitted.posterior, fitted.recipe, fitted.pruned_log_odds)
    elif fitted.method == "bmr-horseshoe":
        reduce_horseshoe(fitted.posterior, settings, generator)
    if not allow_empty:
        refuse_empty(fitted.posterior)


def _train_round(fitted: Fitted, trainer: "Trainer", index: int, bar: Any) -> None:
    """Train between two reductions, and record it in the fit."""
    loss = trainer.run(fitted.recipe.iterations, bar)
    fitted.gradient_evaluations = trainer.step * fitted.recipe.batch_size
    fitted.history.append({"round": index, "loss": loss, "pruned_fraction": fitted.pruned_fraction()})


class Trainer:
    """Stochastic variational inference that reductions may interrupt: the optimiser's state is kept.

    Parameters
    ----------
    model : nn.Module
    posterior : NetworkPosterior
    stream : MinibatchStream
    likelihood : Likelihood
    lr : float
    generator : torch.Generator
        Of the noise, on the weights' device.
    """

    def __init__(
        self,
        model: nn.Module,
        posterior: NetworkPosterior,
        stream: MinibatchStream,
        likelihood: Likelihood,
        lr: float,
        generator: torch.Generator,
    ) -> None:
        self.model, self.posterior, self.stream, self.likelihood = model, posterior, stream, likelihood
        self.optimizer = AdaBelief(posterior.parameters, lr)
        self.generator = generator
        self.step = 0

    def run(self, steps: int, bar: Any) -> float:
        """Take so many steps; return their mean loss in nats per example (NaN for none)."""
        self.model.train()
        total = 0.0
        for _ in range(steps):
            inputs, targets = self.stream.batch(self.step)
            outputs = functional_call(self.model, self.posterior.sample(self.generator), (inputs,))
            nll = mean_nll(self.likelihood, outputs, targets)
            loss = nll + self.posterior.divergence() / self.stream.num_data
            value = loss.item()
            if not math.isfinite(value):
                raise RunError(f"training diverged at step {self.step}: the loss is {value}. Lower lr")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += value
            self.step += 1
            bar.update()
        return total / steps if steps else math.nan
