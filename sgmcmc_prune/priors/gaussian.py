"""The zero-mean Gaussian prior N(0, v I)."""

import copy
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor

from sgmcmc_prune.priors.base import FusedForm, Prior, total
from sgmcmc_prune.settings import check_positive


class Gaussian(Prior):
    """Independent N(0, variance) for every weight: weight decay 1 / (N variance) in the units of SGD."""

    settings = ("slab_variance",)

    def __init__(self, variance: float) -> None:
        check_positive("prior variance", variance)
        self.variance = variance

    @classmethod
    def configured(cls, settings: Mapping[str, Any], params: Mapping[str, Tensor], **context: Any) -> "Gaussian":
        """With the variance of the slab."""
        return cls(**{"variance": settings["slab_variance"], **context["options"]})

    def cut(self, params: Mapping[str, Tensor], positions: Mapping[str, Tensor]) -> "Gaussian":
        """It holds for any parameters."""
        return copy.copy(self)

    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """Sum over weights of -w^2 / (2 v) - log(2 pi v) / 2."""
        return gaussian_log_density(params.values(), self.variance)

    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """w / v."""
        return w / self.variance

    def hyperparameters(self, name: str) -> dict[str, float]:
        """`variance`, v."""
        return {"variance": self.variance}

    def fused_form(self, name: str) -> FusedForm | None:
        """A precision; a subclass may have another force."""
        return gaussian_form(self.variance) if type(self) is Gaussian else None


@lru_cache(maxsize=1024)
def gaussian_form(variance: float) -> FusedForm:
    """The form of N(0, variance): every step asks for it, and it changes with the variance."""
    return FusedForm("gaussian", {"spike": 1 / variance})


def gaussian_log_density(tensors: Iterable[Tensor], variance: float) -> Tensor:
    """Log density of all entries of the tensors under N(0, variance): a 0-d float64 tensor."""
    return total(-w.double().square() / (2 * variance) - math.log(2 * math.pi * variance) / 2 for w in tensors)
