"""Nested state to one safetensors file and back, bit for bit; no pickle.

The tensors lie flat in the file, numbered; the structure is JSON in the file's metadata, every node tagged with its
type: `{"dict": [[key, value], ...]}`, `{"tuple": [...]}`, `{"float": "0x1.8p+0"}`, `{"tensor": 7}`.

The last few checkpoints are kept: PATH is the newest, PATH.1 the one before. One that does not verify is set aside as
PATH.damaged, and those before it move up.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sgmcmc_prune.files import atomic_path

#: Name and version of the file's layout and of a chain's state in it; a change of either is a new version.
FORMAT, VERSION = "sgmcmc_prune.checkpoint", 1


class Damaged(ValueError):
    """A file whose content is not what was written."""


def save(path: str | Path, tree: Any, keep: int = 1) -> None:
    """Write a nested state to one safetensors file, atomically.

    Parameters
    ----------
    path : str or Path
        The file to write or replace.
    tree : dict, list, tuple, Tensor, int, float, str, bool or None, nested
        Keys are str or int. Tensors may be of any dtype safetensors knows, on any device, shared or not contiguous.
    keep : int
        How many checkpoints to keep, this one included.

    Raises
    ------
    TypeError
        For any other type, with the place where it stands.
    """
    tensors: list[Tensor] = []
    structure = json.dumps(_encode(tree, "state", tensors))
    named = {str(number): tensor for number, tensor in enumerate(tensors)}
    metadata = {"format": f"{FORMAT}/{VERSION}", "structure": structure, "crc32": str(_checksum(structure, tensors))}
    with atomic_path(path) as partial:
        save_file(named, partial, metadata)
        for age in range(keep - 1, 0, -1):
            if (earlier := _aged(path, age - 1)).exists():
                os.replace(earlier, _aged(path, age))


def load(path: str | Path) -> Any:
    """Read what `save` wrote.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    nested dict, list, tuple, Tensor, int, float, str, bool or None
        Tensors are on the CPU and share no memory; parameters and dict subclasses come back as plain ones.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is truncated, damaged, not a checkpoint of this library, or one of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = [file.get_tensor(str(number)).clone() for number in range(len(file.keys()))]
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise Damaged(f"{path} is not a whole checkpoint: {error}") from None
    name, _, version = metadata.get("format", "").partition("/")
    if name != FORMAT:
        raise Damaged(f"{path} is not a checkpoint of format {FORMAT}: its format is {metadata.get('format')}")
    if version != str(VERSION):
        raise ValueError(
            f"{path} is a checkpoint of version {version}, and this release reads version {VERSION}: "
            "go on with the release that wrote it, which run.json names"
        )
    structure = metadata.get("structure", "")
    if metadata.get("crc32") != str(_checksum(structure, tensors)):
        raise Damaged(f"{path} is damaged: its checksum does not match its content")
    return _decode(json.loads(structure), tensors)


def load_newest(path: str | Path) -> tuple[Any, list[str]]:
    """Read the newest checkpoint that verifies, and make it `path`.

    Parameters
    ----------
    path : str or Path
        What `save` was given.

    Returns
    -------
    state : nested dict, list, tuple, Tensor, int, float, str, bool or None
        As from `load`; None if there is no checkpoint at all.
    damaged : list of str
        One line for each newer checkpoint that did not verify; it is now called NAME.damaged, and not met again.

    Raises
    ------
    ValueError
        When there are checkpoints but none verifies, or when one is of another version.
    """
    ages = [int(age) for p in Path(path).parent.glob(f"{Path(path).name}.*") if (age := p.suffix[1:]).isdecimal()]
    candidates = [p for age in (0, *sorted(ages)) if (p := _aged(path, age)).exists()]
    damaged: dict[Path, str] = {}
    for candidate in candidates:
        try:
            state = load(candidate)
        except Damaged as error:
            damaged[candidate] = str(error)
            continue
        for bad in damaged:
            os.replace(bad, bad.with_name(f"{bad.name}.damaged"))
        if candidate != Path(path):
            os.replace(candidate, path)
        return state, [f"{complaint}; going on from the checkpoint before" for complaint in damaged.values()]
    if damaged:
        raise ValueError(
            f"{'; '.join(damaged.values())}; put a copy in its place, or delete it to begin this chain anew"
        )
    return None, []


def _aged(path: str | Path, age: int) -> Path:
    """The name of a checkpoint that was the newest `age` checkpoints ago."""
    return Path(f"{path}.{age}") if age else Path(path)


def _encode(node: Any, where: str, tensors: list[Tensor]) -> Any:
    """Turn a node into JSON; append its tensors, each copied to contiguous CPU memory, to `tensors`."""
    if isinstance(node, Tensor):
        tensors.append(_plain(node, where))
        return {"tensor": len(tensors) - 1}
    if isinstance(node, dict):
        pairs = [(_key(key, where), value, f"{where}[{key!r}]") for key, value in node.items()]
        return {"dict": [[_encode(key, where, tensors), _encode(value, at, tensors)] for key, value, at in pairs]}
    if type(node) in (list, tuple):
        return {type(node).__name__: [_encode(value, f"{where}[{i}]", tensors) for i, value in enumerate(node)]}
    if type(node) is int:
        return {"int": hex(node)}
    if type(node) is float:
        return {"float": node.hex()}
    if node is None or type(node) in (bool, str):
        return node
    raise TypeError(f"{where} is a {type(node).__name__}: use dict, list, tuple, Tensor, int, float, str, bool or None")


def _key(key: Any, where: str) -> str | int:
    """Give a dict key back if it is one a checkpoint can hold."""
    if type(key) not in (str, int):
        raise TypeError(f"{where} has the key {key!r}, a {type(key).__name__}: use str or int")
    return key


def _plain(tensor: Tensor, where: str) -> Tensor:
    """Copy a tensor to contiguous CPU memory of its own."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.dtype == torch.complex128:
        raise TypeError(
            f"{where} is a {tensor.dtype} tensor on {tensor.device}, {tensor.layout}: use a dense, plain one"
        )
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _checksum(structure: str, tensors: list[Tensor]) -> int:
    """CRC-32 over the structure and every tensor's type, shape and bytes."""
    crc = zlib.crc32(structure.encode())
    for tensor in tensors:
        crc = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def _decode(node: Any, tensors: list[Tensor]) -> Any:
    """Undo `_encode`."""
    if not isinstance(node, dict):
        return node
    [(kind, value)] = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in value}
    if kind == "int":
        return int(value, 16)
    if kind == "float":
        return float.fromhex(value)
    items = [_decode(item, tensors) for item in value]
    return tuple(items) if kind == "tuple" else items
