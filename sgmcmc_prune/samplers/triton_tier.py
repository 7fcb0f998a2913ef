"""The Triton tier: a step of SGHMC or SGLD for all tensors of a parameter group in one launch, on a CUDA GPU.

The kernel is in `triton_kernels`; what it is told is a `step.Step`. The host never waits for the device. So it cannot
raise before a step whose gradients are not finite: it raises a flag on the device (`samplers.flag`), from which on
nothing moves.
"""

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.native import TensorTable
from sgmcmc_prune.native.step import SETTINGS
from sgmcmc_prune.samplers.flag import flag_of, raise_flag
from sgmcmc_prune.samplers.step import Step

#: Of a tensor: the kernel counts them with 32 bits.
MOST_ENTRIES = 2**30


def all_finite(step: Step) -> bool:
    """Raise the flag if a gradient of the step is not finite; True, for the host does not wait to know.

    All groups are looked at before one of them moves.
    """
    raise_flag(step.memory, [p.grad for p in step.parameters if p.grad is not None], step.group["step"])
    return True


def take(step: Step) -> None:
    """One step of SGHMC, or without momentum of SGLD."""
    from sgmcmc_prune.samplers.triton_kernels import BLOCKS, LAUNCH, step_kernel  # Triton is not everywhere

    table = step.table
    if table.total == 0:
        return
    if table not in _copies:
        _copies[table] = DeviceTable(table, step.parameters, BLOCKS)
    copy = _copies[table]
    seed, chain_and_stream, number, *others = SETTINGS.unpack(step.scalars)
    key = int(np.uint64(chain_and_stream << 32 | seed).astype(np.int64))
    rows = copy.rows(table)
    flag = flag_of(step.memory, step.parameters[0].device).to(rows.device)
    with torch.cuda.device_of(rows):
        grid = (len(copy.places),)
        step_kernel[grid](rows, copy.places, flag, key, number, *others, BLOCKS=BLOCKS, **LAUNCH)
    table.release()


class DeviceTable:
    """The rows of a table on the device, sent again when one has changed, and what each program works on.

    Parameters
    ----------
    table : TensorTable
    weights : sequence of Tensor
    blocks : int
        Counter blocks, of four weights each, a program takes.

    Attributes
    ----------
    places : Tensor, shape (programs, 4), int64
        Row, first counter block, and the memory order of the row's weight.
    """

    def __init__(self, table: TensorTable, weights: Sequence[Tensor], blocks: int) -> None:
        self.places = torch.from_numpy(places(table, weights, blocks)).to(weights[0].device)
        self._sent = b""
        self._rows = self.places

    def rows(self, table: TensorTable) -> Tensor:
        """The rows, as words of 8 bytes."""
        now = table.rows.tobytes()
        if now != self._sent:
            # A copy: memory that is not pinned has been read when an asynchronous transfer returns.
            self._rows = torch.from_numpy(np.frombuffer(now, np.int64).copy()).to(self.places.device, non_blocking=True)
            self._sent = now
        return self._rows


_copies: WeakKeyDictionary[TensorTable, DeviceTable] = WeakKeyDictionary()


def places(table: TensorTable, weights: Sequence[Tensor], blocks: int) -> np.ndarray:
    """Row, first counter block, channels and inner size of each program, shape (programs, 4), int64."""
    found = []
    for row, (weight, size, offset) in enumerate(zip(weights, table.rows["size"], table.rows["offset"], strict=True)):
        order = memory_order(weight)
        assert order is not None
        first = np.arange(int(offset) // 4, (int(offset + size) + 3) // 4, blocks)
        found.append(np.column_stack([np.full_like(first, row), first, *(np.full_like(first, n) for n in order)]))
    return np.concatenate(found)


def memory_order(w: Tensor) -> tuple[int, int] | None:
    """How the entries of a weight lie in memory.

    Returns
    -------
    (int, int) or None
        (1, 1) if in the order of their indices; (C, I) if the last dimension in memory is one of size C, in front of
        others with I entries, such as channels last; None for any other order, or gaps.
    """
    if w.is_contiguous():
        return 1, 1
    for k in range(w.dim() - 1):
        if w.movedim(k, -1).is_contiguous():
            return w.shape[k], math.prod(w.shape[k + 1 :])
    return None
