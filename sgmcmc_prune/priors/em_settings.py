"""The settings of EM (`em.py`), which the command line reads without loading torch."""

from dataclasses import dataclass
from typing import Literal

from sgmcmc_prune.settings import check_types

Kind = Literal["fixed", "hard", "soft", "stochastic"]


@dataclass(frozen=True)
class EMSettings:
    """How the hyperparameters are learned.

    Parameters
    ----------
    kind : {"stochastic", "soft", "hard", "fixed"}
        "stochastic" smooths the statistics over draws, "soft" takes the last draw's alone, "hard" also rounds its
        responsibilities; "fixed" learns nothing.
    every : int
        Steps between two EM iterations.
    start : int
        Steps of the burn-in before the first one: while no weight has left its initial size, EM would empty the slab.
    learn_variances : {"none", "slab", "both"}
        Which variances the M-step updates; the inclusion rate always is, unless `kind` is "fixed".
    shared_variances : bool
        One spike and one slab for all layers, instead of per layer.
    beta_a : float
        a of the Beta(a, b) prior of each layer's inclusion rate, >= 1.
    beta_b : float
        b of the same, >= 1.
    complexity : float
        Adds complexity * G to b: a prior on the model's size that corrects for multiplicity (Beta(1, G) at 1), so that
        groups about which the data say nothing leave the slab. 0 is the plain Beta prior.
    variance_ratio : float
        Smallest slab-to-spike variance ratio, > 1.
    decay : float
        Iteration k counts with omega_k = (1 + k / delay)^-decay, if "stochastic"; in (1/2, 1].
    delay : float
        Iterations until those weights begin to fall, > 0.
    """

    kind: Kind = "stochastic"
    every: int = 20
    start: int = 0
    learn_variances: Literal["none", "slab", "both"] = "slab"
    shared_variances: bool = False
    beta_a: float = 1.0
    beta_b: float = 1.0
    complexity: float = 1.0
    variance_ratio: float = 10.0
    decay: float = 0.75
    delay: float = 10.0

    def __post_init__(self) -> None:
        check_types(self, EMSettings, "em")
        if self.every < 1:
            raise ValueError(f"em every is {self.every}; it must be at least 1 step")
        if self.start < 0:
            raise ValueError(f"em start is {self.start}; it must be a step of the burn-in, >= 0")
        if not (self.beta_a >= 1 and self.beta_b >= 1):
            raise ValueError(f"Beta({self.beta_a}, {self.beta_b}) has no interior mode; both must be >= 1")
        if not self.complexity >= 0:
            raise ValueError(f"em complexity is {self.complexity}; it must be >= 0")
        if not self.variance_ratio > 1:
            raise ValueError(f"variance_ratio is {self.variance_ratio}; the slab must be wider than the spike: > 1")
        if not 0.5 < self.decay <= 1 or not self.delay > 0:
            raise ValueError("stochastic approximation needs decay in (0.5, 1] and delay > 0")

    def due(self, step: int, burn_in: bool) -> bool:
        """Whether an EM iteration follows after this many steps; `start` counts in the burn-in alone."""
        return step % self.every == 0 and (step >= self.start or not burn_in)

    def omega(self, iteration: int) -> float:
        """omega_k, the weight of the newest draw in iteration k = 0, 1, ..."""
        return (1 + iteration / self.delay) ** -self.decay if self.kind == "stochastic" else 1.0
