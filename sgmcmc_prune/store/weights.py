"""Full weight draws: one safetensors file per draw, written as the chain runs."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sgmcmc_prune.store.tensor_file import read_tensors, write_tensors

FORMAT = "sgmcmc_prune.draw/1"


class WeightStore:
    """The directory `draws/` of a run, one file `chain0-00000.safetensors` per chain and draw.

    Parameters
    ----------
    directory : str or Path
        Made on the first `save`.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def save(self, chain: int, draw: int, state: Mapping[str, Tensor]) -> None:
        """Write one draw, atomically.

        Parameters
        ----------
        chain, draw : int
            Counted from 0.
        state : mapping of str to Tensor
            All weights (and buffers) by name, of any shape, dtype and device.
        """
        write_tensors(self._file(chain, draw), state, FORMAT)

    def load(self, chain: int, draw: int) -> dict[str, Tensor]:
        """Read one draw.

        Parameters
        ----------
        chain, draw : int

        Returns
        -------
        dict of str to Tensor
            On the CPU, each with the shape and dtype it was saved with.

        Raises
        ------
        ValueError
            When the draw is not there, or its file is damaged.
        """
        file = self._file(chain, draw)
        try:
            return read_tensors(file, FORMAT)[0]
        except FileNotFoundError:
            raise ValueError(f"{file} does not exist: chain {chain} has {self.count(chain)} weight draws") from None

    def first_damaged(self, chain: int, draws: int) -> tuple[int, str] | None:
        """Find the first of so many draws that is missing or does not verify: its number, and what is wrong."""
        for draw in range(draws):
            try:
                self.load(chain, draw)
            except ValueError as error:
                return draw, str(error)
        return None

    def count(self, chain: int) -> int:
        """Count the draws of a chain that follow each other without a gap, from draw 0 on.

        Parameters
        ----------
        chain : int

        Returns
        -------
        int
        """
        present = self._draws(chain)
        return next(draw for draw in range(len(present) + 1) if draw not in present)

    def truncate(self, chain: int, length: int) -> None:
        """Delete the draws of a chain from number `length` on.

        Parameters
        ----------
        chain, length : int
        """
        for draw in sorted(self._draws(chain), reverse=True):  # the last first: a kill leaves no gap
            if draw >= length:
                self._file(chain, draw).unlink()

    def draws(self, chain: int) -> Iterator[dict[str, Tensor]]:
        """Iterate over the draws of a chain, holding one at a time.

        Parameters
        ----------
        chain : int

        Yields
        ------
        dict of str to Tensor
        """
        for draw in range(self.count(chain)):
            yield self.load(chain, draw)

    def _file(self, chain: int, draw: int) -> Path:
        return self.directory / f"chain{chain}-{draw:05d}.safetensors"

    def _draws(self, chain: int) -> set[int]:
        """Return the numbers of the draws present."""
        matches = (re.fullmatch(rf"chain{chain}-(\d+)\.safetensors", p.name) for p in self.directory.glob("chain*"))
        return {int(match[1]) for match in matches if match}


def estimate_bytes(state: Mapping[str, Tensor], draws: int, chains: int) -> int:
    """Estimate what the full weight draws of a run take on disk.

    Parameters
    ----------
    state : mapping of str to Tensor
        One draw.
    draws : int
        Draws per chain.
    chains : int

    Returns
    -------
    int
        Bytes of tensor data; headers add a few kilobytes per draw.
    """
    return draws * chains * sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def require_space(directory: str | Path, needed: int) -> None:
    """Refuse to start writing what the disk cannot hold.

    Parameters
    ----------
    directory : str or Path
        Where the files will go; it need not exist yet.
    needed : int
        Bytes.

    Raises
    ------
    ValueError
        When less than `needed` is free.
    """
    existing = next(path for path in [Path(directory).absolute(), *Path(directory).absolute().parents] if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ValueError(
            f"full weight draws need {needed / 1e9:.2f} GB under {directory} and {free / 1e9:.2f} GB are free: "
            "keep fewer draws, or turn full weight draws off"
        )


def average(draws: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of some draws, one in memory at a time; what is no floating-point number is the last draw's."""
    sums: dict[str, Tensor] = {}
    last: Mapping[str, Tensor] = {}
    count = 0
    for draw in draws:
        count, last = count + 1, draw
        for name, value in last.items():
            if value.is_floating_point():
                sums[name] = sums[name].add_(value) if name in sums else value.to(torch.float64, copy=True)
    return {name: (sums[name] / count).to(value.dtype) if name in sums else value for name, value in last.items()}
