r"""Hyperpriors on the scales of a layer's weights, w = scale * w~ with w~ ~ N(0, 1), and log-normal posteriors on them.

Every hyperprior is made of Gamma variables (shape, rate), half-Cauchy scales included: with u, v ~ Gamma(1/2, 1),
sqrt(v / u) is C+(0, 1).

References
----------
Markovic, Friston, Kiebel (arXiv 2309.12095); Piironen, Vehtari: Sparsity information and regularization in the
horseshoe and other shrinkage priors (Electronic Journal of Statistics 2017); Ghosh, Yao, Doshi-Velez: Structured
variational learning of Bayesian neural networks with horseshoe priors (ICML 2018).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune.baselines import kl

#: Standard deviation of a log-normal factor (and of a weight's) at the start.
INITIAL_SCALE = 0.1


class GammaPrior(NamedTuple):
    """Independent Gamma(concentration, rate) variables, `size` of them."""

    concentration: float
    rate: float
    size: int = 1


class Scale(Protocol):
    """Gamma variables, and the scale as a function of them."""

    variables: tuple[GammaPrior, ...]

    def __call__(self, *values: Tensor) -> Tensor:
        """Scale of the weights, shape (..., 1), (..., rows) or (..., rows * columns)."""
        ...


class FlatScale:
    """One scale for the whole layer: 1 / c^2 ~ Gamma(2, 2), scale c / 10, or c in the output layer."""

    def __init__(self, last: bool) -> None:
        self.variables: tuple[GammaPrior, ...] = (GammaPrior(2, 2),)
        self.factor = 1.0 if last else 0.1

    def __call__(self, *values: Tensor) -> Tensor:
        """c / 10 or c, shape (..., 1)."""
        (precision,) = values
        return self.factor * precision.rsqrt()


class HorseshoeScale:
    r"""The regularised horseshoe: one scale per row (output unit) of the layer, or with `columns` one per weight.

    .. math:: \psi^2_{ij} = \tau_0^2 \, g^2 t_i^2 \lambda_{ij}^2, \qquad
              \gamma^2_{ij} = \frac{\psi^2_{ij}}{1 + \psi^2_{ij} / c^2}, \qquad
              g, t_i, \lambda_{ij} \sim C^+(0, 1), \quad 1 / c^2 \sim \mathrm{Gamma}(2, 6),

    with no g for a single row and no :math:`\lambda` without `columns`. The output layer has one scale, C+(0, 1).
    """

    def __init__(self, rows: int, last: bool, tau: float = 1e-2, columns: int | None = None) -> None:
        self.last, self.tau, self.rows, self.columns = last, tau, rows, columns
        half = GammaPrior(0.5, 1)
        self.variables: tuple[GammaPrior, ...] = (half, half)
        if not last:
            per_row = half._replace(size=rows)
            per_weight = half._replace(size=rows * (columns or 0))
            shared = self.variables if rows > 1 else ()
            self.variables = (GammaPrior(2, 6), per_row, per_row, *shared, *((per_weight,) * 2 if columns else ()))

    def __call__(self, *values: Tensor) -> Tensor:
        """gamma, shape (..., 1), (..., rows) or (..., rows * columns)."""
        if self.last:
            return (values[0] / values[1]).sqrt()
        slab_precision, u, v, *rest = values
        psi = self.tau**2 * v / u
        if self.rows > 1:
            psi = psi * rest[0] / rest[1]
        if self.columns:
            psi = psi.repeat_interleave(self.columns, -1) * rest[-1] / rest[-2]
        return (psi / (1 + psi * slab_precision)).sqrt()


class LogNormals:
    """Independent log-normal posteriors on Gamma variables: log x ~ N(loc, softplus(rho)^2).

    Parameters
    ----------
    priors : sequence of GammaPrior
    generator : torch.Generator
        For the starting values, log x uniform on (-2, 2).
    point : bool
        A point estimate instead: x = exp(loc).

    Attributes
    ----------
    loc, rho : Tensor, shape (K,)
        Over all variables; leaves that require gradients.
    """

    def __init__(self, priors: Sequence[GammaPrior], generator: torch.Generator, point: bool = False) -> None:
        self.sizes = [p.size for p in priors]
        device = generator.device
        sizes = torch.tensor(self.sizes, dtype=torch.int64)
        self.concentration = torch.tensor([p.concentration for p in priors]).repeat_interleave(sizes).to(device)
        self.rate = torch.tensor([p.rate for p in priors]).repeat_interleave(sizes).to(device)
        self.point = point
        self.loc = (4 * torch.rand(sum(self.sizes), generator=generator, device=device) - 2).requires_grad_()
        self.rho = torch.full_like(self.loc, inverse_softplus(INITIAL_SCALE), requires_grad=not point)

    @property
    def parameters(self) -> list[Tensor]:
        """What an optimiser moves."""
        return [self.loc] if self.point else [self.loc, self.rho]

    def sample(self, generator: torch.Generator, particles: int | None = None) -> list[Tensor]:
        """Draw every variable: one tensor per prior, of shape (size,) or (particles, size)."""
        shape = self.loc.shape if particles is None else (particles, *self.loc.shape)
        if self.point:
            return list(self.loc.exp().expand(shape).split(self.sizes, -1))
        xi = torch.randn(shape, generator=generator, device=self.loc.device)
        return list((self.loc + F.softplus(self.rho) * xi).exp().split(self.sizes, -1))

    def divergence(self) -> Tensor:
        """KL(posterior || prior) in nats, or minus the log prior density at the point."""
        a, b, m = self.concentration, self.rate, self.loc
        if self.point:
            return (a.lgamma() - a * b.log() - (a - 1) * m + b * m.exp()).sum()
        return kl.log_normal_from_gamma(m, F.softplus(self.rho).log(), a, b, b.log()).sum()


def inverse_softplus(x: float) -> float:
    """The rho with softplus(rho) = x."""
    return math.log(math.expm1(x))
