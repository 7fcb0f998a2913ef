"""Where a network's gates may stand: on the nodes that could be removed, of the layers that can be converted."""

from torch import fx, nn

from sgmcmc_prune.pruning import graph
from sgmcmc_prune.pruning.graph import Site, find_sites

__all__ = ["CONVERTIBLE", "Site", "find_sites", "trace"]

CONVERTIBLE = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)


def trace(model: nn.Module) -> fx.GraphModule:
    """Trace a network symbolically.

    Raises
    ------
    ValueError
        If its forward depends on values, uses a layer twice, or holds parameters in anything but `CONVERTIBLE` layers.
    """
    return graph.trace(model, CONVERTIBLE)
