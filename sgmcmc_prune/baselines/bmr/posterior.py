r"""The variational posterior over a network: w = s(scales) * gain * w~, with w~ ~ q and prior N(0, 1).

The parametrisation is non-centred: weights and scales are independent under q. `gain` is 1, or 0 where a weight is
pruned (for horseshoe reduction also between them); it is not trained.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune.baselines.bmr.layers import Layer, unflatten
from sgmcmc_prune.baselines.bmr.scales import INITIAL_SCALE, LogNormals, Scale, inverse_softplus


class Moments(NamedTuple):
    """Posterior mean and variance of every parameter, by name."""

    mean: dict[str, Tensor]
    variance: dict[str, Tensor]


class NetworkPosterior:
    r"""Factorised posterior: :math:`\tilde w_i \sim N(\mu_i, \mathrm{softplus}(\rho_i)^2)`, scales log-normal.

    Parameters
    ----------
    layers : sequence of Layer
    scales : sequence of Scale
        One hyperprior per layer.
    generator : torch.Generator
        On the device of the weights; for the starting values, uniform on (-2, 2).
    point : bool
        A point estimate instead (MAP).

    Attributes
    ----------
    loc, rho, gain : Tensor, shape (D,)
        Of all weights, in the order of `layers`.
    """

    def __init__(
        self, layers: Sequence[Layer], scales: Sequence[Scale], generator: torch.Generator, point: bool = False
    ) -> None:
        self.layers, self.scales, self.point = layers, scales, point
        size = layers[-1].slice.stop
        self.loc = (4 * torch.rand(size, generator=generator, device=generator.device) - 2).requires_grad_()
        self.rho = torch.full_like(self.loc, inverse_softplus(INITIAL_SCALE), requires_grad=not point)
        self.gain = torch.ones_like(self.loc, requires_grad=False)
        self.hyper = LogNormals([v for scale in scales for v in scale.variables], generator, point)

    @property
    def parameters(self) -> list[Tensor]:
        """What an optimiser moves."""
        return [self.loc, *([] if self.point else [self.rho]), *self.hyper.parameters]

    @property
    def kept(self) -> Tensor:
        """Which weights are not pruned, shape (D,)."""
        return self.gain > 0

    @property
    def variance(self) -> Tensor:
        """Variance of each standardised weight w~, shape (D,)."""
        return F.softplus(self.rho).square()

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the weights of a network, by name; pruned ones are exactly zero."""
        standard = self.loc
        if not self.point:
            xi = torch.randn(self.loc.shape, generator=generator, device=self.loc.device)
            standard = self.loc + F.softplus(self.rho) * xi
        return unflatten(self.layers, standard * (self.gain * self._expand(self._scales(generator, None))))

    def divergence(self) -> Tensor:
        """KL(q || prior) in nats, or for a point minus the log prior; pruned weights are left out."""
        kept = self.kept
        square = self.loc.square()
        if self.point:
            weights = square * kept / 2
        else:
            deviation = F.softplus(self.rho)
            weights = (deviation.square() + square - 1) / 2 - deviation.log()
        return torch.where(kept, weights, 0).sum() + self.hyper.divergence()

    @torch.no_grad()
    def draws(self, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """Draw networks, by parameter name, by noise that a training with this seed did not use."""
        generator = self._generator(seed)
        for _ in range(count):
            yield self.sample(generator)

    @torch.no_grad()
    def moments(self, seed: int, particles: int = 1000) -> Moments:
        r"""Mean and variance of the weights themselves; pruned ones are zero.

        Of w = s w~ they are :math:`E[s] \mu` and :math:`E[s^2] (\sigma^2 + \mu^2) - E[s]^2 \mu^2`, with the moments of
        the scale averaged over `particles` draws.
        """
        scales = self._scales(self._generator(seed), particles)
        first = self.gain * self._expand([s.mean(0) for s in scales])
        second = self.gain.square() * self._expand([s.square().mean(0) for s in scales])
        mean = first * self.loc
        spread = self.loc.square() if self.point else self.loc.square() + self.variance
        variance = (second * spread - mean.square()).clamp_min(0)
        return Moments(unflatten(self.layers, mean), unflatten(self.layers, variance))

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.loc.device).manual_seed(seed + 2**32)

    def _scales(self, generator: torch.Generator, particles: int | None) -> list[Tensor]:
        """Draw the scales of each layer: shapes (1,) or (rows,), after (particles,) if asked for."""
        values = iter(self.hyper.sample(generator, particles))
        return [scale(*(next(values) for _ in scale.variables)) for scale in self.scales]

    def _expand(self, scales: Sequence[Tensor]) -> Tensor:
        """Give every weight its scale, shape (D,)."""
        return torch.cat([layer.expand(s) for layer, s in zip(self.layers, scales, strict=True)])
