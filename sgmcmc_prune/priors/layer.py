r"""One sparse parameter of a spike-and-slab prior: groups, hyperparameters, indicators, and the two kinds of spike.

Gaussian spike: each weight of a group with gamma = 0 is N(0, v0). Laplace spike (Deng et al. 2019): it has the density
exp(-|w| / b) / (2 b) with b = sqrt(v0 / 2), so that v0 is its variance in either case. The slab is N(0, v1). With the
Laplace spike

    eta_g(w) = log(pi / (1 - pi)) + |g| (log 2 b - 1/2 log 2 pi v1) + |w_g|_1 / b - |w_g|^2 / (2 v1),

which falls again where |w| > v1 / b: the Laplace density has the heavier tails.

References
----------
Deng, Zhang, Liang, Lin: An adaptive empirical Bayesian method for sparse deep learning (NeurIPS 2019).
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sgmcmc_prune.priors.groups import GroupMap


@dataclass
class Layer:
    """One sparse parameter with a Gaussian spike.

    `inclusion_rate` is pi; `held` is the responsibility of each group (`em`) or its sampled indicator (`gibbs`), shape
    (G,); `alive` marks the groups that no mask removed. Of a layer that was cut, `places` are the numbers that its
    groups had before, of `total` groups.
    """

    groups: GroupMap
    inclusion_rate: float
    spike_variance: float
    slab_variance: float
    offset: int
    held: Tensor = field(default_factory=lambda: torch.zeros(0))
    alive: Tensor = field(default_factory=lambda: torch.zeros(0))
    places: Tensor | None = None
    total: int = 0

    def __post_init__(self) -> None:
        self.total = self.total or self.groups.num_groups

    @property
    def prior_log_odds(self) -> float:
        """log(pi / (1 - pi))."""
        return math.log(self.inclusion_rate) - math.log1p(-self.inclusion_rate)

    def log_odds(self, w: Tensor) -> Tensor:
        """eta_g(w), shape (G,)."""
        v0, v1 = self.spike_variance, self.slab_variance
        constant = self.prior_log_odds + self.groups.sizes(w) / 2 * math.log(v0 / v1)
        return constant + self.groups.sum(w.square()) * (0.5 * (1 / v0 - 1 / v1))

    def potential_gradient(self, w: Tensor, slab: Tensor, spike: Tensor) -> Tensor:
        """(r / v1 + (1 - r) / v0) w, shaped like the weight, with `slab` r and `spike` 1 - r of each group.

        Both are given, for near r = 1 a difference has no digits left, and 1 / v0 may be large.
        """
        return self.groups.expand(slab / self.slab_variance + spike / self.spike_variance).mul(w)

    def slab_log_density(self, w: Tensor) -> Tensor:
        """log pi + log N(w_g; 0, v1 I), shape (G,)."""
        size, square = self.groups.sizes(w), self.groups.sum(w.square())
        v1 = self.slab_variance
        return math.log(self.inclusion_rate) - 0.5 * (size * math.log(2 * math.pi * v1) + square / v1)

    def held_log_density(self, w: Tensor) -> Tensor:
        """Log density whose gradient is that of the held responsibilities, normalised: shape (G,)."""
        v0, v1 = self.spike_variance, self.slab_variance
        held = self.held.to(w)
        precision = held / v1 + (1 - held) / v0
        size, square = self.groups.sizes(w), self.groups.sum(w.square())
        return 0.5 * (size * (precision / (2 * math.pi)).log() - precision * square)

    def spike_moment(self, w: Tensor) -> Tensor:
        """What the M-step of the spike averages: w^2."""
        return w.square()

    def spike_variance_from(self, mean_moment: float) -> float:
        """M-step: v0 = mean w^2 over the spike."""
        return mean_moment


@dataclass
class LaplaceSpikeLayer(Layer):
    """One sparse parameter with a Laplace spike."""

    @property
    def scale(self) -> float:
        """b = sqrt(v0 / 2)."""
        return math.sqrt(self.spike_variance / 2)

    def log_odds(self, w: Tensor) -> Tensor:
        """eta_g(w), shape (G,)."""
        b, v1 = self.scale, self.slab_variance
        per_weight = math.log(2 * b) - 0.5 * math.log(2 * math.pi * v1)
        constant = self.prior_log_odds + self.groups.sizes(w) * per_weight
        return constant + self.groups.sum(w.abs() / b - w.square() / (2 * v1))

    def potential_gradient(self, w: Tensor, slab: Tensor, spike: Tensor) -> Tensor:
        """Give r w / v1 + (1 - r) sign(w) / b."""
        r, rest = self.groups.expand(slab), self.groups.expand(spike)
        return r * w / self.slab_variance + rest * w.sign() / self.scale

    def held_log_density(self, w: Tensor) -> Tensor:
        """-a w^2 / 2 - c |w| - log(sqrt(2 pi / a) erfcx(c / sqrt(2 a))) with a = r / v1 and c = (1 - r) / b."""
        r = self.held.to(w)
        # At r = 0 the integral is 2 / c; the floor keeps its limit finite.
        a, c = (r / self.slab_variance).clamp(min=1e-30), (1 - r) / self.scale
        integral = (2 * math.pi / a).sqrt() * torch.special.erfcx(c / (2 * a).sqrt())
        size = self.groups.sizes(w)
        return -a / 2 * self.groups.sum(w.square()) - c * self.groups.sum(w.abs()) - size * integral.log()

    def spike_moment(self, w: Tensor) -> Tensor:
        """What the M-step of the spike averages: |w|."""
        return w.abs()

    def spike_variance_from(self, mean_moment: float) -> float:
        """M-step: b = mean |w| over the spike, v0 = 2 b^2."""
        return 2 * mean_moment**2


#: By the name of the spike.
LAYERS: dict[str, type[Layer]] = {"gaussian": Layer, "laplace": LaplaceSpikeLayer}
