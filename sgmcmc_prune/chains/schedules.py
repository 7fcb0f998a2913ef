"""Schedules: pure functions of an integer step, so that a resume or another order of evaluation changes nothing."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Phase = Literal["burn_in", "explore", "sample"]
#: What follows the cosine: the step l (on the scale of SGD's learning rate), or the time step h, with l ~ h^2.
Anneal = Literal["step", "time_step"]
#: A friction below it is none in float32: 1 - friction rounds to 1.
ROUNDED = 2.0**-24


@dataclass(frozen=True)
class Plan:
    """What one step does.

    `cycle` is 0 during burn-in and 1, 2, ... afterwards; `fraction` is how far the phase has come, in [0, 1];
    `relaxing` says that the step belongs to the start of a sampling phase, which is discarded; `collect` that the state
    after this step is a draw; `end_of_cycle` that the cycle ends with it.
    """

    lr: float
    momentum: float
    temperature: float
    phase: Phase
    cycle: int
    fraction: float
    relaxing: bool = False
    collect: bool = False
    end_of_cycle: bool = False


@dataclass(frozen=True)
class Cyclical:
    r"""Burn-in, then cycles of exploration and sampling.

    Burn-in anneals the step by a cosine from `lr` to `lr_min`, each exploration from `lr_explore` to `lr_min`;
    sampling holds it at `lr_min` > 0, so that every draw comes from one transition kernel. With c = sqrt(l / lr) the
    friction moves with the step, 1 - beta_t = c (1 - momentum): the friction per unit of physical time stays the same.
    So the effective step of SGD, l / (1 - beta_t), is c times the largest: if l follows the cosine, it falls as its
    square root; if c (the time step) does, it follows the cosine, as SGD's does. With `explore` = 0 and `lr` = `lr_min`
    this is a chain at constant step.

    Parameters
    ----------
    lr, lr_explore, lr_min : float
        Steps, 0 < lr_min <= lr_explore <= lr.
    momentum : float
        beta at `lr`.
    temperature : float
        T.
    burn_in, explore, sample : int
        Steps of the burn-in, and of the two phases of each cycle.
    relax : int
        Steps discarded at the start of each sampling phase.
    thin : int
        Steps per draw after that.
    cycles : int
        Number of cycles.
    explore_temperature : float, optional
        T while exploring, if it is another; 0 explores without noise.
    anneal : {"step", "time_step"}
        What follows the cosine, from the same start to the same end.

    References
    ----------
    Zhang et al.: Cyclical stochastic gradient MCMC for Bayesian deep learning (ICLR 2020), eq. 1.
    Wenzel et al. (ICML 2020), appendix D (friction moves with the step).
    """

    lr: float
    lr_explore: float
    lr_min: float
    momentum: float
    temperature: float
    burn_in: int
    cycles: int
    explore: int
    sample: int
    relax: int = 0
    thin: int = 1
    explore_temperature: float | None = None
    anneal: Anneal = "step"

    def __post_init__(self) -> None:
        if not 0 < self.lr_min <= self.lr_explore <= self.lr:
            raise ValueError(
                f"lr_min is {self.lr_min}, lr_explore {self.lr_explore} and lr {self.lr}; they must satisfy "
                "0 < lr_min <= lr_explore <= lr"
            )
        if 1 - self._momentum(self.lr_min) < ROUNDED <= 1 - self.momentum:
            raise ValueError(
                f"lr_min is {self.lr_min:g} and lr {self.lr:g}: a step that is so much smaller leaves no friction that "
                "float32 could hold; usual is a tenth to a hundredth of lr"
            )
        if self.anneal not in get_args(Anneal):
            raise ValueError(f"anneal is {self.anneal!r}; choose one of {', '.join(get_args(Anneal))}")
        if min(self.burn_in, self.cycles, self.explore, self.relax) < 0 or self.thin < 1:
            raise ValueError("burn_in, cycles, explore and relax must be >= 0 and thin >= 1")
        if self.cycles and self.sample < self.relax + self.thin:
            raise ValueError(
                f"a cycle samples for {self.sample} steps and would hold no draw; it needs relax + thin = "
                f"{self.relax + self.thin} or more"
            )
        if self.explore_temperature is not None and not 0 <= self.explore_temperature < math.inf:
            raise ValueError(f"explore_temperature is {self.explore_temperature}; it must be finite and >= 0")

    @property
    def num_steps(self) -> int:
        """Length of the chain in steps."""
        return self.burn_in + self.cycles * (self.explore + self.sample)

    @property
    def draws_per_cycle(self) -> int:
        """Draws in each cycle."""
        return (self.sample - self.relax) // self.thin if self.cycles else 0

    @property
    def num_draws(self) -> int:
        """Draws in the whole chain."""
        return self.cycles * self.draws_per_cycle

    def __call__(self, step: int) -> Plan:
        """Return the plan of step 0, 1, ..., num_steps - 1."""
        if not 0 <= step < self.num_steps:
            raise ValueError(f"step {step} is outside the schedule of {self.num_steps} steps")
        if step < self.burn_in:
            return self._anneal("burn_in", 0, self.lr, step / self.burn_in)
        cycle, position = divmod(step - self.burn_in, self.explore + self.sample)
        if position < self.explore:
            return self._anneal("explore", cycle + 1, self.lr_explore, position / self.explore)
        position -= self.explore
        drawn = position + 1 - self.relax
        return Plan(
            lr=self.lr_min,
            momentum=self._momentum(self.lr_min),
            temperature=self.temperature,
            phase="sample",
            cycle=cycle + 1,
            fraction=(position + 1) / self.sample,
            relaxing=drawn <= 0,
            collect=drawn > 0 and drawn % self.thin == 0,
            end_of_cycle=position + 1 == self.sample,
        )

    def _anneal(self, phase: Phase, cycle: int, start: float, fraction: float) -> Plan:
        power = 1 if self.anneal == "step" else 2
        end, cosine = self.lr_min ** (1 / power), (1 + math.cos(math.pi * fraction)) / 2
        lr = (end + (start ** (1 / power) - end) * cosine) ** power
        temperature = self.temperature
        if phase == "explore" and self.explore_temperature is not None:
            temperature = self.explore_temperature
        return Plan(lr, self._momentum(lr), temperature, phase, cycle, fraction)

    def _momentum(self, lr: float) -> float:
        return 1 - math.sqrt(lr / self.lr) * (1 - self.momentum)
