r"""Stochastic-approximation EM on normal means, where the marginal likelihood is a product of mixtures.

With y_j | w_j ~ N(w_j, 1) and w_j from a spike or a slab, y_j | pi ~ pi N(0, 1 + v1) + (1 - pi) N(0, 1 + v0), so the
inclusion rate that EM with exact E-steps finds is a fixed point in closed form. A tensor is a replicate, with an
inclusion rate of its own. The draws of the E-steps have the sampler's bias, of order 1 in l, which is extrapolated
away.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmcmc_prune.certify.replicates import Replicates
from sgmcmc_prune.certify.statistics import Label, Row, mean_row
from sgmcmc_prune.priors import SpikeSlab
from sgmcmc_prune.priors.em import EM
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.samplers import BAOAB

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NormalMeans:
    """Sixteen observations with noise 1; a third come from the slab."""

    spike_variance: float = 0.1
    slab_variance: float = 10.0
    dimension: int = 16
    num_data: int = 16
    name: str = "normal means"

    @property
    def observations(self) -> Array:
        """y, shape (16,)."""
        rng = np.random.default_rng(11)
        variance = 1 + np.where(np.arange(16) % 3 == 0, self.slab_variance, self.spike_variance)
        return rng.standard_normal(16) * np.sqrt(variance)

    @property
    def inclusion_rate(self) -> float:
        """The maximum of the marginal likelihood, by EM with exact E-steps."""
        y, rate = self.observations, 0.5
        slab, spike = (
            np.exp(-(y**2) / (2 * (1 + v))) / np.sqrt(1 + v) for v in (self.slab_variance, self.spike_variance)
        )
        for _ in range(10_000):
            rate = float(np.mean(rate * slab / (rate * slab + (1 - rate) * spike)))
        return rate

    def prior(self, params: Mapping[str, Tensor]) -> SpikeSlab:
        """Indicators summed out, an inclusion rate for each tensor."""
        return SpikeSlab(
            params,
            mode="marginal",
            inclusion_rate=0.5,
            spike_variance=self.spike_variance,
            slab_variance=self.slab_variance,
        )

    def gradient(self, w: Tensor) -> Tensor:
        """Of sum_j (w_j - y_j)^2 / (2 N)."""
        return (w - torch.from_numpy(self.observations)) / self.num_data


@dataclass(frozen=True)
class StochasticEMCase:
    """Learn the inclusion rate in 64 tensors of eight rows."""

    lr: float = 0.4
    iterations: int = 250

    def rows(self, seed: int) -> list[Row]:
        """One row: the inclusion rate."""
        target = NormalMeans()
        rates = 2 * self.rates(target, 2, seed + 2) - self.rates(target, 1, seed + 1)
        label = Label("BAOAB", "identity", target.name)
        return [mean_row(label, "inclusion rate by stochastic EM, l -> 0", target.inclusion_rate, rates)]

    def rates(self, target: NormalMeans, halving: int, seed: int) -> Array:
        """The rate of each tensor, averaged over the second half of the iterations."""
        chains = Replicates(BAOAB, target, 512, tensors=64, lr=self.lr / halving, momentum=0.5, seed=seed)
        prior = chains.sampler.prior
        assert isinstance(prior, SpikeSlab)
        every = 5 * halving
        em = EM(EMSettings(kind="stochastic", every=every, learn_variances="none", complexity=0.0), prior)
        kept = []
        for t in chains.advance(every * self.iterations):
            if t % every == 0:
                em.update(chains.parameters, temperature=1.0)
                if t >= every * self.iterations // 2:
                    kept.append([layer.inclusion_rate for layer in prior.layers.values()])
        return np.mean(kept, axis=0)
