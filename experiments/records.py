"""Records of an experiment in one JSON file: a command adds what is missing, so it goes on where it was stopped.

A record begins with the values of its cell: what was run on what, with which settings. Cells with other settings stand
beside each other; delete the file to begin anew.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sgmcmc_prune.store.files import read_json, write_json

Record = dict[str, Any]


def complete(
    path: Path, cells: Iterable[Record], compute: Callable[..., Record], show: Callable[[Record], str]
) -> list[Record]:
    """Compute the cells that have no record yet, write each at once, and print a line for every cell beside a bar.

    Parameters
    ----------
    path : Path
        Of the JSON file `{"runs": [...]}`; its folder is made.
    cells : iterable of dict
        JSON-ready.
    compute : callable
        Called with a cell's values by name; returns the rest of its record.
    show : callable
        From a record to its line.

    Returns
    -------
    list of dict
        All records of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    runs: list[Record] = read_json(path)["runs"] if path.exists() else []
    cells = list(cells)
    with tqdm(total=len(cells), unit="cell", disable=None) as bar:
        for cell in cells:
            found = next((run for run in runs if all(run.get(key) == value for key, value in cell.items())), None)
            if found is None:
                runs.append(found := cell | compute(**cell))
                write_json(path, {"runs": runs})
            tqdm.write(show(found))
            bar.update()
    return runs
