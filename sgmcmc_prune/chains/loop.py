"""Take chains to the end of a stage, with a store, checkpoints, a progress bar, and a resume that loses nothing.

Order of writing: draws are buffered, flushed to the store, and only then is the checkpoint replaced. A kill at any
moment leaves a checkpoint that is never ahead of the store; a resume truncates the store to the checkpoint and draws
the same draws again. Of the ranks that share a chain the first runs the stage, and the others `follow`.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from sgmcmc_prune.chains.batched import BatchedChains
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.monitor import Monitor
from sgmcmc_prune.chains.record import Recorder
from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.machine.distributed import LostRank
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.draws import DrawStore
from sgmcmc_prune.store.places import StagePlaces
from sgmcmc_prune.store.weights import WeightStore

#: Steps between two comparisons of the parameters of the ranks that share a chain.
RANK_CHECK_EVERY = 500

#: A kinetic temperature that is no start of a burn-in any more: those are hot, by factors of tens.
DIVERGED = 1e8


def check_heat(chain: Chain, kinetic: float) -> None:
    """RunError if a chain is so hot that it has diverged, though its loss is a number still."""
    if kinetic > DIVERGED:
        start = ", or start from a chain that has settled"
        raise chain.diverged(f"its kinetic temperature is {kinetic:.2g}", start)


class Stage:
    """One stage of a run on disk: the dense chains, or one fork.

    Parameters
    ----------
    places : StagePlaces
    recorder : Recorder
    store : DrawStore
    record_every : int
        Steps between two records of the training trace.
    checkpoint_seconds : float
        Between two checkpoints.
    keep : int
        How many checkpoints of a chain to keep.
    monitor : Monitor
        Looks at the chain while it runs.
    """

    def __init__(
        self,
        places: StagePlaces,
        recorder: Recorder,
        store: DrawStore,
        record_every: int,
        checkpoint_seconds: float,
        keep: int,
        monitor: Monitor,
    ) -> None:
        self.places, self.recorder, self.store = places, recorder, store
        self.record_every, self.checkpoint_seconds, self.keep = record_every, checkpoint_seconds, keep
        self.monitor = monitor
        self.weights = WeightStore(self.places.draws)

    def run(self, chain: Chain, bar: Any) -> None:
        """Take a chain to its end, from its newest checkpoint if there is one.

        Raises
        ------
        Interrupted
            After SIGINT or SIGTERM, with everything saved.
        RunError
            If the chain diverged; the draws before are kept.
        """
        state = self._load(chain, bar)
        if state is not None:
            chain.load_state_dict(state)
        chain.ranks.wait()  # the others may read it now
        self._cut(chain, bar)
        self._take([chain], lambda: [chain.advance()], bar)

    def run_batched(self, chains: Sequence[Chain], bar: Any) -> None:
        """Take chains to their end together, from the newest step at which all of them have a checkpoint.

        Raises
        ------
        Interrupted, RunError
            As `run`.
        """
        batched = BatchedChains(chains)
        self._check_common_step(chains)
        states = [self._load(chain, bar) for chain in chains]
        while len(steps := {0 if state is None else state["step"] for state in states}) > 1:
            for number, (chain, state) in enumerate(zip(chains, states, strict=True)):
                if state is not None and state["step"] == max(steps):  # a kill came while they were saved
                    self.places.checkpoint(chain.index).unlink()
                    states[number] = self._load(chain, bar)
        for chain, state in zip(chains, states, strict=True):
            if state is not None:
                chain.load_state_dict(state)
            self._cut(chain, bar)
        self._take(chains, batched.advance, bar)

    def _check_common_step(self, chains: Sequence[Chain]) -> None:
        """Refuse chains that were not taken together: going back to a step that all have would undo finished work."""
        kept = [
            [checkpoint.load(path)["step"] for path in checkpoint.history(self.places.checkpoint(c.index))]
            for c in chains
        ]
        common = max(set.intersection(*({0, *steps} for steps in kept)))
        if any(sum(step > common for step in steps) > 1 for steps in kept):
            newest = ", ".join(str(max(steps, default=0)) for steps in kept)
            raise ValueError(
                f"{self.places.directory}: the chains stand at steps {newest}, since they were not taken together; go "
                "on with execution 'loop' or 'processes' in config.json"
            )

    def _take(self, chains: Sequence[Chain], advance: Callable[[], list[Plan]], bar: Any) -> None:
        """Advance chains that are at one step, and write."""
        saved = time.monotonic()

        def after(plans: list[Plan], stop: bool) -> None:
            nonlocal saved
            for chain, plan in zip(chains, plans, strict=True):
                self.write(chain, plan, bar)
            late = time.monotonic() - saved > self.checkpoint_seconds
            if stop or plans[0].end_of_cycle or chains[0].finished or late:
                for chain in chains:
                    self.save(chain)
                saved = time.monotonic()

        try:
            _advance(chains[0], advance, after)
        finally:
            self.store.flush()

    def _load(self, chain: Chain, bar: Any) -> Any:
        path = self.places.checkpoint(chain.index)
        state, damaged = checkpoint.load_newest(path)
        if state is not None and (bad := self.weights.first_damaged(chain.index, state["draws"])):
            state = self._before(path, *bad)
            damaged.append(f"{bad[1]}; drawn again from the checkpoint before")
        for complaint in damaged:
            bar.write(complaint)
        return state

    @staticmethod
    def _before(path: Path, draw: int, reason: str) -> Any:
        """The newest checkpoint from which a damaged draw will be drawn again; those after it are deleted."""
        newer: list[Path] = []
        for candidate in checkpoint.history(path):
            state = checkpoint.load(candidate)
            if state["draws"] <= draw:
                for other in newer:
                    other.unlink()
                os.replace(candidate, path)
                return state
            newer.append(candidate)
        raise ValueError(f"{reason}; no checkpoint is from before it. Delete {path} and those like it to begin anew")

    def _cut(self, chain: Chain, bar: Any) -> None:
        """Forget the draws after the step at which the chain is; they will be drawn again."""
        self.weights.truncate(chain.index, chain.draws)
        for group in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive"):
            self.store.truncate(group, chain.index, chain.draws)
        self.store.truncate("training", chain.index, chain.records)
        skip(bar, chain.step)

    def write(self, chain: Chain, plan: Plan, bar: Any) -> None:
        """What a step leaves: a draw, a record of the trace, the end of a cycle; and a look at the chain."""
        recorded = chain.step % self.record_every == 0
        looked_at = recorded or chain.finished
        if looked_at:
            chain.settle()
        if plan.collect:
            for group, values in self.recorder.draw(chain, plan).items():
                self.store.append(group, chain.index, chain.draws - 1, values)
            self.weights.save(chain.index, chain.draws - 1, network_state(chain.model))
        if looked_at:
            record = self.recorder.record(chain, plan)
            check_heat(chain, record["kinetic_temperature"])
            if recorded:
                self.store.append("training", chain.index, chain.records, record)
                chain.records += 1
            if chain.finished:
                self.store.flush()  # the last look sees all draws
            seen = self.monitor.look(chain, plan, record)
            bar.set_postfix_str(
                f"{plan.phase} loss {chain.loss:.3f}{seen} T_K {record['kinetic_temperature']:.2f} "
                f"sparsity {record['sparsity']:.2f}"
            )
        if plan.end_of_cycle:
            self._end_cycle(chain, plan)
        bar.update(1)

    def _end_cycle(self, chain: Chain, plan: Plan) -> None:
        """Keep the cycle's inclusion probabilities, and the finished plateau's mask."""
        if chain.inclusion:
            one = chain.schedule.cycles == 1  # its batches are parts of the cycle
            means = {n: (a.included if one else a.last_batch).float() for n, a in chain.inclusion.items()}
            path = self.places.inclusion(chain.index, plan.cycle)
            checkpoint.save(path, means)
        if chain.pruner is not None:
            target = chain.pruner.targets[chain.pruner.target_index(plan.cycle)]
            mask = {name: chain.mask[name] for name in chain.pruner.groups}  # a cut takes biases, too
            masks.save(self.places.mask(chain.index, target), mask, chain.pruner.tied)

    def save(self, chain: Chain) -> None:
        """Write a checkpoint, after the draws before it."""
        chain.check()  # a diverged state is nothing to go on from
        self.store.flush()
        checkpoint.save(self.places.checkpoint(chain.index), chain.state_dict(), self.keep)


def follow(places: StagePlaces, chain: Chain) -> None:
    """Take the steps that the first rank of a chain takes in `Stage.run`, from the same checkpoint; write nothing.

    Raises
    ------
    Interrupted
        As the first rank, at the same step.
    SystemExit
        If the chain failed, which the first rank reports.
    """
    chain.ranks.wait()
    path = places.checkpoint(chain.index)
    if path.exists():
        chain.load_state_dict(checkpoint.load(path))
    try:
        _advance(chain, lambda: [chain.advance()], lambda plans, stop: None)
    except LostRank:
        raise
    except RunError:
        raise SystemExit(1) from None


def _advance(chain: Chain, advance: Callable[[], list[Plan]], after: Callable[[list[Plan], bool], None]) -> None:
    """Take a chain, and those that go with it, to the end.

    `after` every step works on its plans, and on whether any rank was told to stop.
    """
    with catch_signals() as received:
        while not chain.finished:
            plans = advance()
            if plans[0].end_of_cycle or chain.step % RANK_CHECK_EVERY == 0:
                chain.ranks.check_same(chain.parameters, chain.step)
            stop = chain.ranks.any(bool(received))
            after(plans, stop)
            if stop:
                raise Interrupted(*received[:1])
        if chain.ranks.any(bool(received)):  # told while the last step was written
            raise Interrupted(*received[:1])


def skip(bar: Any, steps: int) -> None:
    """Move a bar over steps that were taken before, which say nothing about the speed."""
    if hasattr(bar, "skip"):
        bar.skip(steps)
    elif not bar.disable:
        bar.initial += steps
        bar.n += steps
        bar.last_print_n += steps
        bar.refresh()


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step (main thread only)."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    with handled(remember):
        yield received


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted`, where there is nothing to finish first (main thread only)."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with handled(interrupt):
        yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give SIGINT and SIGTERM a handler for a while; outside the main thread they stay with whoever owns them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


def members(weights: WeightStore, chain: int, first: int, last: int) -> Iterator[dict[str, torch.Tensor]]:
    """The weight draws first, ..., last - 1 of a chain, one at a time."""
    for draw in range(first, last):
        yield weights.load(chain, draw)
