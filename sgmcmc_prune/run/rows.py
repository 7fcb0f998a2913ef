"""The rows of an evaluation, each in a file once it is computed: one that was stopped goes on, and ranks share it."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sgmcmc_prune import __version__
from sgmcmc_prune.store.files import finite_or_null, read_json, write_json

Row = dict[str, Any]
#: Of what a kept row holds. One of another form is computed again: raise it with every change of a row's content.
FORM = 2


class Rows:
    """Rows by name, in a folder.

    Parameters
    ----------
    folder : Path
    settings : mapping
        What the rows depend on: rows of other settings are computed again.
    rank, size : int
        Of the processes that share the rows, and compute each only once.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], rank: int = 0, size: int = 1) -> None:
        self.folder, self.rank, self.size, self._asked = folder, rank, size, 0
        self.settings = {**settings, "version": __version__, "form": FORM}

    @property
    def shared(self) -> bool:
        """Whether other processes compute some of the rows."""
        return self.size > 1

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the rows that are asked for next which this process has yet to compute."""
        turns = enumerate(names, self._asked)
        return [name for turn, name in turns if turn % self.size == self.rank and self._kept(name) is None]

    def take(self, name: str, compute: Callable[[], Row]) -> Row:
        """The row of that name: from its file, or computed; without content where it is another process's to compute.

        A damaged file is none: its row is computed again.

        Parameters
        ----------
        name : str
            Every process asks for the same names in the same order.
        compute : callable
            Gives a row, in what `write_json` can write, but for numbers that are not finite.
        """
        mine = self._asked % self.size == self.rank
        self._asked += 1
        if (kept := self._kept(name)) is not None:
            return kept
        if not mine:
            return {}
        row = compute()
        self.folder.mkdir(exist_ok=True)
        write_json(self._path(name), {"about": self._about(name), "row": finite_or_null(row)}, checksum=True)
        return row

    def _kept(self, name: str) -> Row | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            kept = read_json(self._path(name), checksum=True)
            if kept.get("about") == self._about(name):
                return dict(kept["row"])
        return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _about(self, name: str) -> Any:
        return finite_or_null({**self.settings, "row": name})
