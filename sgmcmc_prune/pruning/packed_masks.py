"""Masks of several chains at a bit a weight: a table of many rows has one for each row and chain."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.pruning.masks import Mask

#: Of each layer the bits of its mask, and its shape.
Bits = dict[str, tuple[np.ndarray, tuple[int, ...]]]


def pack(mask: Mapping[str, Tensor]) -> Bits:
    """Eight weights to a byte."""
    return {name: (np.packbits(kept.cpu().numpy()), tuple(kept.shape)) for name, kept in mask.items()}


class PackedMasks(Sequence[Mask]):
    """The masks of several chains, each unpacked, on the CPU, when it is asked for.

    Parameters
    ----------
    chains : iterable of dict
        What `pack` has made of the mask of each chain.
    """

    def __init__(self, chains: Iterable[Bits]) -> None:
        self._chains = list(chains)

    def __len__(self) -> int:
        """Chains."""
        return len(self._chains)

    def __getitem__(self, chain: Any) -> Any:
        """The mask of one chain, counted from 0."""
        return {name: _unpacked(bits, shape) for name, (bits, shape) in self._chains[chain].items()}


def _unpacked(bits: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.unpackbits(bits, count=torch.Size(shape).numel())).bool().view(shape)
