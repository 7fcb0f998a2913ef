"""Call the C kernels on tensors: the noise alone, or a whole step of SGHMC or SGLD for many tensors at once.

The weights of all tensors are laid end to end and cut into one part per thread of torch.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.native.library import load
from sgmcmc_prune.native.memory import Description, describe, fits, is_dense, laid_out, pointer

#: Under this many weights a second thread costs more than it saves.
WEIGHTS_PER_THREAD = 20_000
PRIORS = {"flat": 0, "gaussian": 1, "mixture": 2, "held": 3}
NOISES = {"none": 0, "gaussian": 1, "rademacher": 2}

#: The C structures of kernels.c, field by field.
KEY = np.dtype([("seed", "u4"), ("chain_and_stream", "u4"), ("step", "u8")], align=True)
#: The key, the noise; lr, momentum, rescale, noise_scale, per_datum.
SETTINGS = struct.Struct("=IIQi5f")
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
    """Where the tensors of a step lie in memory, and the prior of each; for as long as its weights lie where they do.

    A row is a weight, with tensors of its shape beside it. Each is described whenever it is pointed at, and looked at
    when its description has changed: what does not lie like its weight is copied, a buffer must. The noise counter runs
    along memory, so a weight that is not contiguous needs its noise given.

    Parameters
    ----------
    weights : sequence of Tensor
        All float32 and dense, on one device.
    offsets : sequence of int
        Noise offset of each weight tensor.

    Attributes
    ----------
    weights : list of Tensor
    contiguous : bool
        Whether all weights are.

    Raises
    ------
    ValueError
        If a kernel cannot take a weight.
    """

    def __init__(self, weights: Sequence[Tensor], offsets: Sequence[int]) -> None:
        for w in weights:
            if w.dtype != torch.float32 or w.device != weights[0].device or not is_dense(w):
                raise ValueError(
                    f"a weight is {w.dtype} on {w.device} with shape {tuple(w.shape)} and strides {w.stride()}; "
                    "kernels need float32, on one device, without gaps"
                )
        self.weights = list(weights)
        self.contiguous = all(w.is_contiguous() for w in weights)
        self.rows = np.zeros(len(weights), dtype=_TENSOR)
        self.rows["weight"] = [w.data_ptr() for w in weights]
        self.rows["size"] = [w.numel() for w in weights]
        self.rows["offset"] = offsets
        self.total = int(self.rows["size"].sum())
        self.address: int = self.rows.ctypes.data
        self._described: dict[str, list[Description | None]] = {}
        self._kept: dict[str, Sequence[Tensor | None]] = {}
        self._forms: list[Any] = [None] * len(weights)

    def point(self, **columns: Sequence[Tensor | None]) -> None:
        """Set columns of pointers (buffer, gradient, mass, noise, held, mask); None leaves one out.

        Raises
        ------
        ValueError
            If a tensor has another shape than its weight, or a buffer another layout or type.
        """
        for name, tensors in columns.items():
            described = describe(tensors)
            if described == self._described.get(name):
                self._kept[name] = tensors  # what C points to must stay alive
            else:
                self._point_at(name, tensors, described)

    def _point_at(self, name: str, tensors: Sequence[Tensor | None], described: list[Description | None]) -> None:
        dtype = torch.bool if name == "mask" else torch.float32
        pairs = list(zip(tensors, self.weights, strict=True))
        fit = [x is None or fits(x, w, dtype) for x, w in pairs]
        if name == "buffer" and not all(fit):
            raise ValueError("a buffer does not lie in memory like its weight, or has another type or shape")
        given = [
            x if x is None or as_it_is else laid_out(x, w, dtype) for as_it_is, (x, w) in zip(fit, pairs, strict=True)
        ]
        self.rows[name] = [0 if x is None else x.data_ptr() for x in given]
        self._kept[name] = given
        self._described.pop(name, None)  # a copy is made again at the next step: its source may have other values then
        if all(fit):
            self._described[name] = described

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
) -> bytes:
    """The scalars of a step, as the kernels read them; ValueError for a number that float32 cannot hold."""
    key, scales = (seed, chain << 16 | stream, step), (lr, momentum, rescale, noise_scale, 1 / num_data)
    try:
        return SETTINGS.pack(*key, NOISES[noise], *scales)
    except OverflowError:
        raise ValueError(f"lr is {lr} and the scale of the noise {noise_scale}; float32 cannot hold both") from None


def sghmc_step(table: TensorTable, scalars: bytes) -> None:
    """b <- rescale beta b + force - noise_scale M^(1/2) xi;  w <- w - l M^-1 b;  masked entries are set to zero."""
    _step(load().sghmc_step, table, scalars)


def sgld_step(table: TensorTable, scalars: bytes) -> None:
    """w <- w - l M^-1 force + noise_scale M^-1/2 xi;  masked entries are set to zero."""
    _step(load().sgld_step, table, scalars)


def _step(kernel: Any, table: TensorTable, scalars: bytes) -> None:
    kernel(table.address, len(table.rows), scalars, table.total, threads(table.total))


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
    size = weight.numel()
    pointers = pointer(weight, size), pointer(alive, size, torch.bool)
    load().mixture_sums(*pointers, size, log_odds, slope, sums.ctypes.data)
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
