"""The samplers' fastest tier on a CPU: kernels in C, built with the package, that touch memory once.

Variational layers use them, too, for what is done to each weight or activation (`factors`).

The random words are those of `noise`, so every tier sees the same noise: normals agree with the reference to 4 ulp, and
within this tier results do not depend on the number of threads.
"""

from sgmcmc_prune.native.factors import (
    factor_gradient,
    factor_statistics,
    local_draw,
    local_gradient,
    spike_gradient,
    spike_sums,
)
from sgmcmc_prune.native.library import NativeUnavailable, load, takes
from sgmcmc_prune.native.step import (
    TensorTable,
    all_finite,
    mixture_sums,
    rademacher,
    settings,
    sghmc_step,
    sgld_step,
    standard_normal,
)

__all__ = [
    "NativeUnavailable",
    "TensorTable",
    "all_finite",
    "factor_gradient",
    "factor_statistics",
    "load",
    "local_draw",
    "local_gradient",
    "mixture_sums",
    "rademacher",
    "settings",
    "sghmc_step",
    "sgld_step",
    "spike_gradient",
    "spike_sums",
    "standard_normal",
    "takes",
]
