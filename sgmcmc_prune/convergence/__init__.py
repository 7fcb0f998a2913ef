"""Convergence of every parameter at once: effective sample size and R-hat in PyTorch, batched and streamed.

`statistics` defines them, `streams` feeds them draws that do not fit in memory, `of_run` applies them to a run.
"""

from sgmcmc_prune.convergence.of_run import in_function_space, moving, of_weights, summarise
from sgmcmc_prune.convergence.statistics import MIN_DRAWS_ESS, ess, mcse_mean, nested_rhat, rhat
from sgmcmc_prune.convergence.streams import StreamedDraws, from_files

__all__ = [
    "MIN_DRAWS_ESS",
    "StreamedDraws",
    "ess",
    "from_files",
    "in_function_space",
    "mcse_mean",
    "moving",
    "nested_rhat",
    "of_weights",
    "rhat",
    "summarise",
]
