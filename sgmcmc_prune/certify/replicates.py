"""Many chains in one tensor: samplers act on elements and noise is independent by element, so rows are replicates."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sgmcmc_prune.certify.targets import Target
from sgmcmc_prune.samplers import Sampler

Array = NDArray[np.float64]
#: Called with named parameters and the settings of `Sampler`; a class, usually.
MakeSampler = Callable[..., Sampler]


class Replicates:
    """R chains on one target, driven by one sampler.

    Parameters
    ----------
    make : callable
    target : Target
    count : int
        R.
    tensors : int
        Parameters over which the rows are spread: one, unless the sampler has state that a whole tensor shares, such as
        a thermostat. Then a replicate is a tensor.
    mass : Array, shape (d,), optional
        A diagonal mass matrix, as if learned before.
    dtype : torch.dtype
        Of the positions; gradients are computed in float64, on the CPU.
    device : str
        Of the positions.
    **settings
        Of the sampler.

    Attributes
    ----------
    w : Tensor, shape (R, d)
        Positions; zero at first.
    """

    def __init__(
        self,
        make: MakeSampler,
        target: Target,
        count: int,
        tensors: int = 1,
        mass: Array | None = None,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        self.target = target
        self.w = torch.zeros(count, target.dimension, dtype=dtype, device=device)
        self.parameters = {f"w{i}": nn.Parameter(part) for i, part in enumerate(self.w.chunk(tensors))}
        shared = {"num_data": target.num_data, "prior": target.prior(self.parameters), **settings}
        self.sampler = make(self.parameters.items(), **shared)
        if mass is not None:
            for p in self.parameters.values():
                self.sampler.state[p]["mass"] = torch.from_numpy(mass).to(self.w).expand_as(p).clone()

    @property
    def positions(self) -> Array:
        """The positions, shape (R, d)."""
        return self.w.double().cpu().numpy()

    @property
    def buffer(self) -> Array | None:
        """Momentum buffers b, shape (R, d), of a sampler that has them."""
        states = [self.sampler.state[p] for p in self.parameters.values()]
        found = [s["momentum_buffer"] for s in states if "momentum_buffer" in s]
        return torch.cat(found).double().cpu().numpy() if found else None

    def place(self, positions: Array, buffers: Array) -> None:
        """Put the replicates somewhere."""
        self.w.copy_(torch.from_numpy(positions))
        if "momentum" in self.sampler.param_groups[0]:
            parts = torch.from_numpy(buffers).chunk(len(self.parameters))
            for p, part in zip(self.parameters.values(), parts, strict=True):
                self.sampler.state[p]["momentum_buffer"] = part.to(self.w, copy=True)

    def advance(self, steps: int, gradient_variance: float = 0.0, seed: int = 0) -> Iterator[int]:
        """Take steps, and yield after each; independent noise of the given variance is added to the gradients."""
        generator = torch.Generator().manual_seed(seed)
        for step in range(steps):
            gradient = self.target.gradient(self.w.double().cpu())
            if gradient_variance > 0:
                noise = torch.randn(self.w.shape, generator=generator, dtype=torch.float64)
                gradient += math.sqrt(gradient_variance) * noise
            parts = gradient.to(self.w).chunk(len(self.parameters))
            for p, part in zip(self.parameters.values(), parts, strict=True):
                p.grad = part
            self.sampler.step()
            yield step
