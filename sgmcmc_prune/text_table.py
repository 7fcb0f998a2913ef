"""A table that a person reads in the terminal, aligned."""

import math
from collections.abc import Sequence


def format_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align text left in the first column and right in the others, under a rule."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *[c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]]).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(header), rule, *map(line, rows)])


def number(value: float | None, digits: int) -> str:
    """A number with fixed digits; a dash where there is none."""
    return "-" if missing(value) else f"{value:.{digits}f}"


def counted(count: int, noun: str) -> str:
    """A number of things: "1 test example", "10,000 test examples"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def missing(value: float | None) -> bool:
    """Whether there is no number: None, as JSON has it, or NaN."""
    return value is None or math.isnan(value)
