"""Priors over named parameters."""

from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.gaussian import Gaussian
from sgmcmc_prune.priors.groups import GROUP_KINDS, GroupMap
from sgmcmc_prune.priors.horseshoe import Horseshoe
from sgmcmc_prune.priors.laplace import Laplace
from sgmcmc_prune.priors.spike_slab import SpikeSlab
from sgmcmc_prune.priors.student_t import StudentT

__all__ = ["GROUP_KINDS", "Gaussian", "GroupMap", "Horseshoe", "Laplace", "Prior", "SpikeSlab", "StudentT"]
