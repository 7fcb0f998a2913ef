"""Tables of results as CSV: whoever writes one, the first columns are the same."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgmcmc_prune.store.files import atomic_path

#: What every row of every table of results says. `gradient_evaluations` are backward passes of one example; `data`
#: names the data set, and says where its files are not the official ones.
COMMON = ("method", "seed", "sparsity", "split", "accuracy", "nll", "ece", "gradient_evaluations", "seconds", "data")


def write_results(path: Path, rows: Sequence[Mapping[str, Any]], others: Sequence[str] = ()) -> None:
    """Write rows, the common columns first; what is None is an empty cell.

    Parameters
    ----------
    path : Path
    rows : sequence of mappings
    others : sequence of str
        The columns that follow.

    Raises
    ------
    ValueError
        If a row lacks a common column, or has one that is not named.
    """
    columns = (*COMMON, *others)
    for row in rows:
        if absent := [name for name in COMMON if name not in row]:
            raise ValueError(f"a row of {path} lacks {', '.join(absent)}; every table of results has these columns")
        if unknown := [name for name in row if name not in columns]:
            raise ValueError(f"a row of {path} has {', '.join(unknown)}, which are no columns of it")
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def data_label(name: str, official: bool) -> str:
    """How a table names a data set."""
    return name if official else f"{name} (not the official files)"
