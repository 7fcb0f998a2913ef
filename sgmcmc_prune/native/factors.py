"""Call the C kernels of variational factors and gates.

What they compute stands in `statistics` and `gates` of `baselines.variational`. Tensors are float32, contiguous, on the
CPU.
"""

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.native.library import load
from sgmcmc_prune.native.step import KEY, threads


def factor_statistics(mean: Tensor, log_std: Tensor, logits: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each entry, and row sums (4, J), or (2, J) without gates."""
    m = mean if logits is None else torch.empty_like(mean)
    w, sums = torch.empty_like(mean), mean.new_empty(2 if logits is None else 4, len(mean))
    inputs = (_pointer(x) for x in (mean, log_std, logits))
    outputs = (x.data_ptr() for x in (m, w, sums))
    load().factor_statistics(*inputs, len(mean), mean[0].numel(), *outputs, threads(mean.numel()))
    return m, w, sums


def factor_gradient(
    mean: Tensor, log_std: Tensor, logits: Tensor | None, dm: Tensor, dw: Tensor, dsums: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of mean, log_std and logits from those of what `factor_statistics` returned."""
    found = torch.empty_like(mean), torch.empty_like(mean), None if logits is None else torch.empty_like(mean)
    given = dm.contiguous(), dw.contiguous(), dsums.contiguous()  # by name, so that they live as long as the call
    pointers = [_pointer(x) for x in (mean, log_std, logits, *given, *found)]
    load().factor_gradient(*pointers[:3], len(mean), mean[0].numel(), *pointers[3:], threads(mean.numel()))
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
