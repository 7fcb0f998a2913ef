"""Files that are either whole or absent: atomic writes, and JSON without NaN."""

import errno
import json
import math
import os
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgmcmc_prune.errors import RunError

#: Entry of a JSON object that holds the checksum of the others.
CHECKSUM = "crc32"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there becomes `path` when the block ends without error.

    The file is flushed to disk before it is renamed, and its directory after, so that a kill or a power cut leaves
    either the old file or the new one. Missing parent directories are made. A block that raises leaves `path` as it
    was and removes the temporary file; only a kill can leave one behind (a hidden `*.partial`, safe to delete).

    Parameters
    ----------
    path : str or Path
        The file to write or replace.

    Yields
    ------
    Path
        An empty file in the same directory.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.touch()
    mode = partial.stat().st_mode
    try:
        with disk_full_is_failure(path):
            yield partial
            partial.chmod(mode)  # safetensors leaves files that only their owner can read
            sync(partial)
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def disk_full_is_failure(path: Path) -> Iterator[None]:
    """Turn the system's word for a full disk into a failure of the run that names the file."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
        if full:
            raise RunError(f"the disk is full: {path} could not be written; free some space and resume") from None
        raise


def sync(path: Path) -> None:
    """Flush a file, or a directory's list of names, to disk.

    Parameters
    ----------
    path : Path
        An existing file or directory.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, obj: Any, checksum: bool = False) -> None:
    """Write `obj` as indented JSON, atomically.

    JSON has no NaN or infinity, and a number must not turn into `null` unseen: pass what may hold them through
    `finite_or_null` first.

    Parameters
    ----------
    path : str or Path
        The file to write or replace.
    obj : dict, list, tuple, str, int, float, bool or None, nested
    checksum : bool
        Add a checksum of a dict's content as its last entry, "crc32", which `read_json` verifies.

    Raises
    ------
    ValueError
        When a float is NaN or infinite.
    TypeError
        When JSON has no form for a value (tensors and NumPy scalars: call `.item()` or `.tolist()` first).
    """
    try:
        if checksum:
            obj = {**obj, CHECKSUM: _checksum(obj)}
        text = json.dumps(obj, indent=2, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; pass it through finite_or_null to write null instead") from None
    except TypeError as error:
        raise TypeError(f"{path}: {error}; use dict, list, str, int, float, bool or None") from None
    with atomic_path(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _checksum(obj: Any) -> str:
    return str(zlib.crc32(json.dumps(obj, sort_keys=True, allow_nan=False).encode()))


def read_json(path: str | Path, checksum: bool = False) -> Any:
    """Read a JSON file; the entry of its checksum, if it has one, is verified and left out.

    Parameters
    ----------
    path : str or Path
    checksum : bool
        Whether it must have one.

    Returns
    -------
    dict, list, str, int, float, bool or None

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it is not JSON, or is damaged.
    """
    try:
        obj = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from None
    stored = obj.pop(CHECKSUM, None) if isinstance(obj, dict) else None
    if stored is None and checksum:
        raise ValueError(f"{path} is damaged: it has no checksum, which was written with it")
    if stored is not None and stored != _checksum(obj):
        raise ValueError(f"{path} is damaged, or was edited: its checksum does not match its content")
    return obj


def finite_or_null(obj: Any) -> Any:
    """Copy nested dicts, lists and tuples with every NaN and infinite float replaced by None.

    Parameters
    ----------
    obj : anything `write_json` takes, and non-finite floats

    Returns
    -------
    the same structure, tuples as lists
    """
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {key: finite_or_null(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [finite_or_null(value) for value in obj]
    return obj


@contextmanager
def locked(path: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process, however that ends.

    Parameters
    ----------
    path : Path
        Made if it does not exist, and left there.
    wait_seconds : float
        How long to wait for another process to release it; infinite: as long as it takes.

    Raises
    ------
    ValueError
        If another process holds it.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ValueError(
                        f"{path.parent} is in use: another process is running or resuming it; wait for it to end"
                    ) from None
                time.sleep(0.05)
        yield
