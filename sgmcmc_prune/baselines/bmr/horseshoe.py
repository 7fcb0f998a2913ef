r"""Bayesian model reduction under a regularised horseshoe: infer the scales of one layer from its posterior alone.

Any hyperprior p(gamma) on the scales can be put on top of a fitted Gaussian posterior: exp(sum_i delta F_i(gamma_i^2))
is the (relative) evidence of the prior N(0, gamma_i^2), so

    q(gamma) ∝ p(gamma) exp(sum_i delta F_i(gamma_i^2)),

here approximated by log-normal factors. The estimate is gamma = E_q[gamma^-2]^(-1/2), the scale with the expected prior
precision.

References
----------
Markovic, Friston, Kiebel (arXiv 2309.12095).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sgmcmc_prune.baselines.bmr import reduction
from sgmcmc_prune.baselines.bmr.adabelief import AdaBelief
from sgmcmc_prune.baselines.bmr.layers import Layer
from sgmcmc_prune.baselines.bmr.scales import HorseshoeScale, LogNormals

#: Scales are averaged in blocks of this many draws, to bound memory.
_BLOCK = 50


@dataclass(frozen=True)
class HorseshoeSettings:
    """Of the second-level inference: `per_weight` adds a local scale for each weight to the one of its row."""

    per_weight: bool = True
    tau: float = 1e-2
    particles: int = 16
    iterations: int = 5000
    draws: int = 1000
    lr: float = 1e-2

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.tau, self.particles, self.iterations, self.draws, self.lr) <= 0:
            raise ValueError(f"every number of the horseshoe settings must be > 0, not {self}")


def infer_scales(
    layer: Layer, mean: Tensor, variance: Tensor, settings: HorseshoeSettings, generator: torch.Generator
) -> Tensor:
    """Infer the prior scale of every weight of a layer.

    Parameters
    ----------
    layer : Layer
    mean, variance : Tensor, shape (size,)
        Posterior of the standardised weights, whose prior is N(0, 1). A variance above 1 is taken as 1.
    settings : HorseshoeSettings
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (size,)
        gamma: near 0 for a weight that the evidence does not need.
    """
    rows = layer.rows
    scale = HorseshoeScale(rows, False, settings.tau, layer.size // rows if settings.per_weight else None)
    posterior = LogNormals(scale.variables, generator)
    optimizer = AdaBelief(posterior.parameters, settings.lr)
    # One row of `matrix` after the other, which is the order in which the horseshoe lays out its weights.
    mean, variance = (layer.matrix(x.detach()).double() for x in (mean, variance.clamp_max(1)))

    def draw(particles: int) -> Tensor:
        gamma = scale(*posterior.sample(generator, particles))
        return gamma.view(particles, rows, -1)

    for _ in range(settings.iterations):
        evidence = reduction.diagonal(mean, variance, 1.0, draw(settings.particles).square())
        loss = posterior.divergence() - evidence.expand(settings.particles, *mean.shape).sum((1, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        blocks = [draw(_BLOCK).double().pow(-2).mean(0) for _ in range(-(-settings.draws // _BLOCK))]
        gamma = torch.stack(blocks).mean(0).rsqrt().expand(mean.shape)
    return layer.from_matrix(gamma).float()
