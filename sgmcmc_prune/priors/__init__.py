"""Priors over named parameters: one file each, and EM for those that learn their hyperparameters.

The names that it offers stand in `__init__.pyi`.
"""

from sgmcmc_prune.lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
