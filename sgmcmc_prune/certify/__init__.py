"""Certification of the samplers against exact answers: one table, one family-wise false-alarm rate."""

from sgmcmc_prune.certify.suite import certify
from sgmcmc_prune.certify.table import Certificate

__all__ = ["Certificate", "certify"]
