"""Pruning while the evidence is being maximised: a rising sparsity, and masks that let weights regrow or hold them."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OnlinePruning:
    r"""Every `every` steps, mask the weights with the lowest damage up to the sparsity

    .. math:: s(t) = s_0 + (s_1 - s_0) \min(1, \lfloor t / I \rfloor / \lfloor N / I \rfloor)

    after step t of N.

    Parameters
    ----------
    final, initial : float
        s_1 and s_0, 0 <= initial <= final < 1.
    every : int
        I, at least 1.
    mode : {"regrow", "hard"}
        `regrow` sets masked weights to zero and lets them move on from there, so that each event chooses anew;
        `hard` holds them at zero for good and leaves them out of the evidence (diagonal curvature only).

    Raises
    ------
    ValueError
        If a setting is out of range.

    References
    ----------
    Dhahri et al.: Shaving weights with Occam's razor (NeurIPS 2024); the schedule, with I of ten epochs and 10 to 99 %,
    and `regrow` are those of its released code.
    """

    final: float = 0.99
    initial: float = 0.1
    every: int = 5_000
    mode: Literal["regrow", "hard"] = "hard"

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= self.final < 1:
            raise ValueError(f"online sparsities are {self.initial} and {self.final}; give 0 <= initial <= final < 1")
        if self.every < 1:
            raise ValueError(f"online pruning every {self.every} steps; give at least 1")
        if self.mode not in ("regrow", "hard"):
            raise ValueError(f"online mode is {self.mode!r}; choose regrow or hard")

    def sparsity(self, step: int, steps: int) -> float | None:
        """The sparsity to mask to after this step, or None where there is nothing to do."""
        if step % self.every:
            return None
        events = max(1, math.floor(steps / self.every))
        return self.initial + (self.final - self.initial) * min(1.0, (step // self.every) / events)
