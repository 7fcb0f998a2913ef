"""Samplers as `torch.optim.Optimizer`s, one per file."""

from sgmcmc_prune.samplers.base import Sampler
from sgmcmc_prune.samplers.sghmc import SGHMC
from sgmcmc_prune.samplers.sgld import SGLD

__all__ = ["SGHMC", "SGLD", "Sampler"]
