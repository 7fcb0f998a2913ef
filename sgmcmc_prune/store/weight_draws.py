"""The weight draws of a run as a sequence: what a user iterates over, read one at a time."""

from collections.abc import Iterator, Sequence
from typing import overload

from torch import Tensor

from sgmcmc_prune.store.weights import WeightStore


class Draws(Sequence[dict[str, Tensor]]):
    """The weight draws of a stage, chain after chain, each read when it is asked for.

    Parameters
    ----------
    store : WeightStore
    chains, first, last : int
        The draws first, ..., last - 1 of every chain.
    owner : object
        As long as it lives, the files stay.
    """

    def __init__(self, store: WeightStore, chains: int, first: int, last: int, owner: object) -> None:
        self.store, self.chains, self.first, self.last, self.owner = store, chains, first, last, owner

    def __len__(self) -> int:
        """Draws of all chains."""
        return self.chains * (self.last - self.first)

    @overload
    def __getitem__(self, index: int) -> dict[str, Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Tensor]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Parameters (and buffers) by name."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"draw {index} of {len(self)}")
        chain, draw = divmod(index % len(self), self.last - self.first)
        return self.store.load(chain, self.first + draw)

    def of_chain(self, chain: int) -> Iterator[dict[str, Tensor]]:
        """Those of one chain.

        Parameters
        ----------
        chain : int
            From 0 on.
        """
        return (self.store.load(chain, draw) for draw in range(self.first, self.last))
