"""Does a mask fit its parameters? Asked by samplers, predictions and pruning alike, so it needs torch alone."""

from collections.abc import Mapping

import torch
from torch import Tensor


def check_mask(mask: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Check that a mask fits its parameters.

    Parameters
    ----------
    mask : mapping of str to bool Tensor
        The mask.
    parameters : mapping of str to Tensor
        Parameters by name; those without a mask are allowed.

    Raises
    ------
    TypeError
        If a mask is not boolean.
    ValueError
        If a masked name is not a parameter, or a shape differs.
    """
    for name, kept in mask.items():
        if name not in parameters:
            raise ValueError(f"the mask names {name!r}, which is no parameter; the parameters are {sorted(parameters)}")
        if kept.dtype != torch.bool:
            raise TypeError(f"the mask of {name!r} is {kept.dtype}; it must be torch.bool, True = kept")
        if kept.shape != parameters[name].shape:
            raise ValueError(f"the mask of {name!r} has shape {tuple(kept.shape)}, not {tuple(parameters[name].shape)}")
