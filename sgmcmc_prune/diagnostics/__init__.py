"""Is the chain at its temperature, has it converged, and how precise are its averages.

`temperature` holds the formulas, `gradient_noise` measures what heats a chain, and `verdict` says in words whether a
run is off its temperature. `ess` defines effective sample size and R-hat for every parameter at once, `streams` feeds
them draws that do not fit in memory, and `of_run` applies them to a run; `batch_means` holds standard errors.
`inference_data` opens a run in ArviZ.
"""

from sgmcmc_prune.diagnostics.batch_means import MIN_BATCHES, BatchMeans, batch_means, batch_means_interval
from sgmcmc_prune.diagnostics.ess import MIN_DRAWS_ESS, ess, mcse_mean, nested_rhat, rhat
from sgmcmc_prune.diagnostics.gradient_noise import gradient_variance
from sgmcmc_prune.diagnostics.of_run import in_function_space, moving, of_weights, summarise
from sgmcmc_prune.diagnostics.streams import StreamedDraws, from_files
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
    "MIN_DRAWS_ESS",
    "BatchMeans",
    "StreamedDraws",
    "batch_means",
    "batch_means_interval",
    "configurational_temperature",
    "ess",
    "excess_temperature",
    "from_files",
    "gradient_variance",
    "in_function_space",
    "judge",
    "kinetic_band",
    "kinetic_temperature",
    "mcse_mean",
    "moving",
    "nested_rhat",
    "of_weights",
    "rhat",
    "summarise",
    "symplectic_euler_variance_factor",
]
