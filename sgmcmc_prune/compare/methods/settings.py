"""Every hyperparameter that the comparison sets itself; the rest are the defaults of each method's recipe.

Those of the chains, of gradual pruning, of `filter-conditional` and of the variational methods were chosen on
validation images (Fashion-MNIST, LeNet, some the MLP too; seeds that no table has); all others are the papers' or
common practice, scaled to the budget, and were chosen on no data. `--search` may choose the learning rate of every
method, and at most two settings more.
"""

from typing import Any

#: Parts of a chain as shares of the budget, and when EM begins; `growth` is a share of `explore`.
LENGTHS: dict[str, dict[str, float]] = {
    "dense_chain": {"em_start": 0.2, "burn_in": 0.9, "cycles": 1, "explore": 0.0, "sample": 0.1, "relax": 0.02},
    "expected_loss_chain": {"em_start": 0.2, "burn_in": 0.8, "cycles": 1, "explore": 0.0, "sample": 0.1, "relax": 0.02},
    "reduction_chain": {"burn_in": 0.6, "cycles": 1, "explore": 0.1, "sample": 0.3, "relax": 0.03, "draws": 20},
    # A short burn-in, then one long anneal from the largest step.
    "in_chain": {"burn_in": 0.05, "explore": 0.85, "sample": 0.1, "relax": 0.01, "growth": 0.5},
}
_SPARSE = {"prior.inclusion_rate": 0.999}
# What is pruned post hoc must be at zero already, so that the spike is wide.
_DENSE = {**_SPARSE, "sampler.temperature": 0.1, "prior.spike_variance": 1e-3}
SETTINGS: dict[str, dict[str, Any]] = {
    "chain": {
        "sampler.preconditioner": "identity",
        "sampler.noise": "rademacher",
        "sampler.lr": 0.1,
        "sampler.lr_min": 0.002,
        "sampler.temperature": 0.01,
        "prior.slab_variance": 0.3,
    },
    "dense_chain": _DENSE,
    "expected_loss_chain": _DENSE,
    # Must mix under a plain prior, without tempering; where it explores at the full step its short chains do not.
    "reduction_chain": {
        "lr_explore_share": 0.5,
        "sampler.noise": "gaussian",
        "sampler.temperature": 1.0,
        "sampler.lr_min": 0.005,
        "prior.family": "gaussian",
        "prior.slab_variance": 0.05,
    },
    # The target is given, so that the prior need not learn how many weights to keep.
    "in_chain": {**_SPARSE, "em.kind": "fixed"},
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "adamw": {"lr": 2e-3, "weight_decay": 0.01},
    # Masks per training, by gradual pruning and by RigL; members that share the budget.
    "gradual": {"updates": 50, "begin": 0.05, "end": 0.5},
    "deep-ensemble": {"networks": 4},
    "acdc": {"warm_up": 0.1, "fine_tune": 0.15, "pairs": 7},
    "sun-mixture": {"lr": 0.1, "plain": 0.5, "fine_tune": 0.1, "fine_tune_lr": 0.01},
    "sghmc-sa": {"lr": 0.1, "half_life": 0.1, "fine_tune": 0.25},
    # With a wide slab and narrow factors, closing every gate is the cheapest way to lower the loss.
    # The authors' prior inclusion of nodes and weights, to this power; 1 is their rule.
    "gates": {"inclusion_power": 1.0},
    "variational": {
        "lr": 3e-3,
        "std_lr": 1e-2,
        "gate_lr": 3e-2,
        "prior_std": 0.1,
        "warm_up": 0.5,
        "fine_tune": 0.25,
    },
    "bmr": {"rounds": 5, "warm_up": 0.2},
    # Stages on the way to the largest target, and examples in each curvature.
    "conditional": {"stages": 12, "examples": 2000},
    # The dense part of the budget without the curvatures' examples; stages on the way to each target.
    "filter-conditional": {"dense": 0.5, "curvature": "gram", "stages": 4, "examples": 2000},
    "horseshoe": {"iterations": 1000},  # of 5000, before each round: they cost no gradient evaluation, but hours
    # Passes over the data between two updates of the prior, and what each costs of another.
    "laplace": {"every": 1.0, "curvature_share": 0.1, "lr": 1e-3, "precision": 1.0},
}

#: What a search may try beside the default and the learning rate.
_OWN: dict[str, dict[str, tuple[float, ...]]] = {
    "dense_chain": {"sampler.temperature": (0.01,)},
    "expected_loss_chain": {"sampler.temperature": (0.01,)},
    "in_chain": {"prior.slab_variance": (0.1,)},
    "sgd": {"weight_decay": (1e-4,)},
    "adamw": {"weight_decay": (0.5,)},
    "laplace": {"every": (2.0,)},
    "gates": {"inclusion_power": (0.1,)},
    "variational": {"prior_std": (0.2, 0.05)},
}


def grid(section: str, part: str = "") -> dict[str, tuple[float, ...]]:
    """The grid of a method with these settings: its learning rate, one setting of a part, one of its own, if any."""
    settings = {**SETTINGS["chain"], **SETTINGS.get(part, {}), **SETTINGS[section]}
    rate = "lr" if "lr" in settings else "sampler.lr"
    own = {n: (settings[n], *others) for s in (part, section) for n, others in _OWN.get(s, {}).items()}
    return {**learning_rates(settings[rate], rate), **own}


def learning_rates(default: float, name: str = "lr") -> dict[str, tuple[float, ...]]:
    """The learning rates that every method may try: its default, a third and three times that."""
    return {name: (default, default / 3, default * 3)}
