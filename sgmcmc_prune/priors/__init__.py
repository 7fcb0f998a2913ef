"""Priors over named parameters."""

from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.gaussian import Gaussian
from sgmcmc_prune.priors.groups import GROUP_KINDS, GroupMap
from sgmcmc_prune.priors.spike_slab import SpikeSlab

__all__ = ["GROUP_KINDS", "Gaussian", "GroupMap", "Prior", "SpikeSlab"]
