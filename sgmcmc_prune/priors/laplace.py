"""The Laplace (double exponential) prior: the Bayesian form of the L1 penalty."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sgmcmc_prune.priors.scale_family import ScaleFamily


class Laplace(ScaleFamily):
    """p(w) = exp(-|w| / b) / (2 b), with variance 2 b^2.

    The scale that maximises p(w | b) is b = mean |w|: EM needs no latent variable.

    References
    ----------
    Park, Casella: The Bayesian lasso (JASA 2008).
    """

    settings = ("slab_variance",)

    @classmethod
    def configured(cls, settings: Mapping[str, Any], params: Mapping[str, Tensor], **context: Any) -> "Laplace":
        """Starting at the variance of the slab, 2 b^2."""
        return cls(**{"scale": math.sqrt(settings["slab_variance"] / 2), **context["options"]})

    def log_densities(self, w: Tensor, scale: float) -> Tensor:
        """-|w| / b - log 2 b."""
        return -w.abs() / scale - math.log(2 * scale)

    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """sign(w) / b; 0 at the kink."""
        return w.sign() / self.scale_of(name)

    def statistic(self, w: Tensor, scale: float) -> Tensor:
        """|w|."""
        return w.abs()

    def scale_from(self, mean_statistic: float) -> float:
        """b = mean |w|."""
        return mean_statistic
