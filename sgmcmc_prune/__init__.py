"""Stochastic-gradient MCMC with spike-and-slab EM, and pruning by posterior inclusion probabilities.

The public names stand in `__init__.pyi`, and are loaded when they are asked for.
"""

from sgmcmc_prune.lazy import attach

__version__ = "0.1.0"
__getattr__, __dir__ = attach(__name__, __file__)
