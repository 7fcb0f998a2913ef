"""A cyclical run on two modes: all chains start in one mode, and the draws of the cycles must have both weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgmcmc_prune.certify.mixtures import Bimodal
from sgmcmc_prune.certify.replicates import MakeSampler, Replicates
from sgmcmc_prune.certify.statistics import Label, Row, mean_row
from sgmcmc_prune.chains.schedules import Cyclical

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CyclicalCase:
    """One sampler under `Cyclical`; its bias at the steps of a cycle is extrapolated as in `extrapolation`.

    Parameters
    ----------
    sampler : str
        For the table.
    make : callable
        The sampler's class.
    momentum : float or None
        At the largest step.
    lr : float
        The largest step; cycles end at a third of it.
    target : Bimodal
    replicates : int
    """

    sampler: str
    make: MakeSampler
    momentum: float | None
    lr: float
    target: Bimodal = field(default_factory=Bimodal)
    replicates: int = 8192

    @property
    def label(self) -> Label:
        """First columns of the rows."""
        return Label(f"cyclical {self.sampler}", "identity", self.target.name)

    def rows(self, seed: int) -> list[Row]:
        """One row for each moment, from the draws of all cycles."""
        extrapolated = 2 * self.measure(2, seed + 2) - self.measure(1, seed + 1)
        moments: Sequence = self.target.moments
        return [mean_row(self.label, f"{m.name}, l -> 0", m.exact, extrapolated[:, i]) for i, m in enumerate(moments)]

    def schedule(self, halving: int) -> Cyclical:
        """Burn-in and two cycles; half the step takes twice as many."""
        lr = self.lr / halving
        return Cyclical(
            lr=lr,
            lr_explore=lr,
            lr_min=lr / 3,
            momentum=self.momentum or 0.0,
            temperature=1.0,
            burn_in=200 * halving,
            cycles=2,
            explore=100 * halving,
            sample=60 * halving,
            relax=20 * halving,
            thin=10 * halving,
        )

    def measure(self, halving: int, seed: int) -> Array:
        """Moments averaged over the draws of each replicate, shape (R, moments)."""
        rng, schedule = np.random.default_rng(seed), self.schedule(halving)
        momentum: dict[str, Any] = {} if self.momentum is None else {"momentum": self.momentum}
        chains = Replicates(self.make, self.target, self.replicates, lr=schedule.lr, seed=seed, **momentum)
        thermal = (self.target.num_data * schedule.lr) ** -0.5
        positions = self.target.draw(rng, self.replicates)
        chains.place(positions, thermal * rng.standard_normal(positions.shape))
        kept, steps = [], chains.advance(schedule.num_steps)
        for t in range(schedule.num_steps):
            plan = schedule(t)
            changing = {"momentum": plan.momentum} if momentum else {}
            chains.sampler.configure(lr=plan.lr, temperature=plan.temperature, **changing)
            next(steps)
            if plan.collect:
                kept.append(np.stack([moment.of(chains.w.numpy()) for moment in self.target.moments], axis=1))
        return np.mean(kept, axis=0)
