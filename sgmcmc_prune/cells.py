"""A grid of cells: pieces of work that are finished once, each in a process of its own, and kept.

A comparison of methods, a sweep over variants and a table of an experiment are the same thing: methods x settings x
seeds, each hours long, on a machine that may be taken away. So all of them are cells. A `Cell` is a function, found by
its name in another process, and plain settings; its result is JSON. A grid says where results are kept: `Files` for a
file each, `Records` for one file of all. `complete` computes what is missing. What is finished is never computed again,
and a cell that fails, or a signal, takes nothing away from the others. Several processes, of one machine or of a
cluster with a shared file system, may complete one grid: each cell is claimed by the one that begins it.

A cell gets a process of its own even where only one runs at a time: its peak memory, its threads and its random state
then do not depend on its neighbours, and one that is killed is one missing row.

This module is also the worker, started by `complete` and never by hand: `python -m sgmcmc_prune.cells THREADS WORK`.
"""

import itertools
import json
import math
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sgmcmc_prune.chains.processes import Elsewhere, num_workers, reporting, run_workers, work
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.machine.cores import visible_gpus
from sgmcmc_prune.machine.progress import bar as progress_bar
from sgmcmc_prune.machine.progress import listening
from sgmcmc_prune.settings import require
from sgmcmc_prune.store.claims import Claims
from sgmcmc_prune.store.files import finite_or_null, locked, read_json, write_json

Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One piece of work.

    Parameters
    ----------
    name : str
        As people are told of it, such as "rigl, seed 0".
    function : callable
        Of a module, so that another process finds it by its name. Called with `settings` and `places` by name; returns
        its result, JSON-ready but for NaN, or None if it has written its file itself, as a run does.
    settings : dict
        What makes the result what it is; JSON-ready.
    places : dict
        What does not: folders, devices; JSON-ready.
    """

    name: str
    function: Callable[..., Any]
    settings: Record
    places: Record = field(default_factory=dict)

    @cached_property
    def stored(self) -> Record:
        """The settings as JSON gives them back: tuples are lists."""
        settings: Record = json.loads(json.dumps(self.settings))
        return settings


def product(
    function: Callable[..., Any],
    axes: Mapping[str, Iterable[Any]],
    settings: Record | None = None,
    places: Record | None = None,
) -> list[Cell]:
    """Make a cell for each combination of values.

    Parameters
    ----------
    function : callable
        Of all cells.
    axes : mapping of iterables
        From a setting to its values; the first changes slowest. Their values name a cell, as in "rigl, seed 0".
    settings, places : dict, optional
        What all cells share.
    """
    chosen = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    names = [", ".join(v if isinstance(v, str) else f"{k} {v}" for k, v in one.items()) for one in chosen]
    return [Cell(name, function, one | (settings or {}), places or {}) for name, one in zip(names, chosen, strict=True)]


@dataclass
class Files:
    """Cells that have a file each.

    Parameters
    ----------
    cells : list of Cell
    path : callable
        From a cell to its JSON file. A file is refused where what it says of the cell's settings is something else.
    claims : Path
        A file by which processes that complete the grid together share its cells.
    """

    cells: list[Cell]
    path: Callable[[Cell], Path]
    claims: Path

    def find(self, cell: Cell) -> Any:
        """What the cell's file holds; ValueError if that is the result of other settings."""
        path = self.path(cell)
        if not path.is_file():
            return None
        result = read_json(path)
        rows = result if isinstance(result, list) else [result]
        other = [f"{k} ({row[k]})" for k, v in cell.stored.items() for row in rows[:1] if row.get(k, v) != v]
        require(not other, f"{path} is of a cell with other {', '.join(other)}; choose another folder")
        return result

    def keep(self, cell: Cell, result: Any) -> None:
        """Write the cell's file."""
        write_json(self.path(cell), finite_or_null(result))


