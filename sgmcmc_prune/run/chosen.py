"""Which pruned network of a run: its mask, the draws behind it, and how it becomes one network."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sgmcmc_prune.criteria.base import make_criterion
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.pruning import batchnorm, masks
from sgmcmc_prune.pruning.masked import put_on
from sgmcmc_prune.pruning.masks import Mask
from sgmcmc_prune.run.config import NetworkChoice, pruned_of
from sgmcmc_prune.run.decide import asked_post_hoc, decided_post_hoc
from sgmcmc_prune.run.directory import StoredAverages
from sgmcmc_prune.run.distil import DISTILLING_CHAIN, Teacher, distil
from sgmcmc_prune.run.evaluate import held_out_losses
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.run.tables import starved_words
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.weights import WeightStore, average
from sgmcmc_prune.text_table import in_words


@dataclass(frozen=True)
class Chosen:
    """A pruned network of a run, and the draws of all chains that its row of the table averages over.

    Attributes
    ----------
    store : WeightStore
    masks : list of masks
        One for each chain.
    chain : int
        Whose network it is.
    draws : range
        Of every chain, under its mask.
    last : range
        Those of the last cycle.
    row : dict
        What tells its row of the table from the others.
    origin : str
        All of this in words.
    notes : list of str
        That its mask has a starved layer, and which sparser targets were passed over because they have one.
    """

    store: WeightStore
    masks: list[Mask]
    chain: int
    draws: range
    last: range
    row: dict[str, Any]
    origin: str
    notes: list[str]

    @property
    def mask(self) -> Mask:
        """That of its chain."""
        return self.masks[self.chain]

    def mean(self) -> dict[str, Tensor]:
        """The mean of the chain's draws of the last cycle; ValueError if the run kept none."""
        try:
            return average(self.store.load(self.chain, draw) for draw in self.last)
        except ValueError as error:
            raise ValueError(f"{error}; a run keeps its draws with --keep-weight-draws") from None

    def together(self, run: Run) -> dict[str, dict[str, float]]:
        """What all draws of all chains score together in the run's table, under their number."""
        rows = read_json(run.places.metrics, checksum=True)["pruned"]
        row = next(row for row in rows if {key: row.get(key) for key in self.row} == self.row)
        scores = {heading: row[key] for key, heading in list(run.likelihood.headings.items())[:2]}
        return {f"{row['members']} draws together": scores}

    def distil(self, network: nn.Module, run: Run, epochs: float) -> str:
        """Train the network to predict as all draws of all chains do together, and say what was done."""
        own, batches = run.model(self.chain), run.statistics_batches()

        def states() -> Iterator[dict[str, Tensor]]:
            for (chain, mask), draw in product(enumerate(self.masks), self.draws):
                put_on(own, self.store.load(chain, draw), mask, batches)
                yield network_state(own)

        teacher = Teacher(own, states(), run.likelihood)
        steps, sampler = max(1, round(epochs * run.steps_per_epoch)), run.config.sampler
        stream = run.stream(DISTILLING_CHAIN)
        distil(network, self.mask, teacher, stream, steps, sampler.lr_explore, sampler.momentum)
        if batchnorm.layers(network):
            batchnorm.reestimate(network, batches())
        return f"distilled from {len(teacher.states)} draws in {epochs:g} epochs"


