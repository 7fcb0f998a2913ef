"""Variational spike-and-slab networks: convert a network, train its posterior, predict, prune."""

from sgmcmc_prune.baselines.variational.evidence import any_active
from sgmcmc_prune.baselines.variational.families import (
    Structured,
    mean_field,
    ss_ghs,
    ss_gl,
    ss_ig,
    svbnn,
)
from sgmcmc_prune.baselines.variational.inclusion import (
    jantre_inclusion,
    node_inclusion,
    svbnn_inclusion,
    weight_inclusion,
)
from sgmcmc_prune.baselines.variational.ivon import fit_ivon
from sgmcmc_prune.baselines.variational.network import VariationalNetwork, bayesianise
from sgmcmc_prune.baselines.variational.posterior import (
    PREDICTORS,
    GaussianPosterior,
    VariationalFit,
    point_spike,
    predictors,
)
from sgmcmc_prune.baselines.variational.saha import ContinuousSpike, PointSpike
from sgmcmc_prune.baselines.variational.training import LearnedGaussian, Settings, fit

__all__ = [
    "PREDICTORS",
    "ContinuousSpike",
    "GaussianPosterior",
    "LearnedGaussian",
    "PointSpike",
    "Settings",
    "Structured",
    "VariationalFit",
    "VariationalNetwork",
    "any_active",
    "bayesianise",
    "fit",
    "fit_ivon",
    "jantre_inclusion",
    "mean_field",
    "node_inclusion",
    "point_spike",
    "predictors",
    "ss_ghs",
    "ss_gl",
    "ss_ig",
    "svbnn",
    "svbnn_inclusion",
    "weight_inclusion",
]
