"""Where a network's gates may stand: on the nodes that could be removed, of the layers that can be converted."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from sgmcmc_prune.pruning import graph
from sgmcmc_prune.pruning.graph import Site, find_sites
from sgmcmc_prune.pruning.masks import Mask

__all__ = ["CONVERTIBLE", "Site", "column_values", "find_sites", "mask_readers", "trace"]

CONVERTIBLE = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)


def trace(model: nn.Module) -> fx.GraphModule:
    """Trace a network symbolically.

    Raises
    ------
    ValueError
        If its forward depends on values, uses a layer twice, or holds parameters in anything but `CONVERTIBLE` layers.
    """
    return graph.trace(model, CONVERTIBLE)


def mask_readers(mask: Mask, sites: Sequence[Site], plain: nn.Module) -> Mask:
    """Add to a mask the columns that read removed nodes (a node is removed when its layer's whole row is)."""
    mask, parameters = dict(mask), dict(plain.named_parameters())
    for site in sites:
        own = mask.get(f"{site.name}.weight")
        if own is None or not site.readers or site.obstacle:
            continue
        alive = own.flatten(1).any(1)
        for reader, block in site.readers:
            name = f"{reader}.weight"
            kept = mask.get(name, torch.ones_like(parameters[name], dtype=torch.bool))
            mask[name] = kept & column_values(alive, block, kept).to(torch.bool)
    return mask


def column_values(values: Tensor, block: int, weight: Tensor) -> Tensor:
    """One value per channel, repeated over its `block` columns, broadcastable over a weight (out, in, ...)."""
    return values.repeat_interleave(block).view(1, -1, *([1] * (weight.ndim - 2)))
