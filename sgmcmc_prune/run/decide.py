"""From the averages of finished chains to masks: every criterion and decision that a configuration names."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune import choices
from sgmcmc_prune.criteria.base import Scores, make_criterion
from sgmcmc_prune.criteria.magnitude import magnitude
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning import decision, decisions
from sgmcmc_prune.pruning.inclusion import InclusionAverage, Moments, Observed
from sgmcmc_prune.pruning.masks import Mask
from sgmcmc_prune.pruning.packed_masks import Bits, PackedMasks, pack
from sgmcmc_prune.run.config import RunConfig

Groups = Mapping[str, GroupMap]
#: What `directory.load_averages` gives: the saved averages of one chain.
State = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """One decision on the dense draws that a configuration asks for.

    Attributes
    ----------
    criterion : str
    decision : str
        "target", or the name of a decision without one.
    target, level : float or None
        The sparsity that is asked for, or the number that belongs to the decision.
    """

    criterion: str
    decision: str
    target: float | None
    level: float | None


@dataclass(frozen=True)
class Decided(Asked):
    """What became of it.

    Attributes
    ----------
    tied : float
        Share of the groups that were decided by tie.
    masks : sequence of masks
        One for each chain.
    """

    tied: float
    masks: Sequence[Mask]

    @property
    def labels(self) -> dict[str, Any]:
        """What a row of the metrics says of it."""
        row = {"criterion": self.criterion, "decision": self.decision, "target": self.target, "tied": self.tied}
        return row if self.level is None else {**row, "level": self.level}


class ChainAverages(Mapping[str, Mapping[str, Tensor]]):
    """What one chain averaged over its dense draws, as a criterion reads it.

    Parameters
    ----------
    state : mapping
    groups : mapping of str to GroupMap
        The prunable parameters.
    criterion : str
        Whose own averages belong to it.
    """

    def __init__(self, state: State, groups: Groups, criterion: str) -> None:
        self.state, self.groups = state, groups
        own = state.get("observed", {}).get(criterion)
        self._own = _restored(Observed(make_criterion(criterion).log_space), own).means if own else {}
        self._moments: dict[str, Callable[[Moments], Tensor]] = {
            "mean": lambda m: m.mean,
            "variance": lambda m: m.variance,
            "square": lambda m: m.mean_square,
        }
        self._inclusion: dict[str, Callable[[InclusionAverage], Tensor]] = {
            "log_included": lambda a: a.log_included,
            "log_excluded": lambda a: a.log_excluded,
            "log_odds": lambda a: a.expected_log_odds,
        }

    def __getitem__(self, key: str) -> Mapping[str, Tensor]:
        """Averages of one kind, by parameter."""
        if key in self._own:
            return self._own[key]
        if key in self._moments:
            return {name: self._moments[key](m) for name, m in _moments(self.state, self.groups).items()}
        if key in self._inclusion:
            return {name: self._inclusion[key](a) for name, a in inclusion_averages(self.state).items()}
        raise ValueError(f"the chain did not average {key!r}; it has {', '.join(self)}")

    def __iter__(self) -> Iterator[str]:
        """Every kind."""
        yield from self._own
        yield from self._moments
        if self.state["inclusion"]:
            yield from self._inclusion

    def __len__(self) -> int:
        """How many kinds there are."""
        return sum(1 for _ in self)


def chain_scores(name: str, state: State, groups: Groups, seed: int) -> Scores:
    """Scores of one chain's groups by a criterion (higher = keep).

    Raises
    ------
    ValueError
        If no criterion has that name, the chain did not average what it needs, or it leaves groups without a score.
    """
    averages = ChainAverages(state, groups, name)
    with choices.calling("criterion", name):
        scores = make_criterion(name).scores(averages, groups, seed)
    return checked(name, scores, groups)


def checked(name: str, scores: Mapping[str, Tensor], groups: Groups) -> Scores:
    """A criterion's scores; ValueError unless there is one number for each group."""
    if not isinstance(scores, Mapping):
        raise ValueError(
            f"criterion {name} gave {type(scores).__name__}; it must give the scores of each parameter by name"
        )
    for layer, group in groups.items():
        score = scores.get(layer)
        if not isinstance(score, Tensor) or score.shape != (group.num_groups,) or bool(score.isnan().any()):
            found = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else f"{type(score).__name__}"
            raise ValueError(
                f"criterion {name} must give a number for each of the {group.num_groups} groups of {layer!r}; it gave "
                f"{found}{', with NaN' if isinstance(score, Tensor) and bool(score.isnan().any()) else ''}"
            )
    return {layer: scores[layer] for layer in groups}


