"""All methods, by name: one adapter file per family, none of which knows the comparison."""

from itertools import chain

from sgmcmc_prune.compare.method import Method
from sgmcmc_prune.compare.methods import (
    bmr,
    chain_reduction,
    chains,
    expected_loss,
    laplace,
    mixtures,
    point_estimates,
    variational,
)

_FAMILIES = (chains, expected_loss, chain_reduction, point_estimates, mixtures, variational, bmr, laplace)
METHODS: dict[str, Method] = {
    method.name: method for method in chain.from_iterable(family.methods() for family in _FAMILIES)
}
