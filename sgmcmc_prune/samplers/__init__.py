"""Samplers as `torch.optim.Optimizer`s: one file, one equation, one reference each.

======================  =====================================================================================
`SGLD`                  overdamped; the only one for a mass matrix that moves with the position
`SGHMC`                 momentum, symplectic Euler; cold, it is `torch.optim.SGD` to the bit
`BAOAB`, `OBABO`        momentum, splittings; BAOAB's positions have no step-size bias on a Gaussian
`SGNHT`                 BAOAB with a thermostat that takes up minibatch noise
`AdaptiveSGHMC`         SGHMC with the learned diagonal of Ke and Fan, corrected or as released
======================  =====================================================================================

All take one gradient a step, in the units of SGD: the same lr and momentum give the same trajectory at temperature 0.
The cyclical variants (cSGLD, cSGHMC) are the same samplers under `schedules.Cyclical`, `explore_temperature=0` for an
exploration without noise. SGLD-SA and SGHMC-SA of Deng et al. (NeurIPS 2019) are the same samplers with the prior
`SpikeSlab(mode="em", spike="laplace")` and an `EM` of kind "stochastic".
"""

from sgmcmc_prune.samplers.adaptive_sghmc import AdaptiveSGHMC
from sgmcmc_prune.samplers.baoab import BAOAB
from sgmcmc_prune.samplers.base import Sampler
from sgmcmc_prune.samplers.momentum import MomentumSampler
from sgmcmc_prune.samplers.obabo import OBABO
from sgmcmc_prune.samplers.sghmc import SGHMC
from sgmcmc_prune.samplers.sgld import SGLD
from sgmcmc_prune.samplers.sgnht import SGNHT

__all__ = ["BAOAB", "OBABO", "SGHMC", "SGLD", "SGNHT", "AdaptiveSGHMC", "MomentumSampler", "Sampler"]