def rehearse_criterion(
    config: RunConfig, name: str, prior: Prior, params: Mapping[str, Tensor], groups: Groups
) -> None:
    """Let a user's own criterion, and the user's own decisions by it, see one state before any is sampled.

    Raises
    ------
    ValueError
        If it fails, or gives what cannot be averaged or ranked.
    """
    criterion, observed = make_criterion(name), Observed()
    if criterion.moves:
        return
    with choices.calling("criterion", name):
        observed.update({n: criterion.observe(prior, n, params[n].detach().clone(), 1.0) for n in groups})
        found = criterion.scores(observed.means, groups, 0)
    scores = checked(name, found, groups)
    for decide in without_target(config):
        if choices.is_own(decide.name) and decide.applies(criterion):
            with choices.calling("decision", decide.name):
                decide(decisions.Evidence(scores, criterion.inclusion(observed.means, scores), 0), groups)


def without_target(config: RunConfig) -> list[decisions.Decision]:
    """The decisions without a target that a configuration names."""
    p = config.prune
    return [decisions.load(name, p.fdr, p.loss_budget) for name in p.decisions]


def asked_post_hoc(config: RunConfig) -> list[Asked]:
    """Every decision on the dense chains, criterion by criterion: the targets, then those without one."""
    found = []
    for name, criterion in ((name, make_criterion(name)) for name in config.prune.post_hoc):
        if criterion.moves:  # `conditional.take_conditional`
            continue
        found += [Asked(name, "target", target, None) for target in config.prune.targets]
        found += [Asked(name, d.name, None, d.level) for d in without_target(config) if d.applies(criterion)]
    return found


def decided_post_hoc(
    config: RunConfig,
    groups: Groups,
    chains: Sequence[State],
    losses: Callable[[int, Mask], Tensor],
    asked: Sequence[Asked],
) -> list[Decided]:
    """Take decisions on the dense chains: all of one chain, then those of the next.

    Parameters
    ----------
    config : RunConfig
    groups : mapping of str to GroupMap
    chains : sequence of mapping
        The saved averages of each, which may be read when they are asked for, once each.
    losses : callable
        A chain and a mask to the losses of its draws on held-out examples, (draws, examples).
    asked : sequence of Asked
        Some of `asked_post_hoc`.

    Raises
    ------
    ValueError
        If a criterion needs what the chains did not average.
    """
    each = [_of_chain(config, groups, chains, c, partial(losses, c), asked) for c in range(len(chains) if asked else 0)]
    found = []
    for k, one in enumerate(asked):
        share = sum(tied[k] for _, tied in each) / len(each) / num_groups(groups)
        found.append(Decided(**vars(one), tied=share, masks=PackedMasks(packed[k] for packed, _ in each)))
    return found


