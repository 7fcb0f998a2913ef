"""Does a mask fit its parameters? Asked by samplers, priors, predictions and pruning alike, so it needs torch alone."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sgmcmc_prune import names


def check_mask(mask: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Check that a mask fits its parameters.

    Parameters
    ----------
    mask : mapping of str to bool Tensor
        The mask.
    parameters : mapping of str to Tensor
        Parameters by name; those without a mask are allowed.

    Returns
    -------
    dict of str to Tensor
        The mask by the names of the parameters, which differ by the words of torch's wrappers at most.

    Raises
    ------
    TypeError
        If a mask is not boolean.
    ValueError
        If a masked name is not a parameter, or a shape differs.
    """
    matched = names.match(mask, parameters)
    for name, kept in mask.items():
        if name not in matched:
            raise ValueError(
                f"the mask names {name!r}, which is no parameter; the parameters are {names.shown(sorted(parameters))}"
            )
        if kept.dtype != torch.bool:
            raise TypeError(f"the mask of {name!r} is {kept.dtype}; it must be torch.bool, True = kept")
        shape = parameters[matched[name]].shape
        if kept.shape != shape:
            raise ValueError(f"the mask of {name!r} has shape {tuple(kept.shape)}, not {tuple(shape)}")
    if len(set(matched.values())) < len(matched):
        raise ValueError(f"the mask names one parameter twice: {names.shown(mask)}")
    return {matched[name]: kept for name, kept in mask.items()}
