"""Weights that somebody else trained: a state dict in a file of theirs, by the names of the network."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sgmcmc_prune.models.state import load_network_state, network_state

#: Under which keys a checkpoint keeps its state dict beside other things.
KEYS = ("state_dict", "model_state_dict", "model")
#: What torch's wrappers of a whole network put before every name.
WRAPPERS = ("module.", "_orig_mod.")


def load_given_weights(model: nn.Module, path: Path) -> None:
    """Copy a state dict from a file into a network of its architecture.

    Parameters
    ----------
    model : Module
    path : Path
        As of `read_given_weights`. The prefix of a `DataParallel` or of a compiled network is taken off.

    Raises
    ------
    ValueError
        As `read_given_weights`; if names or shapes differ; if a tensor holds no finite numbers of the network's kind.
    """
    own, known, state = network_state(model), model.state_dict().keys(), read_given_weights(path)
    for _ in WRAPPERS:
        for prefix in WRAPPERS:
            if not state.keys() & known and all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if name in own or name not in known}  # tied: once
    for name, value in state.items():
        if reason := _unusable(value, own.get(name)):
            raise ValueError(f"{path} does not fit the network: {name} {reason}")
    try:
        load_network_state(model, state)
    except ValueError as error:
        raise ValueError(f"{path} does not fit the network: {error}") from None


def _unusable(value: Tensor, own: Tensor | None) -> str:
    """Why a tensor cannot be copied into the network's own; empty if it can."""
    if value.is_meta or value.layout != torch.strided or value.is_quantized:
        return "is no dense tensor of numbers"
    if own is None or not own.is_floating_point():
        return ""
    if not value.is_floating_point():
        return f"has type {str(value.dtype).removeprefix('torch.')}; the network's are floating-point numbers"
    return "" if bool(value.to(own.dtype).isfinite().all()) else "holds numbers that are not finite"


def read_given_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: of safetensors, or what `torch.save` wrote of it, or of a checkpoint that holds it.

    Parameters
    ----------
    path : Path
        Nothing in the file is run, whoever wrote it.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    ValueError
        If there is no such file, it cannot be read, or it holds no state dict.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give a state dict, as *.safetensors or written by torch.save")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the readers raise nearly anything, in many lines
        raise ValueError(
            f"{path} cannot be read as a state dict: {_what_it_is(path, error)}. Give a state dict as *.safetensors, "
            "or written by torch.save(network.state_dict(), FILE)"
        ) from None
    state = _state_dict(content)
    if not state:
        raise ValueError(f"{path} holds no state dict, neither by itself nor as {', '.join(KEYS)}")
    return state


def _what_it_is(path: Path, error: Exception) -> str:
    """What is wrong with a file that its reader refused; what torch says takes many lines, and advises to trust it."""
    size = path.stat().st_size
    if not size:
        return "it is empty"
    if path.suffix == ".safetensors":
        return f"it is no whole file of safetensors ({size:,} bytes)"
    if is_zipfile(path) and isinstance(error, UnpicklingError):
        return "it holds objects that are no tensors, such as a whole network"
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            return f"it is cut short or damaged ({size:,} bytes)"
    return "it is no file of torch.save, or holds objects that are no tensors"


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The mapping of names to tensors, itself or one level down; empty if there is none."""
    if not isinstance(content, dict):
        return {}
    for found in (content, *(content[key] for key in KEYS if key in content)):
        if isinstance(found, dict) and found and all(isinstance(value, Tensor) for value in found.values()):
            return {str(name): value for name, value in found.items()}
    return {}