def _of_chain(
    config: RunConfig,
    groups: Groups,
    chains: Sequence[State],
    chain: int,
    losses: Callable[[Mask], Tensor],
    asked: Sequence[Asked],
) -> tuple[list[Bits], list[int]]:
    """The masks of one chain, and how many groups each decided by tie; the chain's averages are gone afterwards."""
    state, seed, p = chains[chain], config.seed * 2**16 + chain, config.prune
    size, others = chain_magnitudes(state, groups), {d.name: d for d in without_target(config)}
    packed, ties = [], []
    for name, rows in itertools.groupby(asked, lambda one: one.criterion):
        criterion, scores = make_criterion(name), chain_scores(name, state, groups, seed)
        ranked = scores
        if criterion.copies_layers:
            ranked = chain_scores(asked_post_hoc(config)[0].criterion, state, groups, seed)
        for one in rows:
            tied = 0
            if one.target is None:
                known = (
                    criterion.inclusion(ChainAverages(state, groups, name), scores) if criterion.probabilities else {}
                )
                evidence = decisions.Evidence(scores, known, seed, losses)
                with choices.calling("decision", one.decision):
                    mask = others[one.decision](evidence, groups)
            else:
                mask = decision.target_sparsity(ranked, groups, one.target, p.allocation, second=size, seed=seed)
                if criterion.copies_layers:
                    mask = decision.match_layer_sparsity(scores, groups, mask)
                tied = decision.tied(scores, groups, mask, p.allocation)
            packed.append(pack(mask))
            ties.append(tied)
    return packed, ties


def num_decided(config: RunConfig) -> int:
    """How many rows the criteria on finished draws give: `asked_post_hoc`, and those that move the draws."""
    p = config.prune
    return len(asked_post_hoc(config)) + len(p.targets) * sum(make_criterion(name).moves for name in p.post_hoc)


def num_groups(groups: Groups) -> int:
    """Groups of all layers."""
    return sum(group.num_groups for group in groups.values())


def chain_magnitudes(state: State, groups: Groups) -> Scores:
    """Magnitude of the mean weights of one chain, which decides between equal scores."""
    return magnitude({name: m.mean for name, m in _moments(state, groups).items()}, groups)


def _moments(state: State, groups: Groups) -> dict[str, Moments]:
    return {name: _restored(Moments(), s) for name, s in state["moments"].items() if name in groups}


def inclusion_probabilities(state: State) -> dict[str, Tensor]:
    """Posterior inclusion probability of every group in one chain, shape (G,)."""
    return {name: a.included for name, a in inclusion_averages(state).items()}


def inclusion_errors(chains: Sequence[State]) -> dict[str, Any]:
    """How well inclusion probabilities are known, by layer; empty without a spike-and-slab prior.

    Returns
    -------
    dict
        `batches` of the chain with the fewest; `standard_error`, the median over the groups of all chains; `undecided`,
        the share of groups whose probability is within two standard errors of 1/2. The last two are NaN where batches
        are too few.
    """
    found: dict[str, list[tuple[Tensor, float, int]]] = {}
    for c in range(len(chains)):
        state = chains[c]
        if not state["inclusion"]:
            return {}
        for name, average in inclusion_averages(state).items():
            error = average.standard_error
            near = float(((average.included - 0.5).abs() <= 2 * error).double().sum())
            found.setdefault(name, []).append((error, near, average.batches))
        del state, average  # before the next one is read
    errors, undecided = {}, {}
    for name, each in found.items():
        error = torch.cat([error for error, _, _ in each])
        known = not bool(error.isnan().any())
        errors[name] = float(error.median())
        undecided[name] = sum(near for _, near, _ in each) / len(error) if known else math.nan
    batches = min(count for each in found.values() for _, _, count in each)
    return {"batches": batches, "standard_error": errors, "undecided": undecided}


def inclusion_averages(state: State) -> dict[str, InclusionAverage]:
    """The inclusion averages of one chain, by layer; ValueError if it has none."""
    if not state["inclusion"]:
        raise ValueError("this chain has no spike-and-slab prior, so it has no inclusion probabilities")
    return {name: _restored(InclusionAverage(), s) for name, s in state["inclusion"].items()}


def _restored(average: Any, state: Mapping[str, Any]) -> Any:
    average.load_state_dict(state)
    return average
