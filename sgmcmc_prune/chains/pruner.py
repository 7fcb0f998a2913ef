"""The paper's one shot: a mask that grows inside the chain, monotonically, on a cubic schedule, plateau by plateau.

At each target a fork explores while the sparsity grows from the target before (in the first part of the exploration),
goes on exploring under the finished mask, and then samples; further cycles at the same target explore and sample under
that mask. Criteria see running averages over the noisy steps, not one noisy draw.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.priors.spike_slab import SpikeSlab
from sgmcmc_prune.pruning import criteria, decision
from sgmcmc_prune.pruning.inclusion import log_probabilities
from sgmcmc_prune.pruning.schedule import cubic_sparsity

#: The cubic schedule counts in integers; this many per exploration.
_FINE = 1_000_000


class Pruner:
    """Grows the mask of one chain.

    Parameters
    ----------
    criterion : str
        One of `config.Criterion`.
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
    reference : sequence of masks or None
        For "random": the masks of another criterion at the same targets, whose per-layer sparsity it copies.
    seed : int
        For "random", and for what decides between equal scores.

    Attributes
    ----------
    tied : int
        Groups that the last mask decided by tie.
    """

    def __init__(
        self,
        criterion: str,
        targets: Sequence[float],
        groups: Mapping[str, GroupMap],
        *,
        allocation: str = "global",
        growth: float = 0.5,
        cycles: int = 1,
        every: int = 20,
        smoothing: float = 0.05,
        reference: Sequence[Mapping[str, Tensor]] | None = None,
        seed: int = 0,
    ) -> None:
        if criterion not in criteria.NAMES:
            raise ValueError(f"criterion is {criterion!r}; choose among {', '.join(criteria.NAMES)}")
        if list(targets) != sorted(set(targets)) or not targets or not 0 < targets[0] <= targets[-1] < 1:
            raise ValueError(f"targets are {list(targets)}; give increasing sparsities inside (0, 1)")
        self.criterion, self.targets, self.groups = criterion, tuple(targets), dict(groups)
        self.allocation, self.growth, self.cycles, self.seed = allocation, growth, cycles, seed
        self.every, self.smoothing = every, smoothing
        self.reference = reference
        self.random_scores = criteria.random(groups, seed) if criterion == "random" else {}
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
        previous = self.targets[k - 1] if k else 0.0
        target = self.targets[k]
        sparsity = cubic_sparsity(round(fraction * _FINE), 0, round(self.growth * _FINE), previous, target)
        if self.reference is not None:
            self.mask = self._copy_layers(k, (sparsity - previous) / (target - previous))
        else:
            scores, size = self._scores(), criteria.magnitude(params, self.groups)
            self.mask = decision.target_sparsity(
                scores, self.groups, sparsity, self.allocation, previous=self.mask, second=size, seed=self.seed
            )
            if self.finished_cycle == plan.cycle:
                self.tied = decision.tied(scores, self.groups, self.mask, self.allocation)
        return self.mask

    def target_index(self, cycle: int) -> int:
        """The number, from 0, of the target at which the chain is in its cycle 1, 2, ..."""
        return (cycle - 1) // self.cycles

    def _copy_layers(self, k: int, share: float) -> dict[str, Tensor]:
        """Random weights, with the share of the reference's growth towards target k done in every layer."""
        assert self.reference is not None
        mask = {}
        for name, group in self.groups.items():
            now = int((~self.reference[k][name]).sum())
            before = int((~self.reference[k - 1][name]).sum()) if k else 0
            order = self.random_scores[name].argsort(stable=True)
            masked = group.group_size[order].cumsum(0).round() <= before + share * (now - before)
            kept = torch.ones(group.num_groups, dtype=torch.bool)
            kept[order[masked]] = False
            mask[name] = group.expand(kept).contiguous()
        return mask

    def _observe(self, params: Mapping[str, Tensor], prior: Prior | None, temperature: float) -> None:
        for name in self.groups:
            new = self._observed(name, params[name].detach(), prior, temperature)
            old = self.averages.get(name)
            self.averages[name] = new if old is None else {k: self._mixed(k, old[k], v) for k, v in new.items()}

    def _observed(self, name: str, w: Tensor, prior: Prior | None, temperature: float) -> dict[str, Tensor]:
        """What the criterion averages, at one state."""
        if self.criterion == "random":
            return {}
        if self.criterion in ("magnitude", "signal_to_noise"):
            return {"mean": w.double(), "square": w.double().square()}
        if not isinstance(prior, SpikeSlab):
            raise ValueError(f"criterion {self.criterion!r} needs a spike-and-slab prior")
        eta = prior.log_odds(name, w)
        if self.criterion == "expected_log_odds":
            return {"log_odds": eta}
        included, excluded = log_probabilities(eta, prior.indicator_temperature(temperature))
        return {"log_included": included, "log_excluded": excluded}

    def _mixed(self, key: str, old: Tensor, new: Tensor) -> Tensor:
        """The running average with the newest step in it; probabilities are averaged in log space."""
        if key not in ("log_included", "log_excluded"):
            return old.lerp(new, self.smoothing)
        return torch.logaddexp(old + math.log1p(-self.smoothing), new + math.log(self.smoothing))

    def _scores(self) -> dict[str, Tensor]:
        column = {k: {n: a[k] for n, a in self.averages.items()} for k in next(iter(self.averages.values()))}
        if self.criterion in ("inclusion_probability", "em_responsibility"):
            return criteria.inclusion_log_odds(column["log_included"], column["log_excluded"])
        if self.criterion == "expected_log_odds":
            return column["log_odds"]
        if self.criterion == "magnitude":
            return criteria.magnitude({n: s.sqrt() for n, s in column["square"].items()}, self.groups)
        if self.criterion == "signal_to_noise":
            variance = {n: (s - column["mean"][n].square()).clamp(min=0) for n, s in column["square"].items()}
            return criteria.signal_to_noise(column["mean"], variance, self.groups)
        return self.random_scores

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
