"""The Student-t prior: Gaussian weights whose precisions are gamma distributed."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sgmcmc_prune.priors.scale_family import ScaleFamily
from sgmcmc_prune.settings import check_number, check_positive


class StudentT(ScaleFamily):
    r"""w = s t with t of nu degrees of freedom; its variance is s^2 nu / (nu - 2) for nu > 2.

    As a scale mixture, w | u ~ N(0, s^2 / u) with u ~ Gamma(nu / 2, nu / 2), so that EM over the scale alternates

        u_j = (nu + 1) / (nu + w_j^2 / s^2)      (E-step),        s^2 = mean(u_j w_j^2)      (M-step).

    Parameters
    ----------
    scale : float
        s > 0.
    degrees_of_freedom : float
        nu > 0; 1 is the Cauchy density.

    References
    ----------
    Lange, Little, Taylor: Robust statistical modeling using the t distribution (JASA 1989).
    """

    settings = ("slab_variance", "degrees_of_freedom")

    def __init__(self, scale: float, degrees_of_freedom: float = 4.0) -> None:
        super().__init__(scale)
        check_positive("degrees_of_freedom", degrees_of_freedom)
        self.degrees_of_freedom = degrees_of_freedom

    @classmethod
    def configured(cls, settings: Mapping[str, Any], params: Mapping[str, Tensor], **context: Any) -> "StudentT":
        """Starting at the variance of the slab, s^2 nu / (nu - 2)."""
        nu = settings["degrees_of_freedom"]
        check_number("prior.degrees_of_freedom", nu)
        if not nu > 2:
            raise ValueError(f"prior.degrees_of_freedom is {nu}; the variance of a Student-t prior needs more than 2")
        scale = math.sqrt(settings["slab_variance"] * (nu - 2) / nu)
        return cls(**{"scale": scale, "degrees_of_freedom": nu, **context["options"]})

    def hyperparameters(self, name: str) -> dict[str, float]:
        """`scale` of one parameter, s, and `degrees_of_freedom`, nu."""
        return {**super().hyperparameters(name), "degrees_of_freedom": self.degrees_of_freedom}

    def log_densities(self, w: Tensor, scale: float) -> Tensor:
        """log Gamma((nu+1)/2) / (Gamma(nu/2) sqrt(nu pi) s) - (nu+1)/2 log(1 + w^2 / (nu s^2))."""
        nu = self.degrees_of_freedom
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi) - math.log(scale)
        return constant - (nu + 1) / 2 * (w.square() / (nu * scale**2)).log1p()

    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """u w / s^2."""
        scale = self.scale_of(name)
        return self._precision(w, scale) * w / scale**2

    def statistic(self, w: Tensor, scale: float) -> Tensor:
        """u w^2."""
        return self._precision(w, scale) * w.square()

    def scale_from(self, mean_statistic: float) -> float:
        """s = sqrt(mean u w^2)."""
        return math.sqrt(mean_statistic)

    def _precision(self, w: Tensor, scale: float) -> Tensor:
        """E[u | w, s]."""
        nu = self.degrees_of_freedom
        return (nu + 1) / (nu + (w / scale).square())
