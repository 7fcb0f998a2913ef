"""Nested state to one safetensors file and back, bit for bit; no pickle.

The tensors lie flat in the file, numbered; the structure is JSON in the file's metadata, every node tagged with its
type: `{"dict": [[key, value], ...]}`, `{"tuple": [...]}`, `{"float": "0x1.8p+0"}`, `{"tensor": 7}`.

The last few checkpoints are kept: PATH is the newest, PATH.1 the one before. One that does not verify is set aside as
PATH.damaged, and those before it move up.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.store.files import atomic_path
from sgmcmc_prune.store.tensor_file import Damaged, fill, read_tensors

#: Name and version of the file's layout and of a chain's state in it; a change of either is a new version.
FORMAT = "sgmcmc_prune.checkpoint/2"


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
    with atomic_path(path) as partial:
        fill(partial, named, FORMAT, structure=structure)
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
    tensors, about = read_tensors(path, FORMAT)
    try:
        return _decode(json.loads(about["structure"]), [tensors[str(number)] for number in range(len(tensors))])
    except (KeyError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} is no checkpoint: its structure cannot be read ({type(error).__name__})") from None


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
    damaged: dict[Path, str] = {}
    for candidate in history(path):
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


def history(path: str | Path) -> list[Path]:
    """The checkpoints that are kept, the newest first."""
    ages = [int(age) for p in Path(path).parent.glob(f"{Path(path).name}.*") if (age := p.suffix[1:]).isdecimal()]
    return [p for age in (0, *sorted(ages)) if (p := _aged(path, age)).exists()]


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
