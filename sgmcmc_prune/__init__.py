"""Stochastic-gradient MCMC with spike-and-slab EM, and pruning by posterior inclusion probabilities."""

__version__ = "0.1.0"
