"""Every hyperparameter that the comparison sets itself; the rest are the defaults of each method's recipe.

The chain's mass matrix is that of the preset `fashion-mnist`, where it was chosen on validation images; all others are
the papers' or common practice, scaled to the budget, and were chosen on no data. `--search` may choose the learning
rate of every method, and at most one setting more.
"""

from typing import Any

#: Lengths are shares of the budget.
SETTINGS: dict[str, dict[str, Any]] = {
    "chain": {"sampler.preconditioner": "identity", "sampler.lr": 0.1, "sampler.explore_temperature": 1.0},
    "dense_chain": {"burn_in": 0.55, "cycles": 3, "explore": 0.08, "sample": 0.07, "relax": 0.02},
    "short_dense_chain": {"burn_in": 0.5, "cycles": 1, "explore": 0.06, "sample": 0.06, "relax": 0.02},
    "expected_loss_chain": {"burn_in": 0.45, "cycles": 3, "explore": 0.08, "sample": 0.07, "relax": 0.02},
    "reduction_chain": {"burn_in": 0.6, "cycles": 1, "explore": 0.1, "sample": 0.3, "relax": 0.03, "draws": 20},
    "fork": {"explore": 0.24, "sample": 0.14, "relax": 0.03},
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"lr": 2e-3, "weight_decay": 0.01},
    # Masks per training, by gradual pruning and by RigL; members that share the budget.
    "gradual": {"updates": 50},
    "deep-ensemble": {"networks": 4},
    "sun-mixture": {"lr": 0.1, "plain": 0.5, "fine_tune": 0.1},
    "sghmc-sa": {"lr": 0.1, "half_life": 0.1},
    "variational": {"lr": 1e-3, "gate_lr": 1e-2, "prior_std": 1.0},
    "bmr": {"rounds": 5, "warm_up": 0.2},
    "horseshoe": {"iterations": 1000},  # of 5000, before each round: they cost no gradient evaluation, but hours
    "laplace": {"every": 5, "lr": 1e-3, "precision": 1.0},
}

#: What a search may try beside the default and the learning rate.
_OWN: dict[str, dict[str, tuple[float, ...]]] = {
    "chain": {"sampler.explore_temperature": (0.0,)},
    "sgd": {"weight_decay": (2e-3,)},
    "adamw": {"weight_decay": (0.5,)},
    "variational": {"prior_std": (0.2,)},
}


def grid(section: str) -> dict[str, tuple[float, ...]]:
    """The grid of a method with these settings: its learning rate, and one setting of its own if it has one."""
    settings, rate = SETTINGS[section], "sampler.lr" if section == "chain" else "lr"
    own = {name: (settings[name], *others) for name, others in _OWN.get(section, {}).items()}
    return {**learning_rates(settings[rate], rate), **own}


def learning_rates(default: float, name: str = "lr") -> dict[str, tuple[float, ...]]:
    """The learning rates that every method may try: its default, a third and three times that."""
    return {name: (default, default / 3, default * 3)}
