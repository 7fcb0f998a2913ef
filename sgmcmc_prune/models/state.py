"""The state of a network as tensors by name, each once: a weight that two layers share is one weight."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def network_state(model: nn.Module) -> dict[str, Tensor]:
    """Give every parameter and every persistent buffer, detached, by its first name."""
    first = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    return {name: value for name, value in model.state_dict().items() if name in first}


@torch.no_grad()
def load_network_state(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy what `network_state` gave into a network of the same architecture.

    Raises
    ------
    ValueError
        If names or shapes differ.
    """
    own = network_state(model)
    if own.keys() != weights.keys():
        missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        raise ValueError(f"weights and network have unlike names: the weights lack {missing}, the network {unknown}")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise ValueError(f"{name} has shape {tuple(weights[name].shape)}; the network's is {tuple(value.shape)}")
    for name, value in own.items():
        value.copy_(weights[name])
