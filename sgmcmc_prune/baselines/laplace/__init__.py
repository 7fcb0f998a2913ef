"""SpaM and OPD: prune with the prior and the posterior precision that an online Laplace approximation learned.

Source: Dhahri, Immer, Charpentier, Günnemann, Fortuin, "Shaving weights with Occam's razor: Bayesian sparsification for
neural networks using the marginal likelihood" (NeurIPS 2024, arXiv 2402.15978).
"""

from sgmcmc_prune.baselines.laplace.curvature import Curvature, curvature
from sgmcmc_prune.baselines.laplace.evidence import PriorUpdate, log_evidence, well_determined
from sgmcmc_prune.baselines.laplace.fit import fit
from sgmcmc_prune.baselines.laplace.online import OnlinePruning
from sgmcmc_prune.baselines.laplace.opd import optimal_posterior_damage, remove_units, unit_mask
from sgmcmc_prune.baselines.laplace.posterior import LaplaceFit, LaplacePosterior
from sgmcmc_prune.baselines.laplace.prior import PrecisionPrior
from sgmcmc_prune.baselines.laplace.recipe import Recipe

__all__ = [
    "Curvature",
    "LaplaceFit",
    "LaplacePosterior",
    "OnlinePruning",
    "PrecisionPrior",
    "PriorUpdate",
    "Recipe",
    "curvature",
    "fit",
    "log_evidence",
    "optimal_posterior_damage",
    "remove_units",
    "unit_mask",
    "well_determined",
]
