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
        mean_rate, log_rate = 0.5 * (rate.mean + 0.5 * (2 * rate.log_std).exp()).exp(), rate.mean - math.log(2)
        each = kl.log_normal_from_gamma(variance.mean, variance.log_std, self.shape, mean_rate, log_rate)
        return each.sum() + kl.log_normal_from_gamma(rate.mean, rate.log_std, 4.0, 2.0, math.log(2))


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
            log_ratio = (2 * (log_slab - logs[-1] - logs[:-1])).clamp(max=_LARGEST_EXPONENT)  # (c / s)^2
            self.drawn = _by_layer(log_slab.exp() * (1 + log_ratio.exp()).rsqrt(), self.num_nodes)

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
        return self.expected_log() + 0.5 * self._log_variance().sqrt() * noise_like(self.gamma.mean, generator)

    def kl(self) -> Tensor:
        """KL of all factors from their priors, 0-d: a and 1 / b are Gamma(1/2, 1)."""
        a, b = self.gamma, self.inverse_gamma
        of_a = kl.log_normal_from_gamma(a.mean, a.log_std, 0.5, 1.0, 0.0)
        return (of_a + kl.log_normal_from_gamma(-b.mean, b.log_std, 0.5, 1.0, 0.0)).sum()

    def _log_variance(self) -> Tensor:
        """Variance of log(a b)."""
        return (2 * self.gamma.log_std).exp() + (2 * self.inverse_gamma.log_std).exp()
