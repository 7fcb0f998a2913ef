"""Progress of long work: a bar in a terminal, a line a minute in a log file."""

import sys
import time
from typing import Any

from tqdm import tqdm

#: Seconds between two lines of a log.
LOG_SECONDS = 60.0
_LINE = "{desc}: {percentage:.0f}% ({n_fmt}/{total_fmt} {unit}s) after {elapsed}, {remaining} left{postfix}"


class LogBar(tqdm):
    """A bar for a file: whole lines, a minute apart, and one at the end; nothing is overwritten."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._shown = time.monotonic()
        super().__init__(*arguments, **{**options, "bar_format": _LINE, "mininterval": LOG_SECONDS})

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Set what stands before the colon; tqdm would add one of its own."""
        self.set_description_str(desc, refresh)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print a line if it is time for one."""
        if time.monotonic() - self._shown >= LOG_SECONDS:
            self._print()

    def close(self) -> None:
        """Print the last line."""
        if not bool(self.disable):
            self.disable: bool = True
            self._decr_instances(self)
            self._print()

    def _print(self) -> None:
        self._shown = time.monotonic()
        print(str(self), file=self.fp, flush=True)


def bar(total: int, unit: str, *, desc: str | None = None, initial: int = 0, disable: bool = False) -> tqdm:
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
    """
    kind = tqdm if sys.stderr.isatty() else LogBar
    return kind(
        total=total, unit=unit, desc=desc, initial=initial, disable=disable, dynamic_ncols=True, mininterval=0.5
    )
