"""What a kernel must know of a tensor before it reads or writes there: one description, one rule of what fits."""

from collections.abc import Sequence

import torch
from torch import Tensor

#: Address, shape, strides, type, device.
Description = tuple[int, torch.Size, tuple[int, ...], torch.dtype, torch.device]


def describe(tensors: Sequence[Tensor | None]) -> list[Description | None]:
    """Everything that decides where entries of tensors lie: equal descriptions are the same memory, read alike."""
    return [None if x is None else (x.data_ptr(), x.shape, x.stride(), x.dtype, x.device) for x in tensors]


def is_dense(x: Tensor) -> bool:
    """Whether the entries lie in memory without gaps or overlaps, in any order."""
    return x.is_contiguous() or torch.empty_like(x).stride() == x.stride()


def fits(x: Tensor, like: Tensor, dtype: torch.dtype) -> bool:
    """Whether `x` has this type, and an entry for each of `like`, in the same order in memory, on the same device."""
    if x.dtype != dtype or x.shape != like.shape or x.device != like.device:
        return False
    return x.stride() == like.stride() or (x.is_contiguous() and like.is_contiguous())


def laid_out(x: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of `x`, of a type or of its own, in the memory order of `like` and on its device; a scalar fills it.

    Raises
    ------
    ValueError
        If it has another shape.
    """
    if x.dim() and x.shape != like.shape:
        raise ValueError(f"a tensor of shape {tuple(x.shape)} belongs to a parameter of shape {tuple(like.shape)}")
    return torch.empty_like(like, dtype=dtype or x.dtype, requires_grad=False).copy_(x.detach())


def pointer(x: Tensor | None, size: int, dtype: torch.dtype = torch.float32) -> int:
    """The address of so many entries on a CPU, one after the other; 0 for None.

    Raises
    ------
    ValueError
        If the tensor is anything else.
    """
    if x is None:
        return 0
    if x.dtype != dtype or x.numel() != size or x.device.type != "cpu" or not x.is_contiguous():
        raise ValueError(
            f"a kernel needs {size} contiguous entries of {dtype} on a CPU, not a {tuple(x.shape)} tensor of {x.dtype} "
            f"on {x.device} with strides {x.stride()}"
        )
    return x.data_ptr()
