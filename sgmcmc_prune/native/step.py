"""Call the C kernels on tensors: the noise alone, or a whole step of SGHMC or SGLD for many tensors at once.

The weights of all tensors are laid end to end and cut into one part per thread of torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.native.library import load

#: Under this many weights a second thread costs more than it saves.
WEIGHTS_PER_THREAD = 20_000
PRIORS = {"flat": 0, "gaussian": 1, "mixture": 2, "held": 3}
NOISES = {"none": 0, "gaussian": 1, "rademacher": 2}

#: The C structures of kernels.c, field by field.
KEY = np.dtype([("seed", "u4"), ("chain_and_stream", "u4"), ("step", "u8")], align=True)
_SETTINGS = np.dtype(
    [
        ("key", KEY),
        ("noise", "i4"),
        *((name, "f4") for name in ("lr", "momentum", "rescale", "noise_scale", "per_datum")),
    ],
    align=True,
)
_POINTERS = ("weight", "buffer", "gradient", "mass", "noise", "held", "mask")
_TENSOR = np.dtype(
    [
        *((name, "u8") for name in _POINTERS),
        ("size", "i8"),
        ("offset", "u8"),
        ("prior", "i4"),
        *((name, "f4") for name in ("spike", "slab", "log_odds", "slope")),
    ],
    align=True,
)


class TensorTable:
    """Where the tensors of a step lie in memory, and the prior of each. The next step can use it again; a copy cannot.

    All tensors of one weight must be float32 (masks boolean), dense, and laid out alike; the noise counter runs along
    memory, so a weight that is not contiguous needs its noise given.

    Parameters
    ----------
    weights : sequence of Tensor
    offsets : sequence of int
        Noise offset of each weight tensor.
    """

    def __init__(self, weights: Sequence[Tensor], offsets: Sequence[int]) -> None:
        self.rows = np.zeros(len(weights), dtype=_TENSOR)
        self.rows["size"] = [w.numel() for w in weights]
        self.rows["offset"] = offsets
        self.total = int(self.rows["size"].sum())
        self.address: int = self.rows.ctypes.data
        self._kept: dict[str, Any] = {}
        self._forms: list[Any] = [None] * len(weights)
        self.point(weight=weights)

    def point(self, **columns: Sequence[Tensor | None]) -> None:
        """Set columns of pointers (weight, buffer, gradient, mass, noise, held, mask); None leaves one out."""
        for name, tensors in columns.items():
            self.rows[name] = [0 if t is None else t.data_ptr() for t in tensors]
            self._kept[name] = tensors  # what C points to must stay alive

    def release(self) -> None:
        """Let go of the gradients after a step: else they would live until the next ones are made."""
        self._kept.pop("gradient", None)

    def set_prior(self, row: int, kind: str, numbers: Mapping[str, float]) -> None:
        """Set the prior of one tensor: "flat", "gaussian" (spike), "held" (spike, slab), or "mixture" (all four)."""
        if self._forms[row] == (kind, numbers):
            return
        self._forms[row] = kind, numbers
        self.rows["prior"][row] = PRIORS[kind]
        for name, value in numbers.items():
            self.rows[name][row] = value


def settings(
    *,
    seed: int,
    chain: int,
    stream: int,
    step: int,
    noise: str,
    lr: float,
    num_data: int,
    noise_scale: float,
    momentum: float = 0.0,
    rescale: float = 1.0,
) -> np.ndarray:
    """The scalars of a step, as the kernels read them."""
    key = (seed, chain << 16 | stream, step)
    return np.array((key, NOISES[noise], lr, momentum, rescale, noise_scale, 1 / num_data), dtype=_SETTINGS)


def sghmc_step(table: TensorTable, scalars: np.ndarray) -> None:
    """b <- rescale beta b + force - noise_scale M^(1/2) xi;  w <- w - l M^-1 b;  masked entries are set to zero."""
    _step(load().sghmc_step, table, scalars)


def sgld_step(table: TensorTable, scalars: np.ndarray) -> None:
    """w <- w - l M^-1 force + noise_scale M^-1/2 xi;  masked entries are set to zero."""
    _step(load().sgld_step, table, scalars)


def _step(kernel: Any, table: TensorTable, scalars: np.ndarray) -> None:
    kernel(table.address, len(table.rows), scalars.ctypes.data, table.total, threads(table.total))


def all_finite(table: TensorTable) -> bool:
    """Whether every gradient of the table is finite."""
    return bool(load().all_finite(table.address, len(table.rows), table.total, threads(table.total)))


def mixture_sums(
    weight: Tensor, alive: Tensor | None, log_odds: float, slope: float
) -> tuple[float, float, float, float]:
    """Sum r, r w^2, 1 and (1 - r) w^2 over the weights that are alive, with r = sigmoid(log_odds + slope w^2).

    Parameters
    ----------
    weight : Tensor
        float32, contiguous, on the CPU.
    alive : Tensor, optional
        Boolean, as many entries; None is all.
    """
    sums = np.zeros(4)
    pointer = None if alive is None else alive.data_ptr()
    load().mixture_sums(weight.data_ptr(), pointer, weight.numel(), log_odds, slope, sums.ctypes.data)
    included, square, alive_weights, rest = sums.tolist()
    return included, square, alive_weights, rest


def standard_normal(
    seed: int, chain: int, step: int, offset: int, count: int, stream: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """As :func:`sgmcmc_prune.noise.standard_normal`, equal to 4 ulp, on a CPU.

    Returns
    -------
    Tensor, shape (count,), float32
    """
    return _noise(load().standard_normal, (seed, chain << 16 | stream, step), offset, count).to(device)


def rademacher(
    seed: int, chain: int, step: int, offset: int, count: int, stream: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """As :func:`sgmcmc_prune.noise.rademacher`, equal to the bit, on a CPU.

    Returns
    -------
    Tensor, shape (count,), float32
    """
    return _noise(load().rademacher, (seed, chain << 16 | stream, step), offset, count).to(device)


def _noise(kernel: Any, words: tuple[int, int, int], offset: int, count: int) -> Tensor:
    out, key = torch.empty(count, dtype=torch.float32), np.array(words, dtype=KEY)
    kernel(key.ctypes.data, offset, count, out.data_ptr(), threads(count))
    return out


def threads(total: int) -> int:
    """Threads for so many weights, of torch's."""
    return min(torch.get_num_threads(), max(1, total // WEIGHTS_PER_THREAD))
