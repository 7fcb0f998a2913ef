"""Samplers as `torch.optim.Optimizer`s, one per file."""

from .base import Sampler
from .sghmc import SGHMC
from .sgld import SGLD

__all__ = ["SGHMC", "SGLD", "Sampler"]
