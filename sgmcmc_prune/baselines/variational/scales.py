r"""Shrinkage scales of a node's weights: the group lasso and the regularised group horseshoe.

A scale multiplies all weights into a node (non-centred form, w = s w~), or enters the prior of w alone (centred form).
With a normalisation layer in between, which undoes any scale, it multiplies the affine parameters of that layer
instead. One module holds the scales of all layers, with what they share: it draws them together, once per forward pass.

- group lasso:   tau_j^2 ~ Gamma((K + 1)/2, rate r/2),   r ~ Gamma(4, rate 2) shared; K is the number of weights scaled.
  With normal weights the marginal is the multi-Laplace exp(-sqrt(r) |w|_2).
- horseshoe:     t_j ~ C+(0, 1),  g ~ C+(0, 1) shared,  s = t_j g,  s~^2 = c^2 s^2 / (c^2 + s^2).
  A half-Cauchy C+(0, 1) is sqrt(a b) with a ~ Gamma(1/2, 1) and b ~ InvGamma(1/2, 1). The regulariser c is fixed, or
  learned with c^2 ~ InvGamma(2, 6).

References
----------
Jantre, Bhattacharya, Maiti: Spike-and-slab shrinkage priors for structurally sparse Bayesian neural networks (IEEE
TNNLS 2024); Piironen, Vehtari: Sparsity information and regularization in the horseshoe (EJS 2017); Ghosh, Yao,
Doshi-Velez (JMLR 2019).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines import kl
from sgmcmc_prune.baselines.variational.factors import LogNormal, noise_like

Regulariser = float | Literal["learned"]

#: Keeps (c / s)^2 and its gradient finite in single precision.
_LARGEST_EXPONENT = 80.0


class Scales(nn.Module, ABC):
    """The scales of a network's nodes.

    Attributes
    ----------
    drawn : dict of str to Tensor, shape (J,)
        By layer, the scales as last drawn.
    """

    drawn: dict[str, Tensor]

    @abstractmethod
    def resample(self, sampled: bool = True, generator: torch.Generator | None = None) -> None:
        """Draw every scale and what they share, or take means."""

    @abstractmethod
    def kl(self) -> Tensor:
        """KL of all scales and of what they share from their priors, 0-d."""

    def __getstate__(self) -> dict[str, Any]:
        # What was drawn belongs to a graph, which can be neither copied nor stored.
        return {name: value for name, value in self.__dict__.items() if name not in ("drawn", "moments")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._means()

    @torch.no_grad()
    def _means(self) -> None:
        self.resample(sampled=False)


class GroupLasso(Scales):
    """The scales tau of a network's nodes, and their rate r (non-centred).

    Parameters
    ----------
    sizes : mapping of layer name to (int, int)
        Number of nodes of each layer, and K: how many weights of a node its scale multiplies.
    std : float
        Starting standard deviation of the logarithms. The rate starts at the mean K, plus one (then tau^2 is near 1).
    """

    shape: Tensor

    def __init__(self, sizes: Mapping[str, tuple[int, int]], std: float) -> None:
        super().__init__()
        self.num_nodes = {name: nodes for name, (nodes, _) in sizes.items()}
        shape = torch.cat([torch.full((nodes,), (k + 1) / 2) for nodes, k in sizes.values()])
        self.register_buffer("shape", shape, persistent=False)
        self.rate = LogNormal(torch.tensor(math.log(sum(k for _, k in sizes.values()) / len(sizes) + 1)), std)
        self.variance = LogNormal(torch.zeros(len(shape)), std)
        self._means()

    def resample(self, sampled: bool = True, generator: torch.Generator | None = None) -> None:
        """Draw every tau, or set it to its mean."""
        if sampled:
            scale = (0.5 * self.variance.draw(generator=generator)).exp()
        else:
            scale = (0.5 * self.variance.mean + 0.125 * (2 * self.variance.log_std).exp()).exp()
        self.drawn = _by_layer(scale, self.num_nodes)

    def kl(self) -> Tensor:
        """KL of all scales from their gamma prior, expected over the rate, and of the rate from its own, 0-d."""
        rate, variance = self.rate, self.variance
        found: Tensor = _GroupLassoKL.apply(variance.mean, variance.log_std, rate.mean, rate.log_std, self.shape)
        return found


class Horseshoe(Scales):
    """The regularised scales s~ of a network's nodes, with their global scale g and regulariser c.

    Parameters
    ----------
    num_nodes : mapping of layer name to int
    std : float
        Starting standard deviation of the logarithms.
    regulariser : float or "learned"
        c; if learned it starts at the square root of 6, the prior mean of c^2.
    centred : bool
        Whether the scales enter the prior of the weights alone (`moments`), or multiply them (`drawn`).

    Attributes
    ----------
    moments : dict of str to (Tensor, Tensor), shape (J,)
        By layer, E log s~ and E s~^-2; E log(c^2 + s^2) by one draw, all else in closed form.
    half_cauchy : HalfCauchy
        t of every node, and last g.
    """

    def __init__(
        self, num_nodes: Mapping[str, int], std: float, regulariser: Regulariser = 1.0, centred: bool = False
    ) -> None:
        super().__init__()
        if regulariser != "learned" and not (isinstance(regulariser, int | float) and regulariser > 0):
            raise ValueError(f"the horseshoe's regulariser is {regulariser!r}; give a number > 0, or 'learned'")
        self.num_nodes, self.centred = dict(num_nodes), centred
        self.half_cauchy = HalfCauchy(sum(num_nodes.values()) + 1, std)
        self.squared_slab = LogNormal(torch.tensor(math.log(6.0)), std) if regulariser == "learned" else None
        self.fixed_log_slab = 0.0 if regulariser == "learned" else math.log(regulariser)
        self._means()

    def resample(self, sampled: bool = True, generator: torch.Generator | None = None) -> None:
        """Draw all scales, g and c, or take their means (of the logarithms)."""
        logs = self.half_cauchy.log_draw(sampled, generator)
        if self.squared_slab is None:
            log_slab = logs.new_tensor(self.fixed_log_slab)
        else:
            log_slab = 0.5 * self.squared_slab.draw(sampled, generator=generator)
        if self.centred:
            log_std, precision = (_by_layer(x, self.num_nodes) for x in self._moments(logs, log_slab))
            self.moments = {name: (log_std[name], precision[name]) for name in self.num_nodes}
        else:
            self.drawn = _by_layer(_Regularised.apply(logs, log_slab), self.num_nodes)

    def _moments(self, logs: Tensor, log_slab: Tensor) -> tuple[Tensor, Tensor]:
        mixed = 0.5 * torch.logaddexp(2 * log_slab, 2 * (logs[:-1] + logs[-1]))
        mean, precision = self.half_cauchy.expected_log(), self.half_cauchy.precision()
        expected_log = self._expected_log_slab() + mean[:-1] + mean[-1] - mixed
        return expected_log, precision[:-1] * precision[-1] + self._slab_precision()

    def saturation(self) -> dict[str, Tensor]:
        """s~ / c at the mean log scales, by layer, shape (J,): near 1 the horseshoe shrinks nothing."""
        mean, log_slab = (
            self.half_cauchy.expected_log(),
            torch.as_tensor(self._expected_log_slab(), device=self.half_cauchy.gamma.mean.device),
        )
        log_scale = mean[:-1] + mean[-1]
        return _by_layer((log_scale - 0.5 * torch.logaddexp(2 * log_slab, 2 * log_scale)).exp(), self.num_nodes)

    def kl(self) -> Tensor:
        """KL of all factors from their priors, 0-d."""
        found = self.half_cauchy.kl()
        if self.squared_slab is None:
            return found
        return found + kl.log_normal_from_inverse_gamma(self.squared_slab.mean, self.squared_slab.log_std, 2.0, 6.0)

    def _expected_log_slab(self) -> Tensor | float:
        """E log c."""
        return self.fixed_log_slab if self.squared_slab is None else 0.5 * self.squared_slab.mean

    def _slab_precision(self) -> Tensor | float:
        """E c^-2."""
        if self.squared_slab is None:
            return math.exp(-2 * self.fixed_log_slab)
        return (-self.squared_slab.mean + 0.5 * (2 * self.squared_slab.log_std).exp()).exp()


def _by_layer(values: Tensor, num_nodes: Mapping[str, int]) -> dict[str, Tensor]:
    """Values of all nodes, apart."""
    return dict(zip(num_nodes, values.split(list(num_nodes.values())), strict=True))


class HalfCauchy(nn.Module):
    """sqrt(a b) with log-normal factors of a and b: itself log-normal, so one normal draw serves for both."""

    def __init__(self, count: int, std: float) -> None:
        super().__init__()
        self.gamma, self.inverse_gamma = (LogNormal(torch.zeros(count), std) for _ in range(2))

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
        """KL of all factors from their priors, 0-d: a and 1 / b are Gamma(1/2, 1)."""
        a, b = self.gamma, self.inverse_gamma
        found: Tensor = _HalfCauchyKL.apply(a.mean, a.log_std, b.mean, b.log_std)
        return found

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
    r"""Sum of the `kl.log_normal_from_gamma` of each a and 1 / b, whose means are E and F:

    .. math:: \sum E + F - \tfrac12 (m_a - m_b) - \log s_a - \log s_b - \log 2 - 1

    Backwards, times d: E - 1/2 for m_a, E s_a^2 - 1 for log s_a, 1/2 - F for m_b, F s_b^2 - 1 for log s_b.
    """

    @staticmethod
    def forward(ctx: Any, m_a: Tensor, log_s_a: Tensor, m_b: Tensor, log_s_b: Tensor) -> Tensor:
        a, b = log_s_a.exp().square_(), log_s_b.exp().square_()
        e, f = torch.add(m_a, a, alpha=0.5).exp_(), torch.sub(0.5 * b, m_b).exp_()
        ctx.save_for_backward(a, b, e, f)
        each = torch.sub(m_b, m_a).mul_(0.5).sub_(log_s_a).sub_(log_s_b).add_(e).add_(f)
        return each.sum() - len(each) * (math.log(2) + 1)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        a, b, e, f = ctx.saved_tensors
        return d * (e - 0.5), d * (e * a).sub_(1), d * (0.5 - f), d * (f * b).sub_(1)


class _Regularised(torch.autograd.Function):
    r"""s~ = c (1 + e^r)^{-1/2} with r = 2 log(c / s) and s = t g, from the logarithms of t, of g (the last entry), and
    of c. Backwards

    .. math:: d \log t = d \, \tilde s \, \mathrm{sigmoid}(r), \quad d \log g = \sum d \log t,
              \quad d \log c = \sum d \, \tilde s - \sum d \log t.
    """

    @staticmethod
    def forward(ctx: Any, logs: Tensor, log_slab: Tensor) -> Tensor:
        log_ratio = (log_slab - logs[-1] - logs[:-1]).mul_(2)
        found = log_ratio.clamp(max=_LARGEST_EXPONENT).exp_().add_(1).rsqrt_().mul_(log_slab.exp())
        ctx.save_for_backward(log_ratio, found)
        return found

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor]:
        log_ratio, found = ctx.saved_tensors
        whole = d * found
        local = whole * log_ratio.sigmoid() * (log_ratio <= _LARGEST_EXPONENT)
        total = local.sum()
        return torch.cat([local, total[None]]), whole.sum() - total


class _GroupLassoKL(torch.autograd.Function):
    r"""Sum of the `kl.log_normal_from_gamma` of each tau^2, with shape h = (K + 1)/2 and rate r/2, and of r.

    With E the means of tau^2, R that of r, and m_r the mean of log r,

    .. math:: \sum_j \log\Gamma(h_j) - h_j (m_r - \log 2 + m_j) + \tfrac12 R E_j - \log s_j - H
              \; + \; \log\Gamma(4) - 4 (\log 2 + m_r) + 2 R - \log s_r - H,

    where H is the entropy of a standard normal. Backwards, times d, with Q = (2 + \sum E_j / 2) R: R E_j / 2 - h_j for
    m_j, R E_j s_j^2 / 2 - 1 for log s_j, Q - \sum h_j - 4 for m_r, Q s_r^2 - 1 for log s_r.
    """

    @staticmethod
    def forward(ctx: Any, m: Tensor, log_s: Tensor, m_r: Tensor, log_s_r: Tensor, half: Tensor) -> Tensor:
        variance, variance_r = log_s.exp().square_(), log_s_r.exp().square_()
        rate = torch.add(m_r, variance_r, alpha=0.5).exp_()
        cost = torch.add(m, variance, alpha=0.5).exp_().mul_(0.5 * rate)
        ctx.save_for_backward(variance, variance_r, rate, cost, half)
        log_gamma, entropies = half.lgamma().sum() + math.lgamma(4), (len(m) + 1) * kl.NORMAL_ENTROPY
        each = torch.addcmul(cost, half, m_r - math.log(2) + m, value=-1).sub_(log_s)
        return each.sum() + 2 * rate - 4 * (math.log(2) + m_r) - log_s_r + log_gamma - entropies

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        variance, variance_r, rate, cost, half = ctx.saved_tensors
        q = 2 * rate + cost.sum()
        return (
            d * (cost - half),
            d * (cost * variance).sub_(1),
            d * (q - half.sum() - 4),
            d * (q * variance_r - 1),
            None,
        )
