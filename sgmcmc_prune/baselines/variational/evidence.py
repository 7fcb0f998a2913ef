"""Log odds of inclusion from a normal posterior, in closed form, for both kinds of spike (see `saha`)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sgmcmc_prune import native
from sgmcmc_prune.baselines import kl
from sgmcmc_prune.priors.groups import GroupMap


def continuous_spike_log_odds(
    mean: Tensor, variance: Tensor, groups: GroupMap | None, spike_std: float, slab_std: float, inclusion: float
) -> Tensor:
    """R1: log odds of inclusion of each group (of each entry without groups), shape (G,).

    An entry of variance zero was masked before: it has no say, and a group of such entries has log odds -inf.
    """
    alive = (variance != 0).to(variance)
    evidence = math.log(spike_std / slab_std) + 0.5 * (mean.square() + variance) * (spike_std**-2 - slab_std**-2)
    evidence = evidence * alive
    if groups is not None:
        evidence, alive = groups.sum(evidence), groups.sum(alive)
    return (kl.log_odds(inclusion) + evidence).masked_fill(alive == 0, -math.inf)


def continuous_spike_divergence(
    mean: Tensor,
    log_std: Tensor,
    kept: Tensor | None,
    groups: GroupMap | None,
    spike_std: float,
    slab_std: float,
    inclusion: float,
) -> Tensor:
    r"""R1: divergence of a tensor's factors and indicators from the mixture prior, at the optimal phi, 0-d.

    The indicators of the groups g (of the entries without groups) are optimised out: phi_g is the sigmoid of
    `continuous_spike_log_odds`, l_g. With q_i = mu_i^2 + sigma_i^2 what is left is

    .. math::
        \sum_i \log s_0 - \log\sigma_i - \tfrac12 + \tfrac{q_i}{2 s_0^2} - \sum_g \log(1 - \pi) + \log(1 + e^{l_g}).

    Its gradient is that of sum_g phi_g KL(slab) + (1 - phi_g) KL(spike) with phi held. Where `kept` is 0 an entry
    costs nothing. On a CPU the kernels of `native` do this for entries without groups, elsewhere torch.
    """
    groups = None if groups is not None and groups.kind == "weight" else groups  # each entry its own
    spike, slab = spike_std**-2, slab_std**-2
    start, step = kl.log_odds(inclusion), math.log(spike_std / slab_std)
    each, none = math.log(spike_std) - 0.5, math.log1p(-inclusion)
    if groups is None and kept is None and native.takes(mean) and native.takes(log_std):
        constant = mean.numel() * (each - none)
        found: Tensor = _ContinuousSpikeDivergence.apply(mean, log_std, start + step, spike, slab, constant)
        return found
    q, log_stds, count = (2 * log_std).exp() + mean.square(), log_std, torch.ones_like(mean)
    if kept is not None:
        q, log_stds, count = q * kept, log_std * kept, kept
    sums, sizes = (q, count) if groups is None else (groups.sum(q), groups.sum(count))
    odds = torch.add(sizes * step + start, sums, alpha=0.5 * (spike - slab))
    return count.sum() * each - odds.numel() * none + 0.5 * spike * q.sum() - log_stds.sum() - F.softplus(odds).sum()


class _ContinuousSpikeDivergence(torch.autograd.Function):
    """`continuous_spike_divergence` by the kernels; with p = phi s_1^-2 + (1 - phi) s_0^-2,
    d mu = p mu and d log sigma = p sigma^2 - 1.
    """

    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, log_std: Tensor, odds: float, spike: float, slab: float, constant: float
    ) -> Tensor:
        ctx.law = odds, 0.5 * (spike - slab), spike, slab
        ctx.save_for_backward(mean, log_std)
        a, b, marginals = native.spike_sums(mean, log_std, *ctx.law[:2])
        return mean.new_tensor(constant + 0.5 * spike * b - a - marginals)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (mean, log_std), (odds, slope, spike, slab) = ctx.saved_tensors, ctx.law
        found = native.spike_gradient(mean, log_std, odds, slope, spike, slab, float(gradient))
        return *found, *[None] * 4


def point_spike_log_odds(
    mean: Tensor, variance: Tensor, groups: GroupMap | None, slab_std: float, inclusion: float
) -> Tensor:
    """R2: log odds of inclusion of each group (of each entry without groups), shape (G,).

    An entry of variance zero was masked before: it has no say, and a group of such entries has log odds -inf.
    """
    masked = variance == 0
    safe = torch.where(masked, torch.ones_like(variance), variance)
    evidence = 0.5 * (safe / slab_std**2).log() + 0.5 * mean.square() / safe
    evidence = torch.where(masked, torch.zeros_like(evidence), evidence)
    if groups is not None:
        evidence = groups.sum(evidence)
        masked = groups.sum((~masked).to(variance)) == 0
    return (kl.log_odds(inclusion) + evidence).masked_fill(masked, -math.inf)


def any_active(inclusion: Tensor, weights: GroupMap, groups: GroupMap) -> Tensor:
    r"""Probability :math:`1 - \prod_i (1 - \phi_i)` that a group has an active weight, shape (G,)."""
    per_weight = weights.expand(inclusion).double()
    return -torch.expm1(groups.sum(torch.log1p(-per_weight.clamp_max(1 - 1e-15))))
