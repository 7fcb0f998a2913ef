"""Every hyperparameter that the comparison sets itself; the rest are the defaults of each method's recipe.

None was searched for in a comparison. The chain's mass matrix is that of the preset `fashion-mnist`, where it was
chosen on validation images; all others are the papers' or common practice, scaled to the budget, and were chosen on no
data.
Where a method would do better with its own, it is treated unfairly here: read small differences with that in mind.
"""

from typing import Any

#: Lengths are shares of the budget.
SETTINGS: dict[str, dict[str, Any]] = {
    "chain": {"sampler.preconditioner": "identity"},
    "dense_chain": {"burn_in": 0.55, "cycles": 3, "explore": 0.08, "sample": 0.07, "relax": 0.02},
    "short_dense_chain": {"burn_in": 0.5, "cycles": 1, "explore": 0.06, "sample": 0.06, "relax": 0.02},
    "fork": {"explore": 0.24, "sample": 0.14, "relax": 0.03},
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"lr": 2e-3, "weight_decay": 0.01},
    # Masks per training, by gradual pruning and by RigL; members that share the budget.
    "gradual": {"updates": 50},
    "deep-ensemble": {"networks": 4},
    "sun-mixture": {"plain": 0.5, "fine_tune": 0.1},
    "sghmc-sa": {"half_life": 0.1},
    "variational": {"lr": 1e-3, "gate_lr": 1e-2},
    "bmr": {"rounds": 5, "warm_up": 0.2},
    "horseshoe": {"iterations": 1000},  # of 5000, before each round: they cost no gradient evaluation, but hours
    "laplace": {"every": 5, "lr": 1e-3, "precision": 1.0},
}
