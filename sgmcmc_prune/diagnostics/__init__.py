"""Is the chain at its temperature, and how precise are its averages.

`temperature` holds the formulas, `batch_means` the standard errors, `gradient_noise` measures what heats a chain, and
`verdict` says in words whether a run is off its temperature.
"""

from sgmcmc_prune.diagnostics.batch_means import MIN_BATCHES, BatchMeans, batch_means, batch_means_interval
from sgmcmc_prune.diagnostics.gradient_noise import gradient_variance
from sgmcmc_prune.diagnostics.temperature import (
    KINETIC_FACTORS,
    configurational_temperature,
    excess_temperature,
    kinetic_band,
    kinetic_temperature,
    symplectic_euler_variance_factor,
)
from sgmcmc_prune.diagnostics.verdict import FALSE_ALARM, judge

__all__ = [
    "FALSE_ALARM",
    "KINETIC_FACTORS",
    "MIN_BATCHES",
    "BatchMeans",
    "batch_means",
    "batch_means_interval",
    "configurational_temperature",
    "excess_temperature",
    "gradient_variance",
    "judge",
    "kinetic_band",
    "kinetic_temperature",
    "symplectic_euler_variance_factor",
]
