"""What a fit gives: scores, its own mask, predictions, and its cost."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.bmr.layers import pruned_fraction, unflatten
from sgmcmc_prune.baselines.bmr.posterior import Moments, NetworkPosterior
from sgmcmc_prune.baselines.bmr.recipe import Recipe
from sgmcmc_prune.baselines.bmr.rounds import inclusion_log_odds
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.criteria.signal_to_noise import signal_to_noise
from sgmcmc_prune.predictive.predict import posterior_predictive
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import masks

How = Literal["ensemble", "single"]


class Fitted:
    """A fitted network.

    Attributes
    ----------
    method : str
    posterior : NetworkPosterior
    recipe : Recipe
    gradient_evaluations : int
        Backward passes of one example.
    history : list of dict
        Per round: `round`, `loss` (mean over its steps, nats per example), `pruned_fraction`.
    pruned_log_odds : Tensor, shape (D,)
        Log odds of inclusion of each pruned weight when it was pruned.
    """

    def __init__(self, method: str, model: nn.Module, posterior: NetworkPosterior, recipe: Recipe, seed: int) -> None:
        self.method, self.model, self.posterior, self.recipe, self.seed = method, model, posterior, recipe, seed
        self.gradient_evaluations = 0
        self.history: list[dict[str, Any]] = []
        self.pruned_log_odds = torch.zeros_like(posterior.loc, dtype=torch.float64, requires_grad=False)

    def scores(self) -> dict[str, Tensor]:
        """One score per weight of each prunable parameter, higher = keep; shape (G,), float64.

        flat-map: magnitude. tiered-ff: signal to noise of the weight, shrinkage included. The others: log odds of
        inclusion; a pruned weight has those of the time it was pruned, moved below the kept ones of its layer.
        """
        names = masks.prunable(self.model)
        groups = {name: GroupMap("weight", tuple(p.shape)) for name, p in names.items()}
        if self.method == "flat-map":
            return magnitude(self.moments().mean, groups)
        if self.method == "tiered-ff":
            return signal_to_noise(*self.moments(), groups)
        odds = unflatten(self.posterior.layers, self._log_odds())
        return {name: odds[name].flatten() for name in names}

    def _log_odds(self) -> Tensor:
        recipe, kept = self.recipe, self.posterior.kept
        odds = inclusion_log_odds(self.posterior, recipe.cavi_iterations, recipe.count_pruned)
        for layer in self.posterior.layers:
            now, alive = odds[layer.slice], kept[layer.slice]
            if not bool(alive.all()):
                then = self.pruned_log_odds[layer.slice][~alive]
                floor = now[alive].min() if bool(alive.any()) else then.max()
                now[~alive] = then - (then.max() - floor).clamp_min(0) - 1
        return odds

    def mask(self) -> masks.Mask:
        """The method's own mask of the prunable parameters (True = kept); all kept where it has no stopping rule."""
        kept = unflatten(self.posterior.layers, self.posterior.kept)
        return {name: kept[name].clone() for name in masks.prunable(self.model)}

    def pruned_fraction(self) -> float:
        """Pruned fraction as the paper counts it: biases included, see `layers.pruned_fraction`."""
        return pruned_fraction(self.posterior.layers, self.posterior.kept)

    def moments(self) -> Moments:
        """Posterior mean and variance of every parameter (pruned ones are zero)."""
        return self.posterior.moments(self._generator())

    @torch.no_grad()
    def draws(self, count: int) -> Iterator[dict[str, Tensor]]:
        """Draw networks, by parameter name; the same ones at every call."""
        generator = self._generator()
        for _ in range(count):
            yield self.posterior.sample(generator)

    def predict(self, inputs: Tensor, how: How = "ensemble") -> Tensor:
        """Class probabilities, shape (n, classes), float64.

        Parameters
        ----------
        inputs : Tensor, shape (n, ...)
        how : {"ensemble", "single"}
            Average over `recipe.draws` draws, or the one network of the posterior means.

        Raises
        ------
        ValueError
            If `how` is neither.
        """
        if how not in ("ensemble", "single"):
            raise ValueError(f"how is {how!r}; choose 'ensemble' or 'single'")
        draws = self.draws(self.members) if how == "ensemble" else [self.moments().mean]
        return posterior_predictive(self.model, draws, inputs).probabilities

    @property
    def members(self) -> int:
        """Networks in the ensemble."""
        return 1 if self.posterior.point else self.recipe.draws

    def _generator(self) -> torch.Generator:
        """Noise that training did not use, the same at every call."""
        return torch.Generator(self.posterior.loc.device).manual_seed(self.seed + 2**32)
