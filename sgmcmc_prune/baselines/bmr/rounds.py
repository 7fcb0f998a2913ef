"""One round of reduction: from the posterior as it stands to fewer weights. Reduction is monotone."""

import torch
from torch import Tensor

from sgmcmc_prune.baselines.bmr import reduction
from sgmcmc_prune.baselines.bmr.horseshoe import HorseshoeSettings, infer_scales
from sgmcmc_prune.baselines.bmr.posterior import NetworkPosterior
from sgmcmc_prune.baselines.bmr.recipe import Recipe
from sgmcmc_prune.baselines.bmr.spike_slab import infer_inclusion
from sgmcmc_prune.errors import RunError

#: A horseshoe scale below this counts as zero.
SMALLEST_GAIN = 1e-6


@torch.no_grad()
def inclusion_log_odds(posterior: NetworkPosterior, iterations: int, count_pruned: bool = False) -> Tensor:
    """Log odds of inclusion of every weight, one inclusion rate per layer; shape (D,), float64.

    A pruned weight is out of the likelihood, its posterior is the prior, and removing it again changes no evidence. It
    counts in the inclusion rate with that delta F = 0, or not at all.
    """
    parts = []
    for layer in posterior.layers:
        part = layer.slice
        delta_f = reduction.diagonal(posterior.loc[part], posterior.variance[part], 1.0)
        kept = posterior.kept[part]
        if count_pruned:
            delta_f, kept = delta_f * kept, torch.ones_like(kept)
        parts.append(infer_inclusion(delta_f, kept, iterations=iterations).log_odds)
    return torch.cat(parts)


@torch.no_grad()
def reduce_spike_slab(posterior: NetworkPosterior, recipe: Recipe, pruned_log_odds: Tensor) -> None:
    """Prune every hidden weight whose log odds of inclusion are negative.

    Parameters
    ----------
    posterior : NetworkPosterior
        Its `gain` is changed in place.
    recipe : Recipe
        Its `cavi_iterations` and `count_pruned`.
    pruned_log_odds : Tensor, shape (D,)
        Receives the log odds of the newly pruned, in place.
    """
    odds = inclusion_log_odds(posterior, recipe.cavi_iterations, recipe.count_pruned)
    pruned = posterior.kept & (odds < 0)
    pruned[posterior.layers[-1].slice] = False
    posterior.gain[pruned] = 0
    pruned_log_odds[pruned] = odds[pruned]


@torch.no_grad()
def reduce_horseshoe(posterior: NetworkPosterior, settings: HorseshoeSettings, generator: torch.Generator) -> None:
    r"""Multiply the gains of hidden weights by their horseshoe scales, and carry the posterior over.

    The reduced posterior of w~ under N(0, gamma^2), divided by gamma, is the posterior of a standardised weight again.
    A gain below 1e-6 becomes 0: the weight is pruned.
    """
    for layer in posterior.layers[:-1]:
        part = layer.slice
        mean, variance = posterior.loc[part], posterior.variance[part].clamp_max(1)
        with torch.enable_grad():
            gamma = infer_scales(layer, mean, variance, settings, generator)
        new_mean, new_variance = reduction.diagonal_posterior(mean, variance, 1.0, gamma.square())
        posterior.loc[part] = (new_mean / gamma).to(mean)
        posterior.rho[part] = (new_variance.sqrt() / gamma).expm1().log().to(mean)
        gain = posterior.gain[part] * gamma
        posterior.gain[part] = torch.where(gain < SMALLEST_GAIN, 0, gain).to(mean)


def refuse_empty(posterior: NetworkPosterior) -> None:
    """RunError if a layer has no weight left."""
    for layer in posterior.layers:
        if not bool(posterior.kept[layer.slice].any()):
            raise RunError(
                f"the reduction removed all {layer.size} weights of layer {layer.name!r}; train longer before it, or "
                "pass allow_empty=True to accept an empty layer"
            )
