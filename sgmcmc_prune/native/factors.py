"""Call the C kernels of variational factors.

What they compute stands in `statistics`, `local` and `evidence` of `baselines.variational`. Tensors are float32,
contiguous, on the CPU, and of the sizes that the kernels take: `pointer` refuses others.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.native.library import load
from sgmcmc_prune.native.memory import pointer
from sgmcmc_prune.native.step import KEY, threads


def factor_statistics(
    mean: Tensor, log_std: Tensor, logits: Tensor | None, bias_mean: Tensor | None, bias_log_std: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """Mean and variance of each weight and bias, and row sums (4, J), or (2, J) without gates."""
    m = mean if logits is None else torch.empty_like(mean)
    w, sums = torch.empty_like(mean), mean.new_empty(2 if logits is None else 4, len(mean))
    bias_variance = None if bias_mean is None else torch.empty_like(bias_mean)
    rows, size = len(mean), mean.numel()
    inputs = _pointers(size, mean, log_std, logits) + _pointers(rows, bias_mean, bias_log_std)
    outputs = [*_pointers(size, m, w), pointer(bias_variance, rows), pointer(sums, sums.numel())]
    load().factor_statistics(*inputs, rows, size // max(rows, 1), *outputs, threads(size))
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
    rows, size = len(dm), dm.numel()
    inputs = _pointers(size, *factors[:3]) + _pointers(rows, *factors[3:])
    biases, sums = _pointers(rows, dbias_mean, dbias_variance), pointer(dsums, rows * (2 if dlogits is None else 4))
    outputs = [*_pointers(size, dm, dw), *biases, sums, pointer(dlogits, size)]
    load().factor_gradient(*inputs, rows, size // max(rows, 1), *outputs, threads(size))
    return dm, dw, dlogits, dbias_mean, dbias_variance


def spike_sums(mean: Tensor, log_std: Tensor, odds: float, slope: float) -> tuple[float, float, float]:
    """Sums of log sigma, of q = mu^2 + sigma^2 and of log(1 + e^l) with l = odds + slope q."""
    sums, size = np.zeros(3), mean.numel()
    load().spike_sums(*_pointers(size, mean, log_std), size, odds, slope, sums.ctypes.data, threads(size))
    log_stds, squares, marginals = sums.tolist()
    return log_stds, squares, marginals


def spike_gradient(
    mean: Tensor, log_std: Tensor, odds: float, slope: float, spike: float, slab: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients of mean and log_std, times `scale`, the precision of each entry between spike and slab."""
    found, size = (torch.empty_like(mean), torch.empty_like(mean)), mean.numel()
    inputs = *_pointers(size, mean, log_std), size, odds, slope, spike, slab, scale
    load().spike_gradient(*inputs, *_pointers(size, *found), threads(size))
    return found


def local_draw(
    key: tuple[int, int, int], centre: Tensor, variance: Tensor, scale: Tensor | None, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (n, J), these before the scale, and the slope of the noise; in place of `centre` and `variance`."""
    words, out = np.array(key, dtype=KEY), centre if scale is None else torch.empty_like(centre)
    size, nodes = centre.numel(), centre.shape[1]
    outputs = _pointers(size, centre, variance, out)
    load().local_draw(words.ctypes.data, pointer(scale, nodes), *centre.shape, floor, *outputs, threads(size))
    return out, centre, variance


def local_gradient(
    gradient: Tensor, outputs: Tensor | None, slope: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of centre and variance (n, J), and sums (3, J): of these, and of the scale where there is one."""
    found = torch.empty_like(slope), torch.empty_like(slope), slope.new_empty(3, slope.shape[1])
    gradient, size, nodes = gradient.contiguous(), slope.numel(), slope.shape[1]
    inputs = *_pointers(size, gradient, outputs, slope), pointer(scale, nodes)
    given = *_pointers(size, *found[:2]), pointer(found[2], 3 * nodes)
    load().local_gradient(*inputs, *slope.shape, *given, threads(size))
    return found


def _pointers(size: int, *tensors: Tensor | None) -> list[int]:
    return [pointer(x, size) for x in tensors]
