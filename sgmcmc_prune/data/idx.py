"""The idx file format of MNIST and its relatives, plain or gzip-compressed, for unsigned bytes.

An idx file is a magic number (two zero bytes, the type, the number of dimensions), one big-endian 32-bit size per
dimension, and the values in C order. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "File
formats" (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import hashlib
import math
import struct
import zlib
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_UNSIGNED_BYTE = 0x08
#: Bytes in a file, at most.
_MOST = 2**60


def read_idx(source: Traversable, ndim: int, sha256: str | None = None) -> Tensor:
    """Read an idx file of unsigned bytes; a name ending in `.gz` is decompressed first.

    Parameters
    ----------
    source : Traversable
        A `pathlib.Path` or a package resource.
    ndim : int
        Number of dimensions the file must have: 3 for images, 1 for labels.
    sha256 : str, optional
        Checksum of the *uncompressed* file (hexadecimal).

    Returns
    -------
    Tensor, uint8, with the shape the file states

    Raises
    ------
    ValueError
        If the file is corrupt, cut short or too long, or has another magic number or checksum.
    """
    data = uncompressed(source.read_bytes(), str(source), sha256)
    return _parse(data, str(source), ndim)


def uncompressed(data: bytes, name: str, sha256: str | None) -> bytes:
    """Decompress the content of a file if its name ends in `.gz`, and verify the checksum of the result.

    The checksum is that of the uncompressed bytes because packagers compress again: Debian's copy of Fashion-MNIST
    drops the file name from the gzip header, so the compressed files differ though the data do not.

    Raises
    ------
    ValueError
        If the content is not a whole gzip stream, or the checksum differs.
    """
    if name.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{name}: {len(data)} bytes found that are not a whole gzip file ({error})") from error
    if sha256 is not None:
        verify(data, name, sha256, "the uncompressed data")
    return data


def verify(data: bytes, name: str, sha256: str, what: str = "the file") -> None:
    """Raise ValueError unless the content of a file has this checksum (hexadecimal)."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(f"{name}: sha256 of {what} is {found}, expected {sha256}; replace the file")


def _parse(data: bytes, name: str, ndim: int) -> Tensor:
    """Turn the bytes of an uncompressed idx file into a tensor."""
    start = 4 + 4 * ndim
    magic, expected = int.from_bytes(data[:4], "big"), _magic(ndim)
    other_shape = data[:3] == expected.to_bytes(4, "big")[:3] and magic != expected  # such as labels for images
    if len(data) < start and not other_shape:
        raise ValueError(f"{name}: {len(data)} bytes found, expected at least the {start} of an idx header")
    if magic != expected:
        raise ValueError(
            f"{name}: magic number 0x{magic:08x} found, expected 0x{expected:08x} (unsigned bytes, {ndim} dimensions)"
        )
    shape = struct.unpack(f">{ndim}I", data[4:start])
    if math.prod(max(1, n) for n in shape) > _MOST:  # NumPy refuses these even where another size is zero
        raise ValueError(f"{name}: its header states the shape {shape}, more than a file can hold; replace the file")
    size = start + math.prod(shape)
    if len(data) != size:
        raise ValueError(f"{name}: {len(data)} bytes found, expected {size} for the shape {shape} it states")
    # A copy, because the bytes object is read-only and a tensor is not.
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())


def write_idx(path: Path, values: Tensor) -> None:
    """Write unsigned bytes as an idx file; a name ending in `.gz` is compressed (level 9, no time stamp).

    Parameters
    ----------
    path : Path
        The file to write.
    values : Tensor, uint8, any shape

    Raises
    ------
    TypeError
        If `values` does not hold unsigned bytes.
    """
    if values.dtype != torch.uint8:
        raise TypeError(f"{path}: an idx file is written from uint8 values, not {values.dtype}")
    data = struct.pack(f">{1 + values.ndim}I", _magic(values.ndim), *values.shape) + values.numpy(force=True).tobytes()
    path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def _magic(ndim: int) -> int:
    """Two zero bytes, the type, the number of dimensions."""
    return _UNSIGNED_BYTE << 8 | ndim
