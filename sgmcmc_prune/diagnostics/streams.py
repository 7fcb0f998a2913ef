"""Draws that are read a block of parameters at a time, so that memory does not grow with the model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

#: What the statistics may take at the same time, unless told otherwise.
MEMORY = 2**28
#: Working memory per value: the draw, its order, its score in float64, and a padded complex spectrum.
BYTES_PER_VALUE = 160


@dataclass(frozen=True)
class StreamedDraws:
    """Draws of one tensor that are never all in memory.

    Parameters
    ----------
    shape : tuple of int
        (chains, draws, *parameter shape).
    read : callable
        `read(first, last)` gives the draws of the parameters first, ..., last - 1 (in row-major order), shape
        (chains, draws, last - first).
    """

    shape: tuple[int, ...]
    read: Callable[[int, int], Tensor]


def from_files(files: Sequence[Sequence[Path]], name: str, entries: Tensor | None = None) -> StreamedDraws:
    """Draws of one tensor that lie in one safetensors file per draw.

    Parameters
    ----------
    files : sequence of sequence of Path
        `files[chain][draw]`; every chain has the same number of draws.
    name : str
        Of a tensor that every file has.
    entries : int Tensor, shape (n,), optional
        Take these entries alone, counted in row-major order.

    Returns
    -------
    StreamedDraws
        A block reads its own bytes only: the files are mapped into memory, not loaded.

    Raises
    ------
    ValueError
        Without a draw, or when chains have different numbers of them.
    """
    from safetensors import safe_open

    counts = [len(chain) for chain in files]
    if not counts or min(counts) != max(counts) or counts[0] == 0:
        raise ValueError(f"chains have {counts} weight draws; give the same number of draws, at least one, of each")

    def tensor(path: Path) -> Tensor:
        with safe_open(path, framework="pt") as file:
            return cast(Tensor, file.get_tensor(name)).flatten()  # a view of the mapped file: nothing is read yet

    mapped = [[tensor(path) for path in chain] for chain in files]  # each file is opened once, not once a block

    def read(first: int, last: int) -> Tensor:
        block = slice(first, last) if entries is None else entries[first:last]
        return torch.stack([torch.stack([draw[block] for draw in chain]) for chain in mapped])

    shape = shape_in(files[0][0], name) if entries is None else (len(entries),)
    return StreamedDraws((len(files), counts[0], *shape), read)


def shape_in(path: Path, name: str) -> tuple[int, ...]:
    """The shape of a tensor in a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return tuple(file.get_slice(name).get_shape())


def by_block(
    draws: Tensor | StreamedDraws, function: Callable[[Tensor], Tensor], memory: int = MEMORY, progress: bool = False
) -> Tensor:
    """Apply a function to all parameters, block by block.

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, *shape), or StreamedDraws
    function : callable
        From a block (parameters, chains, draws) to (..., parameters).
    memory : int
        Bytes that may be in use at the same time; at least one parameter is taken at a time.
    progress : bool
        Show a progress bar over parameters.

    Returns
    -------
    Tensor, shape (..., *shape), float64
    """
    from tqdm import tqdm

    if len(draws.shape) < 2:
        raise ValueError(f"draws have shape {tuple(draws.shape)}; give (chains, draws, ...)")
    chains, length, *shape = draws.shape
    if isinstance(draws, Tensor):
        if not draws.is_floating_point():
            raise TypeError(f"draws are {draws.dtype}; give floating-point numbers")
        flat = draws.detach().reshape(chains, length, -1)
        draws = StreamedDraws(tuple(draws.shape), lambda first, last: flat[..., first:last])
    size = math.prod(shape)
    block = max(1, memory // (BYTES_PER_VALUE * chains * max(1, length)))
    results = []
    with tqdm(total=size, unit="parameter", unit_scale=True, disable=not progress, dynamic_ncols=True) as bar:
        for first in range(0, size, block):
            last = min(first + block, size)
            results.append(function(draws.read(first, last).permute(2, 0, 1).contiguous()))
            bar.update(last - first)
    if not results:
        raise ValueError(f"draws have shape {(chains, length, *shape)}; there is no parameter")
    whole = torch.cat(results, dim=-1)
    return whole.reshape((*whole.shape[:-1], *shape))
