"""Exact relations between two runs with the same noise: four times the temperature, twice the data.

On a quadratic potential a linear sampler that starts at zero is a linear function of its noise: at 4 T every position
is doubled, and with N and the prior's precision doubled it is divided by sqrt(2). These hold to rounding, so a wrong
power shows at once.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from sgmcmc_prune.certify.replicates import MakeSampler, Replicates
from sgmcmc_prune.certify.statistics import Label, Row, equality_row
from sgmcmc_prune.certify.targets import Gaussian

STEPS = 20


@dataclass(frozen=True)
class ScalingCase:
    """One linear sampler; `momentum` None is a sampler without."""

    sampler: str
    make: MakeSampler
    target: Gaussian
    lr: float
    momentum: float | None = None

    def rows(self, seed: int) -> list[Row]:
        """Ratios of root mean squares."""
        doubled = replace(
            self.target, num_data=2 * self.target.num_data, prior_precision=2 * self.target.prior_precision
        )
        cool = self.size(self.target, 0.5, seed)
        hot = self.size(self.target, 2.0, seed)
        many = self.size(doubled, 0.5, seed)
        label = Label(self.sampler, "identity", self.target.name)
        return [
            equality_row(label, "rms(w) at T = 2 / at T = 0.5", 2.0, hot / cool, 1e-9),
            equality_row(label, "rms(w) with N data / with 2 N", math.sqrt(2), cool / many, 1e-9),
        ]

    def size(self, target: Gaussian, temperature: float, seed: int) -> float:
        """Root mean square of w after twenty steps from zero."""
        momentum: dict[str, Any] = {} if self.momentum is None else {"momentum": self.momentum}
        chains = Replicates(self.make, target, 64, lr=self.lr, temperature=temperature, seed=seed, **momentum)
        chains.sampler.freeze()
        for _ in chains.advance(STEPS):
            pass
        return float(chains.w.square().mean().sqrt())
