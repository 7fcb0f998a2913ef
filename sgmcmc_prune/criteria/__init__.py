"""How groups of weights are ranked: one file per idea, the function and the criterion of a run beside each other."""
