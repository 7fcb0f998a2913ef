r"""The factors of a mean-field posterior: normal, normal with a gate on each entry, log-normal."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune import native
from sgmcmc_prune.baselines import kl

#: What a draw does with the gates (see `gate_values`).
GateRule = Literal["sample", "median", "mean"]

#: Temperature of the binary concrete relaxation of gates on single weights.
RELAXATION = 0.5
_SMALLEST_UNIFORM = 1e-6  # float32 cannot hold 1 - 1e-10
#: Numbers up to which torch makes noise faster than the counter-based kernels.
_SMALL = 4096


class Normal(nn.Module):
    """q(w) = N(mean, std^2), entry by entry.

    Parameters
    ----------
    mean : Tensor
        Where it starts (copied).
    std : float
        Starting standard deviation, > 0.

    Attributes
    ----------
    kept : Tensor or None
        Mask shaped like `mean`: where it is 0 the entry is exactly zero and costs nothing.
    """

    kept: Tensor | None

    def __init__(self, mean: Tensor, std: float) -> None:
        super().__init__()
        if not std > 0:
            raise ValueError(f"the starting standard deviation is {std}; it must be > 0")
        self.mean = nn.Parameter(mean.detach().clone())
        self.log_std = nn.Parameter(torch.full_like(mean, math.log(std)))
        self.register_buffer("kept", None)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each entry."""
        mean, variance = self._moments()
        return (mean, variance) if self.kept is None else (mean * self.kept, variance * self.kept)

    def draw(
        self, sampled: bool = True, gates: GateRule = "sample", generator: torch.Generator | None = None
    ) -> Tensor:
        """One exact draw, or the mean; `generator` is on the CPU. A factor without gates ignores `gates`."""
        value = self.mean + self.log_std.exp() * noise_like(self.mean, generator) if sampled else self.mean
        return value if self.kept is None else value * self.kept

    def divergence(self, log_prior_std: Tensor | float, prior_precision: Tensor | float, centre: float = 0.0) -> Tensor:
        """KL of each entry from N(centre, s^2), each with its own s (see `kl.normal`)."""
        entries = kl.normal(self.mean, self.log_std, log_prior_std, prior_precision, centre)
        return entries if self.kept is None else entries * self.kept

    def _moments(self) -> tuple[Tensor, Tensor]:
        return self.mean, (2 * self.log_std).exp()


class GatedNormal(Normal):
    r"""Spike and slab on each entry: w = z (mu + sigma eps), z ~ Bernoulli(g), g = sigmoid(logits).

    The gates are integrated out of the first two moments, E w = g mu and Var w = g (sigma^2 + (1 - g) mu^2): a layer
    that propagates these treats its output as normal, which a sum over many inputs nearly is, and needs no relaxation.

    References
    ----------
    Bai, Song, Cheng (arXiv 2011.07439), for prior and family; Skaaret-Lund, Storvik, Hubin (arXiv 2305.03395), for the
    moments.
    """

    def __init__(self, mean: Tensor, std: float, inclusion: float, start: float) -> None:
        super().__init__(mean, std)
        self.inclusion = inclusion
        self.logits = nn.Parameter(torch.full_like(mean, kl.log_odds(start)))

    def draw(
        self, sampled: bool = True, gates: GateRule = "sample", generator: torch.Generator | None = None
    ) -> Tensor:
        """mu + sigma eps, or mu, times the gates as `gate_values` gives them."""
        return super().draw(sampled, gates, generator) * gate_values(self.logits, gates, generator)

    def divergence(self, log_prior_std: Tensor | float, prior_precision: Tensor | float, centre: float = 0.0) -> Tensor:
        """g KL(slab) + KL(gate) of each entry."""
        slab = super().divergence(log_prior_std, prior_precision, centre)
        gates = kl.bernoulli(self.logits, self.inclusion)
        return slab * self.logits.sigmoid() + (gates if self.kept is None else gates * self.kept)

    def _moments(self) -> tuple[Tensor, Tensor]:
        g, (mean, variance) = self.logits.sigmoid(), super()._moments()
        return g * mean, g * torch.addcmul(variance, 1 - g, mean.square())


class RelaxedNormal(GatedNormal):
    r"""The same factor, of which a layer uses one draw for each minibatch, with the gates relaxed as the authors do.

    Forward w = z (mu + sigma eps) with z = 1[y > 1/2] and y = sigmoid((logits + L) / T), L standard logistic; backward
    dz = dy (see `gates`). Unlike the moments this gradient is biased, and noisy.

    References
    ----------
    Bai, Song, Cheng (arXiv 2011.07439), and its released code, whose T = 1/2 this is.
    """

    def relaxed(self) -> Tensor:
        """One draw of all entries, with the straight-through gradient."""
        return straight_through(self.logits + logistic_like(self.logits), RELAXATION) * Normal.draw(self)


class LogNormal(Normal):
    """q(x) = exp N(loc, std^2): a positive variable; `mean` is the mean of its *logarithm*."""


def noise_like(value: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normals shaped like `value`, on its device; from `generator`, which is on the CPU, when given."""
    if generator is not None:
        return torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
    noise = torch.empty_like(value)
    flat = noise.as_strided((noise.numel(),), (1,))  # in memory order: several times faster for channels_last
    if flat.numel() <= _SMALL or not native.takes(flat):
        flat.normal_()
        return noise
    return native.standard_normal(*random_key(), 0, flat.numel()).as_strided(noise.shape, noise.stride())


def logistic_like(value: Tensor) -> Tensor:
    """Standard logistic noise shaped like `value`."""
    return torch.rand_like(value).logit_(_SMALLEST_UNIFORM)


def straight_through(odds: Tensor, temperature: float) -> Tensor:
    """Gates 1[odds > 0], exactly, with the gradient of sigmoid(odds / temperature)."""
    y = (odds / temperature).sigmoid()
    return (odds > 0).to(y) + (y - y.detach())


def random_key() -> tuple[int, int, int]:
    """Seed, chain and step of counter-based noise, drawn from torch's generator."""
    word = int(torch.randint(2**62, ()))
    return word % 2**32, 0, word >> 32


def gate_values(logits: Tensor, gates: GateRule, generator: torch.Generator | None = None) -> Tensor:
    """Gates with probabilities sigmoid(logits): a draw, the median model (g >= 1/2), or their mean."""
    if gates == "sample":
        uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype).to(logits.device)
        return (uniform < logits.sigmoid()).to(logits)
    if gates == "median":
        return (logits >= 0).to(logits)
    return logits.sigmoid()
