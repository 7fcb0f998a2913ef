"""A network under a mask: masked weights are zero, and normalisation statistics fit what is left."""

import copy
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from sgmcmc_prune.models.state import load_network_state
from sgmcmc_prune.pruning import batchnorm, masks


def masked_network(
    model: nn.Module, weights: Mapping[str, Tensor], mask: masks.Mask, batches: Callable[[], Sequence[Tensor]]
) -> nn.Module:
    """A copy of a network with these weights, under a mask, with BatchNorm statistics (if it has any) that fit them.

    The statistics come from `batches`, as `Run.statistics_batches` gives them.
    """
    network = copy.deepcopy(model)
    put_on(network, weights, mask, batches)
    return network


def put_on(
    network: nn.Module, weights: Mapping[str, Tensor], mask: masks.Mask, batches: Callable[[], Sequence[Tensor]]
) -> None:
    """What `masked_network` does, to the network itself."""
    load_network_state(network, weights)
    masks.apply(mask, dict(network.named_parameters()))
    if batchnorm.layers(network):
        batchnorm.reestimate(network, batches())
