"""Call the C kernels of variational factors: see `baselines.variational.statistics` for what they compute."""

import torch
from torch import Tensor

from sgmcmc_prune.native.library import load
from sgmcmc_prune.native.step import threads


def factor_statistics(mean: Tensor, log_std: Tensor, logits: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each entry, and row sums (4, J), or (2, J) without gates; all float32, contiguous, on the CPU."""
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


def _pointer(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()
