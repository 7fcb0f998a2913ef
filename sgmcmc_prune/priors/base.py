"""What a prior is: a log density and its negative gradient, parameter by parameter, known by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class FusedForm(NamedTuple):
    """How a compiled kernel computes a prior's force by itself: each weight times a precision.

    Attributes
    ----------
    kind : str
        "flat", 0; "gaussian", `spike`; "held", spike + held (slab - spike); "mixture", the same with the sigmoid of
        `log_odds` + `slope` w^2 instead of what is held.
    numbers : mapping of str to float
        The precisions `spike` and `slab`, and `log_odds` and `slope`, as far as the kind needs them.
    held : Tensor, optional
        Responsibilities or indicators, shaped like the weight.
    """

    kind: str
    numbers: Mapping[str, float]
    held: Tensor | None = None


class Prior(ABC):
    """A prior that factorises over named parameters, given its hyperparameters and latent variables.

    A prior without latent variables, masks or state of its own leaves the last four methods as they are.
    """

    # ruff: noqa: B027

    @abstractmethod
    def log_density(self, params: Mapping[str, Tensor]) -> Tensor:
        """log p(w), a 0-d float64 tensor (normalised)."""

    @abstractmethod
    def potential_gradient(self, name: str, w: Tensor) -> Tensor:
        """-d log p(w) / dw for the parameter `name`, shaped like `w`."""

    def fused_form(self, name: str) -> FusedForm | None:
        """How a compiled kernel computes this prior's force by itself; None: it cannot."""
        return None

    def sample_latent(self, params: Mapping[str, Tensor], step: int, temperature: float = 1.0) -> None:
        """Gibbs step: draw the prior's latent variables given the weights, a pure function of its seed and `step`."""

    def set_mask(self, mask: Mapping[str, Tensor]) -> None:
        """Learn which weights a mask (True = kept) removed."""

    def state_dict(self) -> dict[str, Any]:
        """Everything learned or drawn, for a resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def total(terms: Iterable[Tensor]) -> Tensor:
    """Sum of all entries of some float64 tensors, on whatever devices: a 0-d float64 tensor on the CPU."""
    result = torch.zeros((), dtype=torch.float64)
    for term in terms:
        result = result + term.sum().cpu()
    return result


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless 0 < value < infinity."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be finite and > 0")
