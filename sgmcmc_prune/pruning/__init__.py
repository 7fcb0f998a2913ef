"""From scores to a smaller network.

`allocation` and `decision` turn scores into a mask, `decisions` are those that a run names, `schedule` says when,
`masks` applies, measures and stores masks, `batchnorm` renews the running statistics of the masked network, and
`shrink` makes a physically smaller one (`graph` says which nodes could go).
"""

from sgmcmc_prune.pruning import allocation, batchnorm, decision, graph, masks, schedule, shrink

__all__ = ["allocation", "batchnorm", "decision", "graph", "masks", "schedule", "shrink"]
