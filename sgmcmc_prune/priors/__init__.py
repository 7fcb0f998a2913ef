"""Priors over named parameters."""

from .base import Prior
from .gaussian import Gaussian
from .groups import GROUP_KINDS, GroupMap
from .spike_slab import SpikeSlab

__all__ = ["GROUP_KINDS", "Gaussian", "GroupMap", "Prior", "SpikeSlab"]
