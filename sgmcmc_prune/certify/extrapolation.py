r"""Posteriors on which a sampler is exact only as its step goes to zero: the bias extrapolated away, its order tested.

At a fixed momentum the mean of a statistic at step l is E(l) = E(0) + c l + O(l^2) for every sampler here (c may
vanish), so 2 E(l / 2) - E(l) has a bias of order l^2, which a short step takes under the standard error. So has
(E(l) - E(l / 2)) - 2 (E(l / 2) - E(l / 4)), whose limit is zero: that the bias falls as l is a test of its mean.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgmcmc_prune.certify.replicates import MakeSampler, Replicates
from sgmcmc_prune.certify.statistics import Label, Row, deviate_row, mean_row
from sgmcmc_prune.certify.targets import Known

Array = NDArray[np.float64]
Mass = Literal["identity", "diagonal", "adapt"]


@dataclass(frozen=True)
class SmallStepCase:
    """One sampler, one posterior with known moments: a run at step l, and one twice as long at l / 2.

    Parameters
    ----------
    sampler, preconditioner : str
        For the table.
    make : callable
        The sampler's class.
    target : Known
    lr : float
        l.
    settings : mapping
        More settings of the sampler, such as its momentum.
    mass : "identity", "diagonal" or "adapt"
        A diagonal mass matrix that was given, or one that the sampler learns in the first half of the burn-in.
    burn_in, steps : int
        At step l; they double when the step halves.
    replicates, tensors : int
        As for `Replicates`.
    gradient_variance : float
        Of the noise added to gradients.
    order : bool
        A run at l / 4 too, and a row that tests the order of the bias in the mean of all moments.
    must_fail : bool
        The sampler is known to be wrong.
    """

    sampler: str
    preconditioner: str
    make: MakeSampler
    target: Known
    lr: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    mass: Mass = "identity"
    burn_in: int = 60
    steps: int = 120
    replicates: int = 1024
    tensors: int = 1
    gradient_variance: float = 0.0
    order: bool = False
    must_fail: bool = False

    @property
    def label(self) -> Label:
        """First columns of the rows."""
        noisy = ", noisy gradients" if self.gradient_variance else ""
        return Label(self.sampler, self.preconditioner, self.target.name + noisy, self.must_fail)

    def rows(self, seed: int) -> list[Row]:
        """One row for each moment of the target, and one for the order."""
        runs = [self.measure(halving, seed + halving) for halving in ((1, 2, 4) if self.order else (1, 2))]
        rows = []
        for i, moment in enumerate(self.target.moments):
            row = mean_row(self.label, f"{moment.name}, l -> 0", moment.exact, 2 * runs[1][:, i] - runs[0][:, i])
            error = math.hypot(row.standard_error, moment.error)
            rows.append(deviate_row(self.label, row.statistic, moment.exact, row.estimate, error, len(runs[0]) - 1))
        if self.order:
            coarse, middle, fine = (run.mean(1) for run in runs)
            rows.append(mean_row(self.label, "bias is of order l: its contrast", 0.0, coarse - 3 * middle + 2 * fine))
        return rows

    def measure(self, halving: int, seed: int) -> Array:
        """Time averages of every moment at step l / halving, shape (replicates, moments)."""
        rng, d = np.random.default_rng(seed), self.target.dimension
        mass = np.random.default_rng(7).uniform(1.0, 3.0, d) if self.mass == "diagonal" else None
        settings = {"lr": self.lr / halving, "seed": seed, **self.settings}
        chains = Replicates(self.make, self.target, self.replicates, self.tensors, mass, **settings)
        thermal = np.sqrt((1.0 if mass is None else mass) / (self.target.num_data * self.lr / halving))
        chains.place(self.target.draw(rng, self.replicates), thermal * rng.standard_normal((self.replicates, d)))
        if self.mass != "adapt":
            chains.sampler.freeze()
        burn_in, kept = self.burn_in * halving, []
        for t in chains.advance(burn_in + self.steps * halving, self.gradient_variance, seed):
            if t == burn_in // 2:
                chains.sampler.refresh_preconditioner()
                chains.sampler.freeze()
            if t >= burn_in and t % (2 * halving) == 0:
                kept.append(np.stack([moment.of(chains.w.numpy()) for moment in self.target.moments], axis=1))
        means = np.mean(kept, axis=0)
        return means if self.tensors == 1 else means.reshape(self.tensors, -1, means.shape[1]).mean(1)
