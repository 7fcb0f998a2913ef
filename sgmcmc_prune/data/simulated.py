"""The nonlinear variable-selection designs of Ke and Fan, and of Sun, Song and Liang: few relevant inputs of thousands.

Inputs share a factor, x_j = (e + z_j) / sqrt(2) with e and z_j standard normals truncated to [-10, 10], so that every
pair correlates at 1/2. With noise eps ~ N(0, 1), the targets are

    1:  tanh(2 tanh(2 x0 - x1)) + 2 tanh(tanh(x2 - 2 x3)) - tanh(2 x4) + eps        (1000 inputs)
    2:  5 x1 / (1 + x0^2) + 5 sin(x2 x3) + 2 x4 + eps                               (2000 inputs)
    3:  1[exp(x0) + x1^2 + 5 sin(x2 x3) - 3 > 0]                                    (1000 inputs, no noise)
    4:  tanh(2 tanh(2 x0 - x1)) + 2 tanh(2 tanh(x2 - 2 x3) - tanh(2 x4)) + eps      (1000 inputs)

Ke and Fan have 1 to 3, Sun et al. 4, 2 and 3 (there with balanced classes; here 49 % are ones).

References
----------
Ke, Fan (arXiv 2210.12957); Sun, Song, Liang: Consistent sparse deep learning (JASA 2022).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sgmcmc_prune.data.seeding import seeded_generator


@dataclass(frozen=True)
class Design:
    """One simulated problem: `signal` maps inputs (n, num_inputs) to the noise-free score (n,)."""

    number: int
    num_inputs: int
    support: tuple[int, ...]
    signal: Callable[[Tensor], Tensor]
    binary: bool = False


def _tanh_sum(x: Tensor) -> Tensor:
    first = (2 * (2 * x[:, 0] - x[:, 1]).tanh()).tanh()
    return first + 2 * (x[:, 2] - 2 * x[:, 3]).tanh().tanh() - (2 * x[:, 4]).tanh()


def _network(x: Tensor) -> Tensor:
    first = (2 * (2 * x[:, 0] - x[:, 1]).tanh()).tanh()
    return first + 2 * (2 * (x[:, 2] - 2 * x[:, 3]).tanh() - (2 * x[:, 4]).tanh()).tanh()


def _ratio_and_sine(x: Tensor) -> Tensor:
    return 5 * x[:, 1] / (1 + x[:, 0].square()) + 5 * (x[:, 2] * x[:, 3]).sin() + 2 * x[:, 4]


def _boundary(x: Tensor) -> Tensor:
    return x[:, 0].exp() + x[:, 1].square() + 5 * (x[:, 2] * x[:, 3]).sin() - 3


DESIGNS = {
    1: Design(1, 1000, (0, 1, 2, 3, 4), _tanh_sum),
    2: Design(2, 2000, (0, 1, 2, 3, 4), _ratio_and_sine),
    3: Design(3, 1000, (0, 1, 2, 3), _boundary, binary=True),
    4: Design(4, 1000, (0, 1, 2, 3, 4), _network),
}


def simulate(design: Design, num_data: int, seed: int, split: str = "train") -> tuple[Tensor, Tensor]:
    """Draw examples of a design.

    Parameters
    ----------
    design : Design
    num_data : int
        Number of examples, n.
    seed : int
        Any integer.
    split : str
        Any name, such as "train" or "test". Splits of one seed are independent in factor, inputs and noise (the
        released code drew the test noise as a copy of the training noise).

    Returns
    -------
    inputs : Tensor, shape (n, num_inputs), float32
    targets : Tensor, shape (n,), float32
        0 or 1 where the design is binary.

    Raises
    ------
    ValueError
        If `num_data` is not positive.
    """
    if num_data < 1:
        raise ValueError(f"num_data is {num_data}; simulate at least one example")
    purpose = f"ke-fan-{design.number}-{split}"
    shared = truncated_normal((num_data, 1), seeded_generator(f"{purpose}-factor", seed))
    own = truncated_normal((num_data, design.num_inputs), seeded_generator(f"{purpose}-inputs", seed))
    inputs = own.add_(shared).div_(math.sqrt(2))
    signal = design.signal(inputs)
    if design.binary:
        return inputs, (signal > 0).float()
    return inputs, signal + torch.randn(num_data, generator=seeded_generator(f"{purpose}-noise", seed))


def truncated_normal(shape: tuple[int, ...], generator: torch.Generator, bound: float = 10.0) -> Tensor:
    """Standard normals conditioned on [-bound, bound], float32: those outside are drawn again."""
    if not bound > 0:
        raise ValueError(f"bound is {bound}; it must be > 0")
    values = torch.randn(shape, generator=generator)
    while bool((outside := values.abs() > bound).any()):
        values[outside] = torch.randn(int(outside.sum()), generator=generator)
    return values
