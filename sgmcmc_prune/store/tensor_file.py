"""Named tensors in one safetensors file, with a checksum that is verified on reading.

The checksum covers names, types, shapes and bytes of all tensors, and what the file says about them; safetensors itself
notices a truncated file, but not a flipped bit.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sgmcmc_prune.store.files import atomic_path, disk_full_is_failure


class Damaged(ValueError):
    """A file whose content is not what was written."""


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], format: str, **about: str) -> None:
    """Write tensors, atomically.

    Parameters
    ----------
    path : path-like
        The file to write or replace.
    tensors : mapping of str to Tensor
        Of any type safetensors knows, on any device, shared or not contiguous.
    format : str
        Kind and version of the content, such as "sgmcmc_prune.draw/1".
    **about : str
        What the file says about them.

    Raises
    ------
    RunError
        If the disk is full.
    """
    with atomic_path(path) as partial:
        fill(partial, tensors, format, **about)


def fill(partial: Path, tensors: Mapping[str, Tensor], format: str, **about: str) -> None:
    """Write tensors into a file of `atomic_path`."""
    from safetensors import SafetensorError  # here: masks and samplers work without it
    from safetensors.torch import save_file

    plain = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}
    metadata = {"format": format, **about}
    with disk_full_is_failure(partial):
        try:
            save_file(plain, partial, {**metadata, "crc32": str(_checksum(plain, metadata))})
        except SafetensorError as error:
            raise OSError(f"{partial}: {error}") from None


def read_tensors(path: str | os.PathLike[str], format: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote.

    Parameters
    ----------
    path : path-like
    format : str
        What the file must be.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.
    about : dict of str to str

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Damaged
        If the file is truncated, damaged, or of another kind.
    ValueError
        If it is of another version of this kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {os.fspath(path)}") from None
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} is not a whole file of tensors: {error}") from None
    checksum, found = about.pop("crc32", None), about.get("format", "")
    kind, _, version = found.partition("/")
    if kind != format.partition("/")[0]:
        raise Damaged(f"{path} is not of format {format}: its format is {found or 'not stated'}")
    if found != format:
        raise ValueError(
            f"{path} is of version {version} of {kind}, and this release reads {format}: use the release that wrote it"
        )
    if checksum != str(_checksum(tensors, about)):
        raise Damaged(f"{path} is damaged: its checksum does not match its content")
    del about["format"]
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """CRC-32 over what the file says and every tensor's name, type, shape and bytes."""
    crc = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        x = tensors[name]
        crc = zlib.crc32(f"{name} {x.dtype} {tuple(x.shape)}".encode(), crc)
        crc = zlib.crc32(x.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc
