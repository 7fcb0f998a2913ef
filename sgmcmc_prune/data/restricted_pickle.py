"""Read the pickles in which CIFAR is published, without running anything they say.

A pickle is a program: it may call whatever it can name. Here it can name three things, and each resolves to an inert
stand-in of ours, never to NumPy itself. The audit is the table below: what is not in it is refused. This is the one
place in the library where a pickle is opened.
"""

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Type:
    """Stands for `numpy.dtype`: remembers the code it is made with, such as b"u1"."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and fields: a type of one byte has neither."""


class _Array:
    """Stands for an array: keeps shape, type and bytes as the pickle gives them."""

    def __setstate__(self, state: Any) -> None:
        """Take (version, shape, type, Fortran order, bytes)."""
        _, self.shape, self.type, self.fortran, self.content = state

    def numpy(self) -> NDArray[np.uint8]:
        """The array, a copy; ValueError unless it holds unsigned bytes in C order that fill its shape."""
        code = getattr(self.type, "code", None)
        if code not in (b"u1", "u1") or self.fortran or not isinstance(self.content, bytes):
            raise ValueError(f"an array of type {code!r} found, expected unsigned bytes ('u1') in C order")
        return np.frombuffer(self.content, np.uint8).reshape(self.shape).copy()


def _reconstruct(*_: Any) -> _Array:
    """Stands for NumPy's function that makes an empty array, which its state then fills."""
    return _Array()


#: Every name that a pickle may use, and what it gets.
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the table, and nowhere else."""
        if (module, name) not in ALLOWED:
            allowed = ", ".join(f"{m}.{n}" for m, n in ALLOWED)
            raise ValueError(f"it names {module}.{name}; only {allowed} are allowed")
        return ALLOWED[module, name]


def read_mapping(data: bytes, name: str) -> dict[str, Any]:
    """Read a pickled dictionary of lists, strings and arrays of unsigned bytes.

    Parameters
    ----------
    data : bytes
        The content of the file.
    name : str
        What to call it in an error.

    Returns
    -------
    dict
        With text keys; byte strings stay bytes, arrays are NumPy's.

    Raises
    ------
    ValueError
        If the content is no such pickle or names anything that is not in `ALLOWED`.
    """
    try:
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} found, expected a dictionary")
        return {_text(k): v.numpy() if isinstance(v, _Array) else v for k, v in value.items()}
    except (pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError, MemoryError) as error:
        raise ValueError(f"{name} is not a file of CIFAR's python layout: {error}") from error


def _text(key: Any) -> str:
    return key.decode("ascii", "replace") if isinstance(key, bytes) else str(key)
