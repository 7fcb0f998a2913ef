"""Run chains one after the other, with a store, checkpoints, a progress bar, and a resume that loses nothing.

Order of writing: draws are buffered, flushed to the store, and only then is the checkpoint replaced. A kill at any
moment leaves a checkpoint that is never ahead of the store; a resume truncates the store to the checkpoint and draws
the same draws again.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from sgmcmc_prune import checkpoint
from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.record import Recorder
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.schedules import Plan
from sgmcmc_prune.store import DrawStore
from sgmcmc_prune.weights import WeightStore


class Interrupted(Exception):
    """A signal asked the run to stop; everything is saved."""


class Stage:
    """One stage of a run on disk: the dense chains, or one fork.

    Parameters
    ----------
    directory : Path
    recorder : Recorder
    store : DrawStore
    record_every : int
        Steps between two records of the training trace.
    checkpoint_seconds : float
    """

    def __init__(
        self, directory: Path, recorder: Recorder, store: DrawStore, record_every: int, checkpoint_seconds: float
    ) -> None:
        self.directory, self.recorder, self.store = directory, recorder, store
        self.record_every, self.checkpoint_seconds = record_every, checkpoint_seconds
        self.weights = WeightStore(directory / "draws")

    def checkpoint_path(self, chain: int) -> Path:
        """Where a chain's resume point is."""
        return self.directory / "checkpoints" / f"chain{chain}.safetensors"

    def mask_path(self, chain: int, target: float) -> Path:
        """Where an in-chain mask is kept."""
        return self.directory / "masks" / f"chain{chain}-{target:g}.safetensors"

    def run(self, chain: Chain, bar: Any) -> None:
        """Take a chain to its end, from its checkpoint if there is one."""
        self._restore(chain, bar)
        if chain.finished:
            return
        saved = time.monotonic()
        try:
            with catch_signals() as stop:
                while not chain.finished:
                    plan = chain.advance()
                    self._write(chain, plan, bar)
                    if stop or plan.end_of_cycle or time.monotonic() - saved > self.checkpoint_seconds:
                        self._save(chain)
                        saved = time.monotonic()
                    if stop:
                        raise Interrupted
        finally:
            self.store.flush()
        self._save(chain)

    def _restore(self, chain: Chain, bar: Any) -> None:
        path = self.checkpoint_path(chain.index)
        if path.exists():
            chain.load_state_dict(checkpoint.load(path))
        self.weights.truncate(chain.index, chain.draws)
        for group in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive"):
            self.store.truncate(group, chain.index, chain.draws)
        self.store.truncate("training", chain.index, chain.records)
        bar.update(chain.step)

    def _write(self, chain: Chain, plan: Plan, bar: Any) -> None:
        if chain.step % self.record_every == 0:
            record = self.recorder.record(chain, plan)
            self.store.append("training", chain.index, chain.records, record)
            chain.records += 1
            bar.set_postfix_str(
                f"{plan.phase} loss {chain.loss:.3f} T_K {record['kinetic_temperature']:.2f} "
                f"sparsity {record['sparsity']:.2f}"
            )
        if plan.collect:
            for group, values in self.recorder.draw(chain, plan).items():
                self.store.append(group, chain.index, chain.draws - 1, values)
            self.weights.save(chain.index, chain.draws - 1, chain.model.state_dict())
        if plan.end_of_cycle:
            self._end_cycle(chain, plan)
        bar.update(1)

    def _end_cycle(self, chain: Chain, plan: Plan) -> None:
        """Keep the cycle's inclusion probabilities, and the finished plateau's mask."""
        if chain.inclusion:
            means = {name: average.last_batch.float() for name, average in chain.inclusion.items()}
            path = self.directory / "inclusion" / f"chain{chain.index}-cycle{plan.cycle}.safetensors"
            checkpoint.save(path, means)
        if chain.pruner is not None:
            masks.save(self.mask_path(chain.index, chain.pruner.targets[plan.cycle - 1]), chain.mask)

    def _save(self, chain: Chain) -> None:
        self.store.flush()
        checkpoint.save(self.checkpoint_path(chain.index), chain.state_dict())


def run_chains(stage: Stage, chains: Sequence[Chain], title: str, progress: bool = True) -> None:
    """Run every chain of a stage to its end.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM, with everything saved.
    RunError
        If a chain diverged; the draws before are kept.
    """
    total = sum(chain.schedule.num_steps for chain in chains)
    with tqdm(total=total, desc=title, unit="step", disable=not progress, dynamic_ncols=True, mininterval=0.5) as bar:
        for chain in chains:
            stage.run(chain, bar)


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step (main thread only)."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    try:
        previous = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals stay with whoever owns it
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def members(weights: WeightStore, chain: int, first: int, last: int) -> Iterator[dict[str, torch.Tensor]]:
    """The weight draws first, ..., last - 1 of a chain, one at a time."""
    for draw in range(first, last):
        yield weights.load(chain, draw)
