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
    """A number with fixed digits after the point, none of 1,000 or more; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:,.{decimals(digits, value)}f}"


def decimals(digits: int, *values: float) -> int:
    """How many digits stand after the point of numbers that are read together."""
    return 0 if max(map(abs, values)) >= 1000 else digits


def in_words(name: str) -> str:
    """A name of ours without underscores; a user's own, "module:attribute", as it is."""
    return name if ":" in name else name.replace("_", " ")


def counted(count: int, noun: str) -> str:
    """A number of things: "1 test example", "10,000 test examples"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def missing(value: float | None) -> bool:
    """Whether there is no number: None, as JSON has it, or NaN."""
    return value is None or math.isnan(value)
