"""Masks: apply, measure, store. A mask maps parameter names to boolean tensors, True = kept."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sgmcmc_prune.files import atomic_path
from sgmcmc_prune.mask_check import check_mask

Mask = dict[str, Tensor]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that may be masked, by name: those with two or more dimensions (no biases, no norms)."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.ndim >= 2}


@torch.no_grad()
def apply(mask: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Set the masked entries of the parameters to exactly zero, in place.

    Parameters
    ----------
    mask : mapping of str to bool Tensor
        True = kept; shaped like the parameters.
    parameters : mapping of str to Tensor
        Parameters (or momentum buffers) by name; those without a mask are left alone.

    Raises
    ------
    TypeError, ValueError
        If the mask does not fit (see `check_mask`); nothing is changed then.
    """
    for name, kept in check_mask(mask, parameters).items():
        # Filling, not multiplying: NaN * 0 is NaN and -1 * 0 is -0.
        parameters[name].masked_fill_(~kept.to(parameters[name].device), 0)


def starved(mask: Mapping[str, Tensor]) -> list[str]:
    """Return the layers through which (almost) nothing passes any more.

    A layer is starved when its kept weights read one input or feed one output at most, and it has more of them: a
    network with such a layer tells hardly anything apart, whatever its sparsity says.

    Parameters
    ----------
    mask : mapping of str to bool Tensor, shape (outputs, inputs, ...)
        True = kept.

    Returns
    -------
    list of str
        Names of the starved layers, in the order of the mask.
    """

    def narrow(kept: Tensor) -> bool:
        return len(kept) > 1 and int(kept.flatten(1).any(1).sum()) <= 1

    return [name for name, kept in mask.items() if narrow(kept) or narrow(kept.transpose(0, 1))]


def sparsity(mask: Mapping[str, Tensor]) -> float:
    """Return the fraction of masked entries among the prunable ones (0 for an empty mask)."""
    return _num_masked(mask) / max(1, sum(kept.numel() for kept in mask.values()))


def total_sparsity(mask: Mapping[str, Tensor], model: nn.Module) -> float:
    """Return the masked entries as a fraction of *all* parameters of the model, biases and norms included.

    Raises
    ------
    TypeError, ValueError
        If the mask does not fit the model (see `check_mask`).
    """
    parameters = dict(model.named_parameters())
    check_mask(mask, parameters)
    return _num_masked(mask) / sum(parameter.numel() for parameter in parameters.values())


def save(path: str | os.PathLike[str], mask: Mapping[str, Tensor]) -> None:
    """Write a mask to a safetensors file; the file appears complete or not at all.

    Parameters
    ----------
    path : path-like
        The file; missing directories are made.
    mask : mapping of str to bool Tensor
        The mask.

    Raises
    ------
    TypeError
        If a tensor is not boolean.
    """
    from safetensors.torch import save as tensors_to_bytes  # not at the top: masks must work without it

    check_mask(mask, mask)
    with atomic_path(Path(path)) as partial:
        partial.write_bytes(tensors_to_bytes({name: kept.cpu().contiguous() for name, kept in mask.items()}))


def load(path: str | os.PathLike[str]) -> Mask:
    """Read a mask written by `save`, onto the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If the file holds something else than boolean tensors, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors_from_bytes

    try:
        mask = tensors_from_bytes(Path(path).read_bytes())
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)} is not a readable safetensors file ({error}); save the mask again"
        ) from error
    check_mask(mask, mask)
    return mask


def _num_masked(mask: Mapping[str, Tensor]) -> int:
    return sum(int((~kept).sum()) for kept in mask.values())
