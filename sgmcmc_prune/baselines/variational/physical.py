"""Physically smaller networks: nodes that no later layer reads are cut out. Their removal changes no output."""

from torch import nn

from sgmcmc_prune.predictive.flops import multiply_adds
from sgmcmc_prune.pruning.shrink import remove_unread

__all__ = ["multiply_adds", "shrink"]


def shrink(model: nn.Module) -> nn.Module:
    """A smaller copy: a closed node has no outgoing weights, so that nothing else has to be done than to cut it out."""
    return remove_unread(model).model
