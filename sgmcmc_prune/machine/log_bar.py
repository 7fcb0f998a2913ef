"""A progress bar of tqdm for a log file."""

import time
from typing import Any

from tqdm import tqdm

#: Seconds between two lines of a log, and before the first one, which says how long all will take.
LOG_SECONDS, FIRST_SECONDS = 60.0, 10.0
#: Seconds between two looks at the speed.
LOOK_SECONDS = 1.0
_LINE = "{desc}: {percentage:.0f}% ({n_fmt}/{total_fmt} {unit}s) after {elapsed}, {remaining} left{postfix}"


class LogBar(tqdm):
    """A bar for a file: whole lines, one soon, then a minute apart, and one at the end; nothing is overwritten."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._due = time.monotonic() + FIRST_SECONDS
        super().__init__(*arguments, **{**options, "bar_format": _LINE, "mininterval": LOOK_SECONDS})

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Set what stands before the colon; tqdm would add one of its own."""
        self.set_description_str(desc, refresh)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print a line if it is time for one; as long as nothing has moved, nothing is known of the time left."""
        if self.n == self.initial:
            self._due = time.monotonic() + FIRST_SECONDS
        elif time.monotonic() >= self._due:
            self._print()

    def close(self) -> None:
        """Print the last line."""
        if not bool(self.disable):
            self.disable: bool = True
            self._decr_instances(self)
            self._print()

    def _print(self) -> None:
        self._due = time.monotonic() + LOG_SECONDS
        print(str(self), file=self.fp, flush=True)
