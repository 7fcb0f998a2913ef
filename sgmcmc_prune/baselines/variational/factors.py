r"""The factors of a mean-field posterior: normal, normal with a gate on each entry, log-normal."""

import functools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune import native
from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational.statistics import Statistics, per_row, statistics, total

#: What a draw does with the gates (see `gate_values`).
GateRule = Literal["sample", "median", "mean"]


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

    def statistics(self) -> Statistics:
        """Moments, and what `kl` needs, of all entries, whatever `kept` says (see `once`)."""
        return statistics(self.mean, self.log_std)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each entry."""
        mean, variance, *_ = self.statistics()
        return (mean, variance) if self.kept is None else (mean * self.kept, variance * self.kept)

    def draw(
        self, sampled: bool = True, gates: GateRule = "sample", generator: torch.Generator | None = None
    ) -> Tensor:
        """One exact draw, or the mean; `generator` is on the CPU. A factor without gates ignores `gates`."""
        value = self.mean + self.log_std.exp() * noise_like(self.mean, generator) if sampled else self.mean
        return value if self.kept is None else value * self.kept

    def kl(self, log_prior_std: Tensor | float, prior_precision: Tensor | float, centre: float = 0.0) -> Tensor:
        """KL from N(centre, s^2) summed over each row, shape (J,); moments of s: numbers, or one per row."""
        if centre or self.kept is not None:
            log_prior_std, prior_precision = (per_row(x, self.mean) for x in (log_prior_std, prior_precision))
            return total(self.divergence(log_prior_std, prior_precision, centre))
        return self._kl(self.statistics(), log_prior_std, prior_precision)

    def _kl(self, found: Statistics, log_prior_std: Tensor | float, prior_precision: Tensor | float) -> Tensor:
        return found.size * (log_prior_std - 0.5) - found.log_std + 0.5 * prior_precision * found.second_moment

    def divergence(self, log_prior_std: Tensor | float, prior_precision: Tensor | float, centre: float = 0.0) -> Tensor:
        """KL of each entry from N(centre, s^2), each with its own s (see `kl.normal`)."""
        entries = kl.normal(self.mean, self.log_std, log_prior_std, prior_precision, centre)
        return entries if self.kept is None else entries * self.kept


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

    def statistics(self) -> Statistics:
        """As for `Normal`, with the gates."""
        return statistics(self.mean, self.log_std, self.logits)

    def draw(
        self, sampled: bool = True, gates: GateRule = "sample", generator: torch.Generator | None = None
    ) -> Tensor:
        """mu + sigma eps, or mu, times the gates as `gate_values` gives them."""
        return super().draw(sampled, gates, generator) * gate_values(self.logits, gates, generator)

    def _kl(self, found: Statistics, log_prior_std: Tensor | float, prior_precision: Tensor | float) -> Tensor:
        gates = found.information - kl.log_odds(self.inclusion) * found.size
        closed = self.mean[0].numel() * math.log1p(-self.inclusion)
        return super()._kl(found, log_prior_std, prior_precision) + gates - closed

    def divergence(self, log_prior_std: Tensor | float, prior_precision: Tensor | float, centre: float = 0.0) -> Tensor:
        """g KL(slab) + KL(gate) of each entry."""
        slab = super().divergence(log_prior_std, prior_precision, centre)
        return slab * self.logits.sigmoid() + kl.bernoulli(self.logits, self.inclusion)


class LogNormal(Normal):
    """q(x) = exp N(loc, std^2): a positive variable; `mean` is the mean of its *logarithm*."""

    def expectation(self) -> Tensor:
        """E x = exp(loc + std^2 / 2)."""
        return kl.log_normal_mean(self.mean, self.log_std)


@contextmanager
def once(factors: Iterable[Normal]) -> Iterator[None]:
    """Inside, each factor computes its statistics a single time: their readers share a graph and its backward pass."""
    factors = list(factors)
    for factor in factors:
        vars(factor)["statistics"] = functools.cache(factor.statistics)
    try:
        yield
    finally:
        for factor in factors:
            del vars(factor)["statistics"]


def noise_like(value: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normals shaped like `value`, on its device; from `generator`, which is on the CPU, when given."""
    if generator is not None:
        return torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
    if value.numel() > _SMALL and native.takes(value):
        return native.standard_normal(*random_key(), 0, value.numel()).view(value.shape)
    noise = torch.empty_like(value)
    noise.as_strided((noise.numel(),), (1,)).normal_()  # in memory order: several times faster for channels_last
    return noise


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
