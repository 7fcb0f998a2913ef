"""Call the C kernels of variational factors and gates.

What they compute stands in `statistics` and `gates` of `baselines.variational`. Tensors are float32, contiguous, on the
CPU.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.native.library import load
from sgmcmc_prune.native.step import KEY, threads


def factor_statistics(
    mean: Tensor, log_std: Tensor, logits: Tensor | None, bias_mean: Tensor | None, bias_log_std: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """Mean and variance of each weight and bias, and row sums (4, J), or (2, J) without gates."""
    m = mean if logits is None else torch.empty_like(mean)
    w, sums = torch.empty_like(mean), mean.new_empty(2 if logits is None else 4, len(mean))
    bias_variance = None if bias_mean is None else torch.empty_like(bias_mean)
    inputs = map(_pointer, (mean, log_std, logits, bias_mean, bias_log_std))
    outputs = map(_pointer, (m, w, bias_variance, sums))
    load().factor_statistics(*inputs, len(mean), mean[0].numel(), *outputs, threads(mean.numel()))
    return m, w, bias_mean, bias_variance, sums


def factor_gradient(
    factors: Sequence[Tensor | None],
    dm: Tensor,
    dw: Tensor,
    dbias_mean: Tensor | None,
    dbias_variance: Tensor | None,
    dsums: Tensor,
) -> tuple[Tensor | None, ...]:
    """Gradients of what `factor_statistics` takes, in place of those of what it returns (but for `dsums`)."""
    dlogits = None if factors[2] is None else torch.empty_like(dm)
    pointers = map(_pointer, (dm, dw, dbias_mean, dbias_variance, dsums, dlogits))
    load().factor_gradient(*map(_pointer, factors), len(dm), dm[0].numel(), *pointers, threads(dm.numel()))
    return dm, dw, dlogits, dbias_mean, dbias_variance


def spike_sums(mean: Tensor, log_std: Tensor, odds: float, slope: float) -> tuple[float, float, float]:
    """Sums of log sigma, of q = mu^2 + sigma^2 and of log(1 + e^l) with l = odds + slope q."""
    sums = np.zeros(3)
    inputs = mean.data_ptr(), log_std.data_ptr(), mean.numel(), odds, slope
    load().spike_sums(*inputs, sums.ctypes.data, threads(mean.numel()))
    log_stds, squares, marginals = sums.tolist()
    return log_stds, squares, marginals


def spike_gradient(
    mean: Tensor, log_std: Tensor, odds: float, slope: float, spike: float, gap: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients of mean and log_std, times `scale`, with the precision spike - gap sigmoid(l) of each entry."""
    found = torch.empty_like(mean), torch.empty_like(mean)
    inputs = mean.data_ptr(), log_std.data_ptr(), mean.numel(), odds, slope, spike, gap, scale
    load().spike_gradient(*inputs, *map(_pointer, found), threads(mean.numel()))
    return found


def local_draw(
    key: tuple[int, int, int], centre: Tensor, variance: Tensor, scale: Tensor | None, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (n, J), these before the scale, and the slope of the noise; in place of `centre` and `variance`."""
    words, out = np.array(key, dtype=KEY), centre if scale is None else torch.empty_like(centre)
    outputs = centre.data_ptr(), variance.data_ptr(), out.data_ptr()
    load().local_draw(words.ctypes.data, _pointer(scale), *centre.shape, floor, *outputs, threads(centre.numel()))
    return out, centre, variance


def local_gradient(
    gradient: Tensor, outputs: Tensor | None, slope: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of centre and variance (n, J), and sums (3, J): of these, and of the scale where there is one."""
    found = torch.empty_like(slope), torch.empty_like(slope), slope.new_empty(3, slope.shape[1])
    gradient = gradient.contiguous()
    pointers = map(_pointer, (gradient, outputs, slope, scale))
    load().local_gradient(*pointers, *slope.shape, *map(_pointer, found), threads(slope.numel()))
    return found


def gate_draw(key: tuple[int, int, int], x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Odds, logits plus logistic noise keyed by (seed, chain and stream, step), and x (n, J) where these are > 0."""
    words, odds, out = np.array(key, dtype=KEY), torch.empty_like(x), torch.empty_like(x)
    inputs = words.ctypes.data, x.data_ptr(), logits.data_ptr()
    load().gate_draw(*inputs, *x.shape, odds.data_ptr(), out.data_ptr(), threads(x.numel()))
    return odds, out


def gate_gradient(x: Tensor, odds: Tensor, dout: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the logits."""
    dx, dlogits, dout = torch.empty_like(x), x.new_empty(x.shape[1]), dout.contiguous()
    inputs = x.data_ptr(), odds.data_ptr(), dout.data_ptr()
    load().gate_gradient(*inputs, *x.shape, temperature, dx.data_ptr(), dlogits.data_ptr(), threads(x.numel()))
    return dx, dlogits


def _pointer(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()
