"""From scores to a smaller network.

`criteria` score groups of weights, `allocation` and `decision` turn scores into a mask, `schedule` says when, `masks`
applies, measures and stores masks, and `batchnorm` renews the running statistics of the masked network.
"""

from sgmcmc_prune.pruning import allocation, batchnorm, criteria, decision, masks, schedule

__all__ = ["allocation", "batchnorm", "criteria", "decision", "masks", "schedule"]
