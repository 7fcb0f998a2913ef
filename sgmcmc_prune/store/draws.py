"""Streamed Zarr draws in ArviZ's layout: append, flush, truncate.

Arrays are allocated in full when the store is made, and a chain only ever writes chunks of its own: chains may write
from separate processes. The group `progress` says how many slots of each group a chain has flushed. It is written
last, so that a kill at any moment leaves every counted draw whole.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgmcmc_prune.store.files import disk_full_is_failure
from sgmcmc_prune.store.layout import Group, Static, Variable, create_store

__all__ = ["DrawStore", "Group", "Variable"]


class DrawStore:
    """Draws of all chains of a run, open for writing; made by `create` or `open`.

    Parameters
    ----------
    path : Path
        An existing store.
    root : zarr.Group
        The same, opened.
    """

    def __init__(self, path: Path, root: Any) -> None:
        self.path = path
        progress = root["progress"]
        self._counters: dict[str, Any] = dict(progress.arrays())
        self._arrays = {name: _sampled_arrays(root[name]) for name in self._counters}
        self._buffers: dict[tuple[str, int], list[dict[str, np.ndarray]]] = {}
        self._flushed = {
            (name, chain): int(count)
            for name, counter in self._counters.items()
            for chain, count in enumerate(np.asarray(counter[:]))
        }

    @classmethod
    def create(
        cls,
        path: str | Path,
        groups: Mapping[str, Group],
        chains: int,
        static: Static | None = None,
        coords: Mapping[str, Sequence[Any]] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> "DrawStore":
        """Make an empty store, all slots allocated, and open it.

        Parameters
        ----------
        path : str or Path
            Must not exist.
        groups : mapping of str to Group
            The groups with dimensions `(chain, draw, ...)` or `(chain, record, ...)`.
        chains : int
        static : mapping of group name to mapping of variable name to (dims, array), optional
            Groups without sample dimensions.
        coords : mapping of dimension name to labels, optional
            Strings or integers; `chain`, `draw` and `record` are numbered from 0 without being told.
        attrs : mapping, optional
            JSON-able attributes of the root.

        Returns
        -------
        DrawStore

        Raises
        ------
        ValueError
            When `path` exists, or a name or size contradicts another.
        """
        with disk_full_is_failure(Path(path)):
            create_store(Path(path), groups, chains, static or {}, coords or {}, attrs or {})
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> "DrawStore":
        """Open an existing store to go on writing.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        DrawStore

        Raises
        ------
        ValueError
            When there is no store of draws.
        """
        import zarr

        from sgmcmc_prune.store.durable import DurableStore

        path = Path(path)
        try:
            if not path.is_dir():
                raise FileNotFoundError
            root = zarr.open_group(DurableStore(path), mode="r+")
            return cls(path, root)
        except (FileNotFoundError, KeyError):
            raise ValueError(f"{path} is not a store of draws: there is no Zarr group 'progress' in it") from None

    def count(self, group: str, chain: int) -> int:
        """Count the slots a chain has appended, flushed or not.

        Parameters
        ----------
        group : str
        chain : int

        Returns
        -------
        int

        Raises
        ------
        ValueError
            When the store has no such group or chain.
        """
        self._check(group, chain)
        return self._flushed[group, chain] + len(self._buffers.get((group, chain), []))

    def written(self, group: str, chain: int, variable: str) -> np.ndarray:
        """The slots of a variable that a chain has flushed, shape (slots, ...).

        Parameters
        ----------
        group, variable : str
        chain : int

        Raises
        ------
        ValueError
            When the store has no such group or chain.
        """
        self._check(group, chain)
        return np.asarray(self._arrays[group][variable][chain, : self._flushed[group, chain]])

    def append(self, group: str, chain: int, index: int, values: Mapping[str, Any]) -> None:
        """Add one slot, in memory; `flush` writes it.

        Parameters
        ----------
        group : str
        chain : int
        index : int
            The slot's number; it must be the next one (`count`), or a draw was lost or taken twice.
        values : mapping of str to array-like or Tensor
            Exactly the group's variables, each shaped like its `Variable`. Copied.

        Raises
        ------
        ValueError
            When the group, chain, slot, variables or shapes are not the store's.
        TypeError
            When a value cannot be cast to its variable's type (a float to an integer, say).
        """
        expected = self.count(group, chain)
        arrays = self._arrays[group]
        length = next(iter(arrays.values())).shape[1]
        if index != expected or index >= length:
            raise ValueError(f"slot {index} of {group}, chain {chain}: the next one is {expected} of {length}")
        if values.keys() != arrays.keys():
            raise ValueError(f"slot {index} of {group} has {sorted(values)}: give exactly {sorted(arrays)}")
        slot = {name: _as_numpy(f"{group}/{name}", value, arrays[name]) for name, value in values.items()}
        self._buffers.setdefault((group, chain), []).append(slot)

    def flush(self) -> None:
        """Write all appended slots to disk, then count them; when this returns they survive a kill or power cut."""
        while self._buffers:
            (group, chain), slots = next(iter(self._buffers.items()))
            start = self._flushed[group, chain]
            stop = start + len(slots)
            _write(self._arrays[group], chain, start, {name: [slot[name] for slot in slots] for name in slots[0]})
            self._set_count(group, chain, stop)
            del self._buffers[group, chain]  # only now: a flush that failed can be tried again

    def truncate(self, group: str, chain: int, length: int) -> None:
        """Empty all slots of a chain from number `length` on, on disk and in memory.

        Parameters
        ----------
        group : str
        chain : int
        length : int
            How many slots to keep.

        Raises
        ------
        ValueError
            When the chain has fewer slots than that.
        """
        if not 0 <= length <= self.count(group, chain):
            raise ValueError(
                f"{self.path}: {group}, chain {chain}, holds {self.count(group, chain)} slots, cannot keep {length} of "
                "them: the store is older than the checkpoint"
            )
        self.flush()
        self._set_count(group, chain, length)  # before the slots: a kill in between leaves them uncounted
        for array in self._arrays[group].values():
            array[chain, length:] = array.fill_value

    def _set_count(self, group: str, chain: int, count: int) -> None:
        self._counters[group][chain] = count
        self._flushed[group, chain] = count

    def _check(self, group: str, chain: int) -> None:
        if (group, chain) not in self._flushed:
            raise ValueError(f"{self.path} has no group {group!r} with chain {chain}: it has {sorted(self._flushed)}")


def _sampled_arrays(node: Any) -> dict[str, Any]:
    """Return the variables of a group, without its coordinates."""
    return {name: array for name, array in node.arrays() if array.metadata.dimension_names != (name,)}


def _write(arrays: Mapping[str, Any], chain: int, start: int, columns: Mapping[str, list[np.ndarray]]) -> None:
    """Write consecutive slots of every variable, at the same time: most of it is waiting for the disk."""

    def write(name: str) -> None:
        arrays[name][chain, start : start + len(columns[name])] = np.stack(columns[name])

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(write, columns))


def _as_numpy(where: str, value: Any, array: Any) -> np.ndarray:
    """Copy a value to NumPy in the type and shape of one slot of `array`."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    value = np.asarray(value)
    if value.shape != array.shape[2:]:
        raise ValueError(f"{where} got shape {value.shape}: its slots have shape {array.shape[2:]}")
    if not np.can_cast(value.dtype, array.dtype, casting="same_kind"):
        raise TypeError(f"{where} got {value.dtype} values: its slots hold {array.dtype}")
    return value.astype(array.dtype)
