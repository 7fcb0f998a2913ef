"""Priors over named parameters: one file each, and EM for those that learn their hyperparameters."""

from typing import TYPE_CHECKING

from sgmcmc_prune.lazy import attach

if TYPE_CHECKING:
    from sgmcmc_prune.priors.base import Prior
    from sgmcmc_prune.priors.em import EM, ScaleEM
    from sgmcmc_prune.priors.em_settings import EMSettings
    from sgmcmc_prune.priors.gaussian import Gaussian
    from sgmcmc_prune.priors.groups import GROUP_KINDS, GroupMap
    from sgmcmc_prune.priors.horseshoe import Horseshoe
    from sgmcmc_prune.priors.laplace import Laplace
    from sgmcmc_prune.priors.spike_slab import SpikeSlab
    from sgmcmc_prune.priors.student_t import StudentT

__all__ = [
    "EM",
    "GROUP_KINDS",
    "EMSettings",
    "Gaussian",
    "GroupMap",
    "Horseshoe",
    "Laplace",
    "Prior",
    "ScaleEM",
    "SpikeSlab",
    "StudentT",
]

_PLACES = {
    "EM": "em",
    "EMSettings": "em_settings",
    "GROUP_KINDS": "groups",
    "Gaussian": "gaussian",
    "GroupMap": "groups",
    "Horseshoe": "horseshoe",
    "Laplace": "laplace",
    "Prior": "base",
    "ScaleEM": "em",
    "SpikeSlab": "spike_slab",
    "StudentT": "student_t",
}
__getattr__ = attach(__name__, {name: f"{__name__}.{place}" for name, place in _PLACES.items()})
