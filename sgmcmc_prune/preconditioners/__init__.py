"""Diagonal mass matrices M: how they are computed. The samplers use them through three verbs.

The verbs multiply by M^(1/2) (noise), by M^-1 (drift) and by M^-1/2. `RMSprop` and `Layerwise` adapt during burn-in and
are frozen while draws are collected, which leaves the target exact. An M that goes on moving with the position needs
the correction term of Ma, Chen and Fox (2015); `PositionDependent` has it.
"""

from sgmcmc_prune.preconditioners.base import (
    Identity,
    Preconditioner,
    change_mass,
    inverse_mass,
    inverse_sqrt_mass,
    sqrt_mass,
)
from sgmcmc_prune.preconditioners.layerwise import Layerwise
from sgmcmc_prune.preconditioners.position import PositionDependent
from sgmcmc_prune.preconditioners.rmsprop import RMSprop

__all__ = [
    "Identity",
    "Layerwise",
    "PositionDependent",
    "Preconditioner",
    "RMSprop",
    "change_mass",
    "inverse_mass",
    "inverse_sqrt_mass",
    "sqrt_mass",
]
