"""A flag on a device: that a gradient was not finite, which the host is told when it asks.

On a CPU a sampler raises before anything has moved. A GPU would have to be waited for at every step. So the first step
with such a gradient is noted on the device, and `check` reads it where the chain stops to log, to draw or to save.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sgmcmc_prune.errors import RunError
from sgmcmc_prune.samplers.step import Memory


def flag_of(memory: Memory, device: torch.device) -> Tensor:
    """The flag of a sampler's memory, a 0-d int64 tensor on the device; reading it waits for the device."""
    if memory.flag is None:
        memory.flag = torch.zeros((), dtype=torch.int64, device=device)
    return memory.flag


def raise_flag(memory: Memory, gradients: Sequence[Tensor], step: int) -> None:
    """Raise the flag if it is down and a gradient of the step is not finite; the host does not wait to know."""
    if gradients := [g for g in gradients if g.numel()]:
        flag = flag_of(memory, gradients[0].device)
        largest = torch.stack(torch._foreach_norm(gradients, math.inf))
        flag.masked_fill_((flag == 0) & ~largest.isfinite().all().to(flag.device), step + 1)


def check(memory: Memory) -> None:
    """Raise RunError if the flag is up; for log points, since it waits for the device."""
    first = int(memory.flag) if memory.flag is not None else 0
    if first:
        raise RunError(
            f"a gradient is not finite at step {first - 1}: the chain has diverged. Lower the step size, or look for "
            "infinite or missing values in the data"
        )
