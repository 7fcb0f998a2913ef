"""What a preconditioner is: the three verbs, the change of a mass, and the identity.

A mass is a tensor that broadcasts against its parameter (one entry for each weight, or a scalar), or None for M = I. It
lives in the sampler's state of a parameter, as `state["mass"]`.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor

State = dict[str, Any]


def sqrt_mass(mass: Tensor | None, x: Tensor) -> Tensor:
    """M^(1/2) x."""
    return x if mass is None else x * mass.sqrt()


def inverse_mass(mass: Tensor | None, x: Tensor) -> Tensor:
    """M^-1 x."""
    return x if mass is None else x / mass


def inverse_sqrt_mass(mass: Tensor | None, x: Tensor) -> Tensor:
    """M^-1/2 x."""
    return x if mass is None else x * mass.rsqrt()


def change_mass(state: State, mass: Tensor) -> None:
    """Give a parameter a new M, and its momentum the factor sqrt(M / M_old): its law N(0, T M) follows."""
    old = state.get("mass")
    if "momentum_buffer" in state:
        state["momentum_buffer"].mul_((mass if old is None else mass / old).sqrt())
    state["mass"] = mass


class Preconditioner:
    """A mass matrix that learns nothing; subclasses override what they need.

    `min_mass` is the smallest M that it can give: no step is longer than lr / min_mass. `state_keys` names what it
    keeps in the state of a parameter, beside its mass.
    """

    min_mass: float = 1.0
    state_keys: ClassVar[tuple[str, ...]] = ()
    #: Whether `observe` does anything.
    adapts: bool = True

    def observe(self, state: State, gradient: Tensor) -> None:
        """See one minibatch gradient of one parameter."""

    def refresh(self, states: Iterable[State]) -> None:
        """Recompute M of every parameter from what was observed."""


class Identity(Preconditioner):
    """M = I."""

    adapts = False