@dataclass
class Records:
    """Cells whose results stand in one file, as records: the settings of a cell, and then its result, a dict.

    Records of other settings may stand beside them; they come first, and those of the cells in the order of the cells.

    Parameters
    ----------
    cells : list of Cell
    path : Path
    read, write : callable
        Where the file has another form than `{"runs": [...]}`.
    """

    cells: list[Cell]
    path: Path
    read: Callable[[Path], list[Record]] = lambda path: read_json(path)["runs"]
    write: Callable[[Path, list[Record]], None] = lambda path, records: write_json(path, {"runs": records})
    _all: list[Record] = field(default_factory=list, init=False, repr=False)
    _version: tuple[int, ...] = field(default=(), init=False, repr=False)

    @property
    def claims(self) -> Path:
        """A file by which processes that complete the grid together share its cells."""
        return self.path.with_name(f".{self.path.name}.claims")

    @property
    def all(self) -> list[Record]:
        """The records of the file, those of other settings included."""
        if not self.path.is_file():
            return []
        now = self.path.stat()
        if (version := (now.st_mtime_ns, now.st_size, now.st_ino)) != self._version:
            self._all, self._version = self.read(self.path), version
        return self._all

    def find(self, cell: Cell) -> Record | None:
        """The record that has the cell's settings."""
        return next((record for record in self.all if _is_of(record, cell)), None)

    def keep(self, cell: Cell, result: Record) -> None:
        """Add the cell's record to the file, to which another process may have added others.

        A file that was removed meanwhile is written again, with all that it held when it was last read.
        """
        with locked(self.path.with_name(f".{self.path.name}.lock"), wait_seconds=math.inf):
            others = self.all if self.path.is_file() else self._all
            record = cell.settings | finite_or_null(result)
            self._all, self._version = sorted([*others, record], key=self._place), ()
            self.write(self.path, self._all)

    def _place(self, record: Record) -> int:
        return next((i for i, cell in enumerate(self.cells) if _is_of(record, cell)), -1)


def _is_of(record: Record, cell: Cell) -> bool:
    return all(record.get(key) == value for key, value in cell.stored.items())


def complete(
    grid: Files | Records,
    jobs: int = 1,
    threads: int | None = None,
    progress: bool = True,
    show: Callable[[Cell, Any], str] | None = None,
    device: str = "cpu",
) -> list[Any]:
    """Compute the cells that have no result yet, and keep each result at once; cells of one name are one cell.

    Cells that another process computes are left to it, and computed here only if it ends without a result.

    Parameters
    ----------
    grid : Files or Records
    jobs : int
        Processes at once.
    threads : int, optional
        Of each process; by default the processes share the threads of this one.
    progress : bool
        Show a bar over cells.
    show : callable, optional
        From a cell and its result to a line, printed for each finished cell.
    device : str
        Where cells compute. With "cuda", those that run at once see one GPU each, in turn.

    Returns
    -------
    list
        The results in the order of the cells.

    Raises
    ------
    ValueError
        If a result on disk is of other settings, or `jobs` is not positive; before anything is computed.
    Interrupted
        After SIGINT or SIGTERM. The same call goes on.
    RunError
        When all others are finished, if some cells failed; it names them and their reasons.
    """
    require(jobs >= 1, f"jobs is {jobs}; it must be at least 1")
    cells = {cell.name: cell for cell in grid.cells}
    found = {name: result for name, cell in cells.items() if (result := grid.find(cell)) is not None}
    todo = [cell for name, cell in cells.items() if name not in found]
    threads = threads or max(1, torch.get_num_threads() // num_workers(jobs))
    with (
        closing(Claims(grid.claims)) as claims,
        progress_bar(len(cells), "cell", initial=len(found), disable=not progress) as bar,
    ):
        course = _Course(grid, todo, claims, bar, show, found)
        for name, result in found.items():
            course.say(cells[name], result)
        commands, gpus = [_command(cell, threads) for cell in todo], visible_gpus() if device == "cuda" else []
        run_workers(commands, jobs, bar, course.ended, course.begin, gpus)
    if course.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in course.failed.items())
        raise RunError(f"{len(course.failed)} of {len(cells)} cells failed, the others are finished: {reasons}")
    return [found[name] for name in cells]


