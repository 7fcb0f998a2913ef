"""From scores to a smaller network.

`criteria` score groups of weights, `allocation` and `decision` turn scores into a mask, `schedule` says when, `masks`
applies, measures and stores masks, `batchnorm` renews the running statistics of the masked network, and `shrink` makes
a physically smaller one (`graph` says which nodes could go).
"""

from sgmcmc_prune.pruning import allocation, batchnorm, criteria, decision, graph, masks, schedule, shrink

__all__ = ["allocation", "batchnorm", "criteria", "decision", "graph", "masks", "schedule", "shrink"]