def chosen(run: Run, run_dir: Path, choice: NetworkChoice) -> Chosen:
    """Find the masks and the draws of a choice; ValueError if the run does not have it.

    Without a target it is the sparsest one that starves no layer in any chain, or, where all do, the sparsest.
    """
    config = run.config
    criteria = config.prune.in_chain if choice.when == "in_chain" else config.prune.post_hoc
    targets = config.prune.targets
    criterion = choice.criterion or next(iter(criteria), None)
    asked = sorted(targets, reverse=True) if choice.target is None else [choice.target]
    wanted: list[float | None] = [*asked] if choice.decision == "target" else [None]
    if not 0 <= choice.chain < config.chains:
        raise ValueError(f"chain is {choice.chain}; the run has chains 0 to {config.chains - 1}")
    if not criteria:
        other = "post_hoc" if choice.when == "in_chain" else "in_chain"
        raise ValueError(f"{run_dir} has nothing pruned {choice.when}; ask for --when {other}")
    if criterion not in criteria:
        other = "post_hoc" if choice.when == "in_chain" else "in_chain"
        hint = f", and {criterion} {other}" if criterion in getattr(config.prune, other) else ""
        raise ValueError(
            f"{run_dir} has nothing pruned {choice.when} by {criterion}; it has {', '.join(criteria)}{hint}"
        )
    if choice.decision == "target" and not set(asked) & set(targets):
        raise ValueError(f"{run_dir} has no target {choice.target}; it has {', '.join(f'{t:g}' for t in targets)}")
    if choice.when == "in_chain" and choice.decision != "target":
        raise ValueError(f"decision {choice.decision} is taken post hoc alone; in the chain give a target")
    plan = config.prune if choice.when == "in_chain" else config.schedule
    count = plan.num_draws
    own_draws = choice.when == "in_chain" or (choice.decision == "target" and make_criterion(str(criterion)).moves)
    found: dict[float | None, list[Mask]]
    if own_draws:
        stage = run.places.stage(criterion)
        found = {t: [masks.load(stage.mask(chain, t)) for chain in range(config.chains)] for t in asked}
    else:
        stage, found = run.places.stage(None), _post_hoc_masks(run, choice, str(criterion), wanted)
    sound = [t for t in wanted if not masks.starved_anywhere(found[t])]
    target = (sound or wanted)[0]
    every, k = found[target], targets.index(target) if own_draws and target is not None else 0
    draws = range(k * count, (k + 1) * count)
    decided = f"{100 * target:g} %" if choice.decision == "target" and target else choice.decision
    origin = (
        f"{run_dir.name}, chain {choice.chain}, {in_words(str(criterion))}, {choice.when.replace('_', ' ')}, "
        f"{decided} ({masks.sparsity(every[choice.chain]):.1%} of the {pruned_of(config)} pruned), "
        f"mean of {plan.draws} draws"
    )
    row = {"when": choice.when, "criterion": criterion, "decision": choice.decision, "target": target}
    notes = _notes(every[choice.chain], choice.chain, wanted, sound)
    return Chosen(WeightStore(stage.draws), every, choice.chain, draws, draws[-plan.draws :], row, origin, notes)


def _notes(mask: Mask, chain: int, wanted: list[float | None], sound: list[float | None]) -> list[str]:
    """What is said of starved layers: of the mask that was taken, and of the targets that might have been."""
    lines = []
    if layers := masks.starved(mask):
        lines.append(f"STARVED: {starved_words(layers)} under the mask of chain {chain}")
    passed = [t for t in wanted[: wanted.index(sound[0])] if t is not None] if sound else []
    if passed:
        named = " and ".join(f"{100 * t:g} %" for t in passed)
        lines.append(f"passed over: {named}, where a layer is starved in a chain (--target takes it all the same)")
    if len(wanted) > 1 and not sound:
        lines.append("at every target of the run a layer is starved in a chain; this is the sparsest")
    return lines


def _post_hoc_masks(
    run: Run, choice: NetworkChoice, criterion: str, wanted: list[float | None]
) -> dict[float | None, list[Mask]]:
    """The masks of all chains by target; None stands for a decision without one."""
    asked = asked_post_hoc(run.config)
    mine = [a for a in asked if (a.criterion, a.decision) == (criterion, choice.decision) and a.target in wanted]
    if len(mine) < len(wanted):
        others = ", ".join(sorted({f"{a.decision} by {a.criterion}" for a in asked if a.target is None}))
        raise ValueError(
            f"{run.out} has no decision {choice.decision} by {criterion}; it has {others or 'targets alone'}"
        )
    states, groups = StoredAverages(run.places, run.config.chains), run.groups(run.model(0))
    return {d.target: list(d.masks) for d in decided_post_hoc(run.config, groups, states, held_out_losses(run), mine)}