@dataclass
class _Course:
    """How far a grid has come: what is asked before a worker takes a cell, and done after it."""

    grid: Files | Records
    todo: list[Cell]
    claims: Claims
    bar: Any
    show: Callable[[Cell, Any], str] | None
    found: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)

    def say(self, cell: Cell, result: Any) -> None:
        """Print the line of a finished cell."""
        if self.show is not None:
            self.bar.write(self.show(cell, result))
            sys.stdout.flush()

    def begin(self, index: int) -> bool:
        """Claim a cell; another process may have finished it before."""
        if not self.claims.take(self.todo[index].name):
            self.bar.set_postfix_str(f"{self.todo[index].name} is computed by another process", refresh=False)
            raise Elsewhere
        if self.grid.find(self.todo[index]) is None:
            return True
        self.bar.update()
        return False

    def ended(self, index: int, future: Future[Any]) -> None:
        """Keep what a worker has left, and let another process have the cell if that is nothing."""
        cell = self.todo[index]
        try:
            result = future.result()
        except RunError as error:
            self.failed[cell.name] = str(error)
            self.claims.release(cell.name)
            return
        try:
            if result is not None:
                self.grid.keep(cell, result)
        except ValueError as error:  # a file that somebody damaged meanwhile: the result goes beside it
            aside = self.grid.claims.with_name(f"{cell.name.replace('/', '-')}.not-kept.json")
            write_json(aside, {"settings": cell.settings, "result": finite_or_null(result)})
            self.failed[cell.name] = f"{error} (its result is in {aside})"
            return
        finally:
            self.claims.release(cell.name)
        if (kept := self.grid.find(cell)) is None:
            self.failed[cell.name] = "it left no result"
        else:
            self.found[cell.name] = kept
            self.say(cell, kept)


def computed(grid: Files | Records, cell: Cell) -> Any:
    """The result of one cell, computed in this process where it is missing: what a cell itself consists of."""
    if (kept := grid.find(cell)) is None:
        grid.keep(cell, cell.function(**cell.settings, **cell.places))
        kept = grid.find(cell)
    return kept


def missing(grid: Files | Records) -> str:
    """Which cells have no result, in words; empty if all have one."""
    names = [cell.name for cell in grid.cells if grid.find(cell) is None]
    return f"{len(names)} of {len(grid.cells)} cells are missing: {'; '.join(names)}" if names else ""


@contextmanager
def interruption_in_words() -> Iterator[None]:
    """End the program after an interruption, with a line that says how to go on and exit code 130 or 143."""
    try:
        yield
    except Interrupted as stop:
        print("interrupted; finished cells are saved. Go on with the same command")
        sys.exit(stop.exit_code)


def _command(cell: Cell, threads: int) -> list[str]:
    """The command line of a cell's worker."""
    module = sys.modules[cell.function.__module__]
    known = module.__spec__.name if module.__spec__ else module.__name__  # a script run by -m is "__main__", too
    function = f"{known}:{cell.function.__qualname__}"
    require(known != "__main__" and "<" not in function, f"no other process finds {function}; move it to a module")
    what = {"name": cell.name, "function": function, "path": sys.path}
    return [sys.executable, "-m", __name__, str(threads), json.dumps(what | {"given": cell.settings | cell.places})]


def _work(what: Record) -> None:
    """Compute a cell and give its result; warnings, and where in the code a bug came up, are said at once."""
    sys.path.extend(folder for folder in what["path"] if folder not in sys.path)
    with reporting() as bar:
        bar.set_description(what["name"])
        bar.close()

        def say(message: Warning | str, *_: Any, **__: Any) -> None:
            bar.write(f"{what['name']}: {message}")

        def show(text: str) -> None:
            bar.set_postfix_str(text)
            bar.close()

        warnings.showwarning = say
        try:
            with listening(show):
                result = pkgutil.resolve_name(what["function"])(**what["given"])
        except Exception as error:
            if not isinstance(error, RunError | ValueError | FileNotFoundError):
                bar.write(traceback.format_exc())
            raise
        bar.update()
        bar.close(given=result)


if __name__ == "__main__":
    sys.exit(work(lambda: _work(json.loads(sys.argv[2])), int(sys.argv[1])))
