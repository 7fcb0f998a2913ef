"""Train a network by stochastic variational inference, with rounds of Bayesian model reduction in between.

    found = fit(model, (inputs, labels), "bmr-spike-slab", Recipe(), seed=0)
    found.scores; found.mask; found.predict(test_inputs)

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

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sgmcmc_prune.baselines.bmr.adabelief import AdaBelief
from sgmcmc_prune.baselines.bmr.horseshoe import HorseshoeSettings
from sgmcmc_prune.baselines.bmr.layers import Layer, layers_of, pruned_fraction, unflatten
from sgmcmc_prune.baselines.bmr.posterior import Moments, NetworkPosterior
from sgmcmc_prune.baselines.bmr.recipe import METHODS, Recipe
from sgmcmc_prune.baselines.bmr.rounds import inclusion_log_odds, reduce_horseshoe, reduce_spike_slab, refuse_empty
from sgmcmc_prune.baselines.bmr.scales import FlatScale, HorseshoeScale, Scale
from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.baselines.training import Trainer, single_weights
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.criteria.signal_to_noise import signal_to_noise
from sgmcmc_prune.data.batches import MinibatchStream, TrainSet, minibatches
from sgmcmc_prune.likelihoods import Likelihood, categorical, mean_nll
from sgmcmc_prune.priors.groups import GroupMap


def fit(
    model: nn.Module,
    train: TrainSet,
    method: str,
    recipe: Recipe,
    *,
    likelihood: Likelihood = categorical,
    seed: int = 0,
    allow_empty: bool = False,
    horseshoe: HorseshoeSettings | None = None,
    after_round: Callable[[dict[str, Any], NetworkPosterior], Any] | None = None,
    progress: bool = False,
) -> Fit:
    """Fit one of the methods that Markovic et al. compare.

    The output layer is never pruned. Biases and normalisation weights are, like all weights of their layer.

    Parameters
    ----------
    model : nn.Module
        Gives the architecture; its own weights are neither used nor changed. It runs in training mode.
    train : TrainSet
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
        Called with the record of each round and the posterior as it stands, before the reduction that may follow.
    progress : bool

    Returns
    -------
    Fit
        Its network has the posterior means; its `history` has, for each round, `round` (from 1), `loss` (mean over its
        steps, nats per example) and `pruned_fraction`. Its scores are those of single weights. flat-map: magnitude;
        tiered-ff: signal to noise of the weight, shrinkage included; the others: log odds of inclusion, where a pruned
        weight has those of the time it was pruned, moved below the kept ones of its layer.

    Raises
    ------
    ValueError
        If the method is unknown, or the model cannot be cut into layers.
    RunError
        If the loss is not finite, or a layer lost all its weights.
    """
    trainer = _begin(method, model, train, recipe, likelihood, seed)
    posterior, reduces = trainer.posterior, method.startswith("bmr")
    pruned_log_odds = torch.zeros_like(posterior.loc, dtype=torch.float64, requires_grad=False)
    trainer.run(recipe.warm_up if reduces else 0, name=method, progress=progress)
    history: list[dict[str, Any]] = []
    for index in range(1, recipe.rounds + 1):
        if method == "bmr-spike-slab":
            reduce_spike_slab(posterior, recipe, pruned_log_odds)
        elif method == "bmr-horseshoe":
            reduce_horseshoe(posterior, horseshoe or HorseshoeSettings(), trainer.generator)
        if not allow_empty:
            refuse_empty(posterior)
        loss = trainer.run(recipe.iterations, name=f"{method}, round {index}", progress=progress)
        pruned = pruned_fraction(posterior.layers, posterior.kept)
        history.append({"round": index, "loss": loss, "pruned_fraction": pruned})
        if after_round is not None:
            after_round(history[-1], posterior)
    moments, groups = posterior.moments(seed), single_weights(model)
    kept = unflatten(posterior.layers, posterior.kept)
    return Fit(
        with_weights(model, moments.mean),
        trainer.cost,
        [] if posterior.point else list(posterior.draws(recipe.draws, seed)),
        _scores(method, posterior, moments, groups, recipe, pruned_log_odds),
        groups,
        {name: kept[name].clone() for name in groups} if reduces else None,
        history,
    )


class PosteriorTrainer(Trainer):
    """The shared loop with another loss, mean NLL + KL / N at one draw of the weights, and AdaBelief at one rate.

    Parameters
    ----------
    model : nn.Module
    posterior : NetworkPosterior
        Trained in place.
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
        super().__init__(model, stream, likelihood, AdaBelief(posterior.parameters, lr), steps=1, lr_min=lr)
        self.posterior, self.generator = posterior, generator

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Minus the evidence bound per example, estimated from a minibatch."""
        outputs = functional_call(self.model, self.posterior.sample(self.generator), (inputs,))
        return mean_nll(self.likelihood, outputs, targets) + self.posterior.divergence() / self.stream.num_data


def _begin(
    method: str, model: nn.Module, train: TrainSet, recipe: Recipe, likelihood: Likelihood, seed: int
) -> PosteriorTrainer:
    """The posterior before its first step, and what trains it."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; choose one of {', '.join(METHODS)}")
    layers = layers_of(model)
    generator = torch.Generator(train[0].device).manual_seed(seed)
    posterior = NetworkPosterior(layers, _scales(method, layers), generator, point=method == "flat-map")
    stream = minibatches(train, recipe.batch_size, seed, 0)
    return PosteriorTrainer(model, posterior, stream, likelihood, recipe.lr, generator)


def _scales(method: str, layers: list[Layer]) -> list[Scale]:
    """One hyperprior per layer; the last has its own."""
    last = layers[-1]
    if method == "tiered-ff":
        return [HorseshoeScale(layer.rows, layer is last) for layer in layers]
    return [FlatScale(layer is last) for layer in layers]


def _scores(
    method: str,
    posterior: NetworkPosterior,
    moments: Moments,
    groups: dict[str, GroupMap],
    recipe: Recipe,
    pruned_log_odds: Tensor,
) -> dict[str, Tensor]:
    """See `fit`; shape (G,), float64."""
    if method == "flat-map":
        return magnitude(moments.mean, groups)
    if method == "tiered-ff":
        return signal_to_noise(*moments, groups)
    found = inclusion_log_odds(posterior, recipe.cavi_iterations, recipe.count_pruned)
    for layer in posterior.layers:
        now, alive = found[layer.slice], posterior.kept[layer.slice]
        if not bool(alive.all()):
            then = pruned_log_odds[layer.slice][~alive]
            floor = now[alive].min() if bool(alive.any()) else then.max()
            now[~alive] = then - (then.max() - floor).clamp_min(0) - 1
    odds = unflatten(posterior.layers, found)
    return {name: odds[name].flatten() for name in groups}


@torch.no_grad()
def with_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """A copy of a network with some weights, by name."""
    model = copy.deepcopy(model)
    for name, weight in weights.items():
        model.get_parameter(name).copy_(weight)
    return model
