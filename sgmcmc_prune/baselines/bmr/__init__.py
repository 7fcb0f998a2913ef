"""Bayesian model reduction (Markovic, Friston, Kiebel) and the methods that paper compares.

`reduction` is the mathematics: the change of evidence when a Gaussian prior is narrowed. `spike_slab` and `horseshoe`
put hyperpriors on it. `fit` trains networks by variational inference with reductions in between; `draws` applies the
same reduction to the draws of a Markov chain.
"""

from sgmcmc_prune.baselines.bmr.draws import ChainReduction
from sgmcmc_prune.baselines.bmr.fit import fit
from sgmcmc_prune.baselines.bmr.horseshoe import HorseshoeSettings
from sgmcmc_prune.baselines.bmr.recipe import METHODS, Recipe, paper_recipe

__all__ = ["METHODS", "ChainReduction", "HorseshoeSettings", "Recipe", "fit", "paper_recipe"]
