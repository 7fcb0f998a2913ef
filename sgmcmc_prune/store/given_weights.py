"""Weights that somebody else trained: a state dict in a file of theirs, by the names of the network."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sgmcmc_prune.models.state import load_network_state

#: Under which keys a checkpoint keeps its state dict beside other things.
KEYS = ("state_dict", "model_state_dict", "model")
#: What torch's wrappers of a whole network put before every name.
WRAPPERS = ("module.", "_orig_mod.")


def load_given_weights(model: nn.Module, path: Path) -> None:
    """Copy a state dict from a file into a network of its architecture.

    Raises
    ------
    ValueError
        As `read_given_weights`, and if names or shapes differ.
    """
    weights = read_given_weights(path)
    try:
        load_network_state(model, weights)
    except ValueError as error:
        raise ValueError(f"{path} does not fit the network: {error}") from None


def read_given_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: of safetensors, or what `torch.save` wrote of it, or of a checkpoint that holds it.

    Parameters
    ----------
    path : Path
        Nothing in the file is run, whoever wrote it.

    Returns
    -------
    dict of str to Tensor
        On the CPU, without the prefix of a `DataParallel` or a compiled network.

    Raises
    ------
    ValueError
        If there is no such file, it cannot be read, or it holds no state dict.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give a state dict, as *.safetensors or written by torch.save")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as a state dict: {str(error).splitlines()[0]}") from None
    state = _state_dict(content)
    if not state:
        raise ValueError(f"{path} holds no state dict, neither by itself nor as {', '.join(KEYS)}")
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The mapping of names to tensors, itself or one level down; empty if there is none."""
    if not isinstance(content, dict):
        return {}
    for found in (content, *(content[key] for key in KEYS if key in content)):
        if isinstance(found, dict) and found and all(isinstance(value, Tensor) for value in found.values()):
            return {str(name): value for name, value in found.items()}
    return {}
