r"""Shrinkage scales of a node's weights: the group lasso and the regularised group horseshoe.

A scale multiplies all weights into a node (non-centred form, w = s w~), or enters the prior of w alone (centred form).
With a normalisation layer in between, which undoes any scale, it multiplies the affine parameters of that layer
instead. Each kind has a part per layer and a part shared by the whole network.

- group lasso:   tau_j^2 ~ Gamma((K + 1)/2, rate r/2),   r ~ Gamma(4, rate 2) shared; K is the number of weights scaled.
  With normal weights the marginal is the multi-Laplace exp(-sqrt(r) |w|_2).
- horseshoe:     t_j ~ C+(0, 1),  g ~ C+(0, global_scale) shared,  s = t_j g,  s~^2 = c^2 s^2 / (c^2 + s^2).
  A half-Cauchy C+(0, A) is sqrt(a b) with a ~ Gamma(1/2, scale A^2) and b ~ InvGamma(1/2, 1). The regulariser c is
  fixed, or learned with c^2 ~ InvGamma(2, 6).

References
----------
Jantre, Bhattacharya, Maiti: Spike-and-slab shrinkage priors for structurally sparse Bayesian neural networks (IEEE
TNNLS 2024); Piironen, Vehtari: Sparsity information and regularization in the horseshoe (EJS 2017); Ghosh, Yao,
Doshi-Velez (JMLR 2019).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational.factors import LogNormal, noise_like

Regulariser = float | Literal["learned"]

#: Keeps (c / s)^2 and its gradient finite in single precision.
_LARGEST_EXPONENT = 80.0


class GroupLassoShared(nn.Module):
    """The rate r of all group-lasso scales; it starts best near the mean group size (then tau^2 is near 1)."""

    def __init__(self, start: float, std: float, shape: float = 4.0, rate: float = 2.0) -> None:
        super().__init__()
        self.shape, self.prior_rate = shape, rate
        self.rate = LogNormal(torch.tensor(math.log(start)), std)

    def resample(self, sampled: bool = True, generator: torch.Generator | None = None) -> None:
        """Nothing to draw: the rate enters through its expectations."""

    def kl(self) -> Tensor:
        """KL from Gamma(shape, rate)."""
        return kl.log_normal_from_gamma(
            self.rate.mean, self.rate.log_std, self.shape, self.prior_rate, math.log(self.prior_rate)
        )


class GroupLassoScale(nn.Module):
    """tau_j of each node of one layer (non-centred)."""

    def __init__(self, num_nodes: int, group_size: int, std: float, shared: GroupLassoShared) -> None:
        super().__init__()
        self.group_size, self.shared = group_size, shared
        self.variance = LogNormal(torch.zeros(num_nodes), std)

    def draw(self, sampled: bool = True, generator: torch.Generator | None = None) -> Tensor:
        """tau, shape (J,): a draw, or its mean."""
        if sampled:
            return (0.5 * self.variance.draw(generator=generator)).exp()
        return (0.5 * self.variance.mean + 0.125 * (2 * self.variance.log_std).exp()).exp()

    def kl(self) -> Tensor:
        """KL from the gamma prior, expected over the shared rate, shape (J,)."""
        rate = self.shared.rate
        return kl.log_normal_from_gamma(
            self.variance.mean,
            self.variance.log_std,
            (self.group_size + 1) / 2,
            rate.expectation() / 2,
            rate.mean - math.log(2),
        )


class HorseshoeShared(nn.Module):
    """The global scale g and the regulariser c; `resample` draws them once per forward pass of the network."""

    def __init__(self, std: float, regulariser: Regulariser = 1.0, global_scale: float = 1.0) -> None:
        super().__init__()
        if regulariser != "learned" and not regulariser > 0:
            raise ValueError(f"the horseshoe's regulariser is {regulariser}; give a number > 0, or 'learned'")
        self.half_cauchy = HalfCauchy((), std, global_scale)
        # The prior mean of c^2 is 6.
        self.squared_slab = LogNormal(torch.tensor(math.log(6.0)), std) if regulariser == "learned" else None
        self.fixed_log_slab = None if regulariser == "learned" else math.log(regulariser)
        self.resample(sampled=False)

    def resample(self, sampled: bool = True, generator: torch.Generator | None = None) -> None:
        """Draw log g and log c, or set them to their means."""
        self.log_scale = self.half_cauchy.log_draw(sampled, generator)
        if self.squared_slab is None:
            self.log_slab = torch.full_like(self.log_scale, self.fixed_log_slab or 0.0)
        else:
            self.log_slab = 0.5 * self.squared_slab.draw(sampled, generator=generator)

    def expected_log_slab(self) -> Tensor | float:
        """E log c."""
        return (self.fixed_log_slab or 0.0) if self.squared_slab is None else 0.5 * self.squared_slab.mean

    def slab_precision(self) -> Tensor | float:
        """E c^-2."""
        if self.squared_slab is None:
            return math.exp(-2 * (self.fixed_log_slab or 0.0))
        return (-self.squared_slab.mean + 0.5 * (2 * self.squared_slab.log_std).exp()).exp()

    def kl(self) -> Tensor:
        """KL of the global factors."""
        total = self.half_cauchy.kl()
        if self.squared_slab is None:
            return total
        return total + kl.log_normal_from_inverse_gamma(self.squared_slab.mean, self.squared_slab.log_std, 2.0, 6.0)


class HorseshoeScale(nn.Module):
    """The regularised horseshoe scale s~_j of each node of one layer."""

    def __init__(self, num_nodes: int, std: float, shared: HorseshoeShared) -> None:
        super().__init__()
        self.shared = shared
        self.half_cauchy = HalfCauchy((num_nodes,), std)

    def draw(self, sampled: bool = True, generator: torch.Generator | None = None) -> Tensor:
        """s~ = c / sqrt(1 + (c / s)^2), given c and g as last resampled, shape (J,): a draw, or at the mean log."""
        return _Regularised.apply(
            self.half_cauchy.log_draw(sampled, generator), self.shared.log_scale, self.shared.log_slab
        )

    def prior_moments(self) -> tuple[Tensor, Tensor]:
        """E log s~ and E s~^-2, shape (J,) (centred form); E log(c^2 + s^2) by one draw, all else in closed form."""
        local, common = self.half_cauchy, self.shared.half_cauchy
        log_slab, log_scale = self.shared.log_slab, local.log_draw() + self.shared.log_scale
        mixed = 0.5 * torch.logaddexp(2 * log_slab, 2 * log_scale)
        expected_log = self.shared.expected_log_slab() + local.expected_log() + common.expected_log() - mixed
        return expected_log, local.precision() * common.precision() + self.shared.slab_precision()

    def saturation(self) -> Tensor:
        """s~ / c at the mean log scales, shape (J,): near 1 the horseshoe shrinks nothing."""
        log_scale = self.half_cauchy.expected_log() + self.shared.half_cauchy.expected_log()
        log_slab = torch.as_tensor(self.shared.expected_log_slab())
        return (log_scale - 0.5 * torch.logaddexp(2 * log_slab, 2 * log_scale)).exp()

    def kl(self) -> Tensor:
        """KL of the local factors, shape (J,)."""
        return self.half_cauchy.kl()


class HalfCauchy(nn.Module):
    """sqrt(a b) with log-normal factors of a and b: itself log-normal, so one normal draw serves for both."""

    def __init__(self, shape: tuple[int, ...], std: float, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"the scale of a half-Cauchy is {scale}; it must be > 0")
        self.scale = scale
        self.gamma = LogNormal(torch.full(shape, 2 * math.log(scale)), std)
        self.inverse_gamma = LogNormal(torch.zeros(shape), std)

    def expected_log(self) -> Tensor:
        """E log sqrt(a b)."""
        return 0.5 * (self.gamma.mean + self.inverse_gamma.mean)

    def precision(self) -> Tensor:
        """E 1 / (a b)."""
        return (-2 * self.expected_log() + 0.5 * self._log_variance()).exp()

    def log_draw(self, sampled: bool = True, generator: torch.Generator | None = None) -> Tensor:
        """Draw log sqrt(a b), or its mean."""
        if not sampled:
            return self.expected_log()
        a, b = self.gamma, self.inverse_gamma
        return _HalfCauchyDraw.apply(a.mean, a.log_std, b.mean, b.log_std, noise_like(a.mean, generator))

    def kl(self) -> Tensor:
        """KL of both factors, shaped like the scale: a / A^2 and 1 / b are Gamma(1/2, 1)."""
        a, b = self.gamma, self.inverse_gamma
        return _HalfCauchyKL.apply(a.mean, a.log_std, b.mean, b.log_std, self.scale)

    def _log_variance(self) -> Tensor:
        """Variance of log(a b)."""
        return (2 * self.gamma.log_std).exp() + (2 * self.inverse_gamma.log_std).exp()


class _HalfCauchyDraw(torch.autograd.Function):
    r"""log sqrt(a b) = (m_a + m_b) / 2 + u eps with 4 u^2 = s_a^2 + s_b^2, from m_a, log s_a, m_b, log s_b; backwards

    .. math:: dm_a = dm_b = d / 2, \qquad d \log s_a = d \, \epsilon \, s_a^2 / (4 u).
    """

    @staticmethod
    def forward(ctx: Any, m_a: Tensor, log_s_a: Tensor, m_b: Tensor, log_s_b: Tensor, noise: Tensor) -> Tensor:
        a, b = log_s_a.exp().square_(), log_s_b.exp().square_()
        std = (a + b).sqrt_()
        ctx.save_for_backward(a, b, noise / (2 * std))
        return torch.addcmul(m_a + m_b, std, noise).mul_(0.5)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        a, b, slope = ctx.saved_tensors
        half, slope = 0.5 * d, d * slope
        return half, slope * a, half, slope * b, None


class _HalfCauchyKL(torch.autograd.Function):
    r"""Sum of the `kl.log_normal_from_gamma` of a / A^2 and of 1 / b, whose means are E and F.

    .. math:: E + F - \tfrac12 (m_a - 2 \log A - m_b) - \log s_a - \log s_b - \log 2 - 1

    Backwards, times d: E - 1/2 for m_a, E s_a^2 - 1 for log s_a, 1/2 - F for m_b, F s_b^2 - 1 for log s_b.
    """

    @staticmethod
    def forward(ctx: Any, m_a: Tensor, log_s_a: Tensor, m_b: Tensor, log_s_b: Tensor, scale: float) -> Tensor:
        a, b, log_scale = log_s_a.exp().square_(), log_s_b.exp().square_(), math.log(scale)
        e, f = torch.add(m_a - 2 * log_scale, a, alpha=0.5).exp_(), torch.sub(0.5 * b, m_b).exp_()
        ctx.save_for_backward(a, b, e, f)
        linear = torch.sub(m_b, m_a).mul_(0.5).sub_(log_s_a).sub_(log_s_b)
        return linear.add_(e).add_(f).add_(log_scale - math.log(2) - 1)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        a, b, e, f = ctx.saved_tensors
        return d * (e - 0.5), d * (e * a).sub_(1), d * (0.5 - f), d * (f * b).sub_(1), None


class _Regularised(torch.autograd.Function):
    r"""s~ = c (1 + e^r)^{-1/2} with r = 2 log(c / s) and s = t g, from log t, log g and log c. Backwards

    .. math:: d \log t = d \, \tilde s \, \mathrm{sigmoid}(r), \quad d \log g = \sum d \log t,
              \quad d \log c = \sum d \, \tilde s - \sum d \log t.
    """

    @staticmethod
    def forward(ctx: Any, log_local: Tensor, log_scale: Tensor, log_slab: Tensor) -> Tensor:
        log_ratio = (log_slab - log_scale - log_local).mul_(2)
        found = log_ratio.clamp(max=_LARGEST_EXPONENT).exp_().add_(1).rsqrt_().mul_(log_slab.exp())
        ctx.save_for_backward(log_ratio, found)
        return found

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, ...]:
        log_ratio, found = ctx.saved_tensors
        whole = d * found
        local = whole * log_ratio.sigmoid() * (log_ratio <= _LARGEST_EXPONENT)
        total = local.sum()
        return local, total, whole.sum() - total


Scale = GroupLassoScale | HorseshoeScale
