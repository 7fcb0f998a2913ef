"""What a prior is: a log density and its negative gradient, parameter by parameter, known by name."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor


class Prior(ABC):
    """A prior that factorises over named parameters."""

    @abstractmethod
    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """log p(w), a 0-d float64 tensor (normalised)."""

    @abstractmethod
    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """-d log p(w) / dw for the parameter `name`, shaped like `w`."""
