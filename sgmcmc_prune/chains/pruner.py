"""The paper's one shot: a mask that grows inside the chain, monotonically, on a cubic schedule, plateau by plateau.

At each target a fork explores while the sparsity grows from the target before (in the first part of the exploration),
goes on exploring under the finished mask, and then samples; further cycles at the same target explore and sample under
that mask. Criteria see running averages over the noisy steps, not one noisy draw.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.criteria.base import Criterion, make_criterion
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import decision
from sgmcmc_prune.pruning.schedule import cubic

#: The cubic schedule counts in integers; this many per exploration.
_FINE = 1_000_000


class Pruner:
    """Grows the mask of one chain.

    Parameters
    ----------
    criterion : Criterion or str
        One, or the name of one.
    targets : sequence of float
        Increasing sparsities.
    groups : mapping of str to GroupMap
    allocation : str
        As in `pruning.decision.target_sparsity`.
    growth : float
        Share of each target's first exploration in which the mask grows, in (0, 1].
    cycles : int
        Cycles of the chain's schedule at each target.
    every : int
        Steps between two mask updates.
    smoothing : float
        Weight of the newest step in the running averages of the scores.
    remaining : callable
        What is left of the growth at each fraction of its time, from 1 down to 0.
    reference : sequence of masks or None
        The masks of another criterion at the same targets, whose per-layer sparsity this one copies.
    seed : int
        Of random scores, and of what decides between equal ones.

    Attributes
    ----------
    tied : int
        Groups that the last mask decided by tie.
    """

    def __init__(
        self,
        criterion: Criterion | str,
        targets: Sequence[float],
        groups: Mapping[str, GroupMap],
        *,
        allocation: str = "global",
        growth: float = 0.5,
        cycles: int = 1,
        every: int = 20,
        smoothing: float = 0.05,
        remaining: Callable[[float], float] = cubic,
        reference: Sequence[Mapping[str, Tensor]] | None = None,
        seed: int = 0,
    ) -> None:
        if list(targets) != sorted(set(targets)) or not targets or not 0 < targets[0] <= targets[-1] < 1:
            raise ValueError(f"targets are {list(targets)}; give increasing sparsities inside (0, 1)")
        self.criterion = make_criterion(criterion) if isinstance(criterion, str) else criterion
        self.targets, self.groups = tuple(targets), dict(groups)
        self.allocation, self.growth, self.cycles, self.seed = allocation, growth, cycles, seed
        self.every, self.smoothing, self.remaining = every, smoothing, remaining
        self.reference = reference
        self.mask: dict[str, Tensor] | None = None
        self.tied = 0
        self.finished_cycle = 0
        self.averages: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def update(
        self, step: int, plan: Plan, params: Mapping[str, Tensor], prior: Prior | None
    ) -> dict[str, Tensor] | None:
        """See the state before a step of a cycle; return the new mask if it grows at this step.

        The target is reached at the end of the growth, and at the latest with the first step of the sampling phase.
        """
        k = self.target_index(plan.cycle)
        if self.finished_cycle > k * self.cycles:
            return None
        self._observe(params, prior, plan.temperature)
        fraction = plan.fraction if plan.phase == "explore" else 1.0
        if fraction >= self.growth:
            self.finished_cycle = plan.cycle
        elif step % self.every:
            return None
        previous, target = self.targets[k - 1] if k else 0.0, self.targets[k]
        left = self._left(fraction)
        sparsity = previous if left == 1 else target - (target - previous) * left
        if self.reference is not None:
            self.mask = self._copy_layers(k, (sparsity - previous) / (target - previous))
        else:
            scores, size = self._scores(), magnitude(params, self.groups)
            self.mask = decision.target_sparsity(
                scores, self.groups, sparsity, self.allocation, previous=self.mask, second=size, seed=self.seed
            )
            if self.finished_cycle == plan.cycle:
                self.tied = decision.tied(scores, self.groups, self.mask, self.allocation)
        return self.mask

    @property
    def finished(self) -> bool:
        """Whether the mask has reached the last target, and grows no more."""
        return self.finished_cycle > (len(self.targets) - 1) * self.cycles

    def _left(self, fraction: float) -> float:
        """What is left of the growth: 0 from its end on; ValueError if a user's schedule leaves [0, 1]."""
        t = round(fraction * _FINE) / round(self.growth * _FINE)
        if t <= 0 or t >= 1:
            return float(t <= 0)
        left = self.remaining(t)
        if not 0 <= left <= 1:
            raise ValueError(f"the growth of the mask has {left} left at {t:.3f} of its time; it must fall from 1 to 0")
        return left

    def target_index(self, cycle: int) -> int:
        """The number, from 0, of the target at which the chain is in its cycle 1, 2, ..."""
        return (cycle - 1) // self.cycles

    def _copy_layers(self, k: int, share: float) -> dict[str, Tensor]:
        """By the scores in each layer, with the share of the reference's growth towards target k done there."""
        assert self.reference is not None
        mask, scores = {}, self._scores()
        for name, group in self.groups.items():
            now = int((~self.reference[k][name]).sum())
            before = int((~self.reference[k - 1][name]).sum()) if k else 0
            order = scores[name].argsort(stable=True)
            masked = group.group_size[order].cumsum(0).round() <= before + share * (now - before)
            kept = torch.ones(group.num_groups, dtype=torch.bool)
            kept[order[masked]] = False
            mask[name] = group.expand(kept).contiguous()
        return mask

    def _observe(self, params: Mapping[str, Tensor], prior: Prior | None, temperature: float) -> None:
        for name in self.groups:
            w = params[name].detach()
            new = self.criterion.observe(prior, name, w if self.criterion.kept_by_chains else w.clone(), temperature)
            old = self.averages.get(name)
            if old is not None and {k: v.shape for k, v in new.items()} != {k: v.shape for k, v in old.items()}:
                raise ValueError(f"the criterion observed {list(old)} of {name!r} at first, and {list(new)} now")
            self.averages[name] = new if old is None else {k: self._mixed(k, old[k], v) for k, v in new.items()}

    def _mixed(self, key: str, old: Tensor, new: Tensor) -> Tensor:
        """The running average with the newest step in it."""
        if key in self.criterion.log_space:
            return torch.logaddexp(old + math.log1p(-self.smoothing), new + math.log(self.smoothing))
        return old.lerp(new, self.smoothing)

    def _scores(self) -> dict[str, Tensor]:
        observed = next(iter(self.averages.values()))
        averages = {key: {name: found[key] for name, found in self.averages.items()} for key in observed}
        return self.criterion.scores(averages, self.groups, self.seed)

    def state_dict(self) -> dict[str, Any]:
        """The mask and the running averages."""
        return {
            "mask": self.mask,
            "tied": self.tied,
            "finished_cycle": self.finished_cycle,
            "averages": self.averages,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.mask, self.tied, self.finished_cycle = state["mask"], state["tied"], state["finished_cycle"]
        self.averages = {n: dict(a) for n, a in state["averages"].items()}
