"""Name the part of a store of draws that cannot be read: Zarr says what is wrong, and not where."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgmcmc_prune.errors import first_line
from sgmcmc_prune.store.tensor_file import Damaged


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn an error of reading a damaged store into one line with the name of its damaged part.

    Parameters
    ----------
    path : Path
        The `posterior.zarr` of a run or of a fork.

    Raises
    ------
    Damaged
        If an error comes out of the block and some part of the store is damaged; otherwise the error itself.
    """
    try:
        yield
    except Exception as error:  # Zarr, its codecs and xarray raise errors of many kinds
        if (path / "zarr.json").is_file() and (part := damaged_part(path)):
            raise Damaged(f"{part} is damaged: {first_line(error)}") from error
        raise


def damaged_part(path: Path) -> Path | None:
    """The first array, or the metadata, of a store that cannot be read; None if all can."""
    import zarr

    try:
        root = zarr.open_group(path, mode="r")
        arrays: list[tuple[str, Any]] = [(n, a) for n, a in root.members(max_depth=None) if isinstance(a, zarr.Array)]
    except Exception:  # as above
        return path
    for name, array in arrays:
        try:
            array[...]
        except Exception:  # as above
            return path / name
    return None
