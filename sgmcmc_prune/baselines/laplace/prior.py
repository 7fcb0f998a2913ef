"""A zero-mean Gaussian prior whose precisions are learned: one for all weights, or per layer, unit or weight."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

PriorStructure = Literal["scalar", "layerwise", "unitwise", "parameterwise"]

#: Precisions stay within e^-20 and e^20, inside what float64 log determinants resolve.
LOG_RANGE = 20.0


class PrecisionPrior:
    r"""N(0, 1 / delta_k), with log delta_k a sum of free parameters:

    - `scalar`: one for all weights;
    - `layerwise`: one per parameter tensor, weights and biases apart;
    - `unitwise`: a_o + b_i for the weight from input i to output o (spatial positions share it); a bias has its own;
    - `parameterwise`: one per weight (automatic relevance determination).

    Parameters
    ----------
    structure : {"scalar", "layerwise", "unitwise", "parameterwise"}
    parameters : mapping of str to Tensor
        The parameters with a prior; only shape and device are used.
    precision : float
        Starting delta > 0 of every weight.

    Attributes
    ----------
    terms : dict of str to list of Tensor
        The free parameters, float64: those whose broadcast sum is the log precision of each parameter tensor.
    stages : list of list of Tensor
        The same, so that those of one stage act on different weights.

    Raises
    ------
    ValueError
        For an unknown structure, or a precision that is not positive.
    """

    def __init__(self, structure: PriorStructure, parameters: Mapping[str, Tensor], precision: float = 1.0) -> None:
        if structure not in get_args(PriorStructure):
            raise ValueError(f"prior is {structure!r}; choose one of {', '.join(get_args(PriorStructure))}")
        if not 0 < precision < float("inf"):
            raise ValueError(f"prior precision is {precision}; it must be finite and > 0")
        self.structure = structure
        self._shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        start = torch.tensor(precision, dtype=torch.float64, device=next(iter(parameters.values())).device).log()
        shared = start.clone().requires_grad_()
        self.terms = {
            name: [shared] if structure == "scalar" else _free(structure, shape, start)
            for name, shape in self._shapes.items()
        }
        lengths = range(max(len(terms) for terms in self.terms.values()))
        self.stages = [[terms[i] for terms in self.terms.values() if len(terms) > i] for i in lengths]
        if structure == "scalar":
            self.stages = [[shared]]

    def log_precision(self) -> dict[str, Tensor]:
        """log delta of every weight, by parameter name, differentiable in the free parameters."""
        return {
            name: torch.stack([t.expand(self._shapes[name]) for t in terms]).sum(0)
            for name, terms in self.terms.items()
        }

    @torch.no_grad()
    def precision(self) -> dict[str, Tensor]:
        """delta of every weight, by parameter name."""
        return {name: value.exp() for name, value in self.log_precision().items()}

    @property
    def free(self) -> list[Tensor]:
        """All free parameters."""
        return [tensor for stage in self.stages for tensor in stage]

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep every free parameter in range."""
        for tensor in self.free:
            tensor.clamp_(-LOG_RANGE, LOG_RANGE)


def _free(structure: PriorStructure, shape: tuple[int, ...], start: Tensor) -> list[Tensor]:
    if structure == "layerwise":
        return [start.clone().requires_grad_()]
    if structure == "parameterwise" or len(shape) == 1:
        return [start.expand(shape).clone().requires_grad_()]
    spatial = (1,) * (len(shape) - 2)
    sides = ((shape[0], 1, *spatial), (1, shape[1], *spatial))
    return [(start / 2).expand(side).clone().requires_grad_() for side in sides]
