"""Progress of long work: a bar in a terminal, a line a minute in a log file; only what is shown needs tqdm."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

#: Who is told what a piece of work does now; nobody, unless somebody listens.
_listeners: list[Callable[[str], object]] = []


class Silent:
    """A bar that shows nothing but what is written to it."""

    disable, n, initial = True, 0, 0

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count, for nobody."""

    def skip(self, steps: int) -> None:
        """Count what was done before, for nobody."""

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Say nothing."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Nothing is open."""

    def write(self, message: str) -> None:
        """Print a line."""
        print(message, flush=True)


def bar(total: int, unit: str, *, desc: str | None = None, initial: int = 0, disable: bool = False) -> Any:
    """A progress bar on standard error.

    Parameters
    ----------
    total : int
    unit : str
        What is counted.
    desc : str, optional
        What stands before it.
    initial : int
        How many were done before.
    disable : bool
        Show nothing.

    Returns
    -------
    tqdm or Silent
    """
    if disable:
        return Silent()
    from tqdm import tqdm

    from sgmcmc_prune.machine.log_bar import LogBar

    kind = tqdm if sys.stderr.isatty() else LogBar
    return kind(total=total, unit=unit, desc=desc, initial=initial, dynamic_ncols=True, mininterval=0.5)


def tell(text: str) -> None:
    """Say what a long piece of work does now, to whoever listens."""
    for listener in _listeners:
        listener(text)


@contextmanager
def listening(listener: Callable[[str], object]) -> Iterator[None]:
    """Have a function called with whatever is told meanwhile."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def counted(numbers: Sequence[int], name: str, unit: str, progress: bool) -> Iterable[int]:
    """The numbers, with a progress bar if wanted."""
    if not progress:
        return numbers
    from tqdm import tqdm

    return tqdm(numbers, desc=name, unit=unit)
