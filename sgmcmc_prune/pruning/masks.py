"""Masks: apply, measure, store. A mask maps parameter names to boolean tensors, True = kept."""

import os
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from sgmcmc_prune.mask_check import check_mask
from sgmcmc_prune.pruning.prunable import prunable as prunable
from sgmcmc_prune.store.tensor_file import read_tensors, write_tensors

Mask = dict[str, Tensor]
FORMAT = "sgmcmc_prune.mask/1"


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


def starved_anywhere(each: Iterable[Mapping[str, Tensor]]) -> list[str]:
    """Return the layers that are starved under one of several masks, in the order of their names."""
    return sorted({name for mask in each for name in starved(mask)})


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


def save(path: str | os.PathLike[str], mask: Mapping[str, Tensor], tied: int = 0) -> None:
    """Write a mask to a safetensors file; the file appears complete or not at all.

    Parameters
    ----------
    path : path-like
        The file; missing directories are made.
    mask : mapping of str to bool Tensor
        The mask.
    tied : int
        How many groups it decided by tie (`decision.tied`); `load_tied` reads it.

    Raises
    ------
    TypeError
        If a tensor is not boolean.
    """
    check_mask(mask, mask)
    write_tensors(path, mask, FORMAT, tied=str(tied))


def load(path: str | os.PathLike[str]) -> Mask:
    """Read a mask written by `save`, onto the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If the file holds something else than boolean tensors, or is damaged.
    """
    mask, _ = read_tensors(path, FORMAT)
    check_mask(mask, mask)
    return mask


def load_tied(path: str | os.PathLike[str]) -> int:
    """Read how many groups a mask written by `save` decided by tie."""
    return int(read_tensors(path, FORMAT)[1]["tied"])


def _num_masked(mask: Mapping[str, Tensor]) -> int:
    return sum(int((~kept).sum()) for kept in mask.values())
