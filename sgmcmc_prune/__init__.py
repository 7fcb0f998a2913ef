"""Stochastic-gradient MCMC with spike-and-slab EM, and pruning by posterior inclusion probabilities.

The public names are loaded when they are asked for; `__init__.pyi` says their types.
"""

from sgmcmc_prune.lazy import attach

__version__ = "0.1.0"

#: Public names, and where they live.
_PLACES = {
    "sample": "sgmcmc_prune.sampling",
    "open_posterior": "sgmcmc_prune.posterior",
    "Posterior": "sgmcmc_prune.posterior",
    "Gaussian": "sgmcmc_prune.likelihoods",
    **dict.fromkeys(("PriorConfig", "PruneConfig", "SamplerConfig", "ScheduleConfig"), "sgmcmc_prune.run.config"),
    "EMSettings": "sgmcmc_prune.priors.em_settings",
}
__getattr__ = attach(__name__, _PLACES)


def __dir__() -> list[str]:
    """Every public name, loaded or not."""
    return sorted([*_PLACES, "__version__"])
