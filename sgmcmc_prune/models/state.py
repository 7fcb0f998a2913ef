"""The state of a network as tensors by name, each once: a weight that two layers share is one weight."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sgmcmc_prune.errors import first_line
from sgmcmc_prune.models.recurrent import has_computed_weights


def network_state(model: nn.Module) -> dict[str, Tensor]:
    """Give every parameter and every persistent buffer, detached, by its first name."""
    first = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    return {name: value for name, value in model.state_dict().items() if name in first}


def copied(model: nn.Module) -> nn.Module:
    """A copy of a network with tensors of its own.

    Raises
    ------
    ValueError
        If it holds a tensor that was computed from its parameters: torch copies no such tensor.
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        recurrent = next((name for name, layer in model.named_modules() if has_computed_weights(layer)), None)
        why = (
            "the old weight_norm and spectral_norm of torch.nn.utils do this, those of torch.nn.utils.parametrizations "
            "do not"
            if recurrent is None
            else f"{recurrent!r} keeps a weight that it computed from other parameters, as recurrent layers under a "
            "weight_norm, a spectral_norm or another parametrisation do; take that off (remove_parametrizations)"
        )
        raise ValueError(f"the network cannot be copied ({first_line(error)}); {why}") from None


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
