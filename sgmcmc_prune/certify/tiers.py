"""Two implementations of one update rule, on one target with one stream of noise: do they take the same steps?

A faster implementation is certified here once, against its reference, and inherits the rows of the reference. Two
samplers that coincide for some settings are compared in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sgmcmc_prune.certify.replicates import MakeSampler, Replicates
from sgmcmc_prune.certify.statistics import Label, Row, equality_row
from sgmcmc_prune.certify.targets import Target

STEPS = 20
#: Parameters over which the rows are spread: tiers differ in how they walk over tensors.
TENSORS = 5


@dataclass(frozen=True)
class TierCase:
    """An implementation and its reference.

    Parameters
    ----------
    sampler : str
        For the table: "X = Y".
    make, reference : callable
        The two samplers.
    target : Target
    settings, reference_settings : mapping
        Their settings.
    dtype : torch.dtype
    device : str
    tolerance : float
        Largest difference of any position after twenty steps, in units of the root mean square.
    """

    sampler: str
    make: MakeSampler
    reference: MakeSampler
    target: Target
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference_settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    tolerance: float = 1e-9

    def rows(self, seed: int) -> list[Row]:
        """One row: the largest difference."""
        found = self._positions(self.make, self.settings, seed)
        expected = self._positions(self.reference, self.reference_settings, seed)
        difference = float(np.abs(found - expected).max() / np.sqrt(np.square(expected).mean()))
        label = Label(self.sampler, "diagonal", self.target.name)
        return [equality_row(label, "largest difference / rms(w)", 0.0, difference, self.tolerance)]

    def _positions(self, make: MakeSampler, settings: Mapping[str, Any], seed: int) -> np.ndarray:
        mass = np.linspace(1.0, 2.0, self.target.dimension)
        chains = Replicates(make, self.target, 64, TENSORS, mass, self.dtype, self.device, seed=seed, **settings)
        chains.sampler.freeze()
        for _ in chains.advance(STEPS):
            pass
        return chains.positions
