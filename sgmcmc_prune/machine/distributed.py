"""One chain over many processes: each takes a part of every minibatch, and all take the same step.

`torchrun` starts the processes, or ranks. The gradient of a minibatch of B examples is

    (1/B) sum_i grad_i  =  mean over R ranks of  (R n_r / B) x (mean gradient over the n_r examples of rank r),

and this mean is taken by `DistributedDataParallel` while the backward pass is still running. Noise, minibatches, masks
and hyperparameters are functions of (seed, chain, step) and of that mean, so every rank computes them for itself. Two
numbers more are sent each step: the loss, on the device of the gradients, and the wish to stop, on the CPU over gloo.

What becomes of a run is decided once, by the first rank, or by one that is left where the first was killed.
"""

import gc
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.machine.words import Words, meet

#: Chains of one run need not end on the same day; a rank that dies is noticed at once all the same.
PATIENCE = timedelta(days=30)
#: Exit code of bad input, which no restart would mend.
REFUSED = 2
#: Errors that say that the input is bad.
BAD_INPUT = (ValueError, TypeError, OSError)
_HEARS_NO_MORE = "hears no more"

T = TypeVar("T")


class LostRank(RunError):
    """Another process of the run is gone, or silent for too long.

    Parameters
    ----------
    message : str
    among : sequence of int
        Numbers of the ranks of which one is lost.
    """

    def __init__(self, message: str, among: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.among = among


@dataclass(frozen=True)
class Ranks:
    """The processes that share one chain; by default this process alone.

    Parameters
    ----------
    rank : int
        The number of this process among them.
    size : int
        How many there are.
    group : ProcessGroup or None
        How they reach each other; None for a process alone.
    offset : int
        The number, among all processes of the run, of the first of them.
    words : Words or None
        What they leave for each other.
    restarted : bool
        Whether the launcher has started this command anew, after a rank failed.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    offset: int = 0
    words: Words | None = None
    restarted: bool = False

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """The positions of a minibatch that this rank takes; parts differ by one example at most."""
        return slice(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)

    def network(self, model: nn.Module) -> nn.Module:
        """The model for forward and backward passes; parameters keep their names in `model` itself.

        Buffers (BatchNorm) are not sent: those of the first rank are stored.
        """
        if self.size == 1:
            return model
        network = nn.parallel.DistributedDataParallel(
            model, process_group=self.group, init_sync=False, gradient_as_bucket_view=True
        )
        network.broadcast_buffers = False  # as an argument it is deprecated from torch 2.13 on
        return network

    def backward(self, loss: Tensor, share: float) -> None:
        """Compute the gradient of the whole minibatch from the mean loss of this rank's share of it."""
        with self._hearing():
            (loss * (share * self.size)).backward()

    def sum(self, value: float) -> float:
        """Add up a number over the ranks; every rank gets the same bits."""
        return float(self._reduced([value], dist.ReduceOp.SUM)[0]) if self.size > 1 else value

    def added(self, value: Tensor) -> Tensor:
        """Add up a tensor over the ranks in place, on its device: the host does not wait for that."""
        with self._hearing():
            dist.all_reduce(value, group=self.group)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; so it is on all."""
        return self.sum(float(flag)) > 0

    def wait(self) -> None:
        """Wait for all ranks to get here."""
        self.any(False)

    def check_same(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """RunError unless the parameters are the same on all ranks, to the bit."""
        if self.size > 1:
            crc = float(checksum(parameters))
            highest, lowest = self._reduced([crc, -crc], dist.ReduceOp.MAX)
            if highest != -lowest:
                raise RunError(
                    f"the ranks of a chain no longer have the same parameters at step {step}: an operation of the "
                    "sampler or the prior is not deterministic on this device, or the machines differ"
                )

    def first_only(self, work: Callable[[], T]) -> T | None:
        """Let the first rank work while the others wait; if it fails, it alone says why, and all exit with one code."""
        result, code = None, 0
        try:
            if self.first:
                with self.telling():
                    result = work()
        except BaseException as error:
            code = exit_code(error)
            raise
        finally:
            code = int(self.sum(code))
        if code:
            raise SystemExit(code)
        return result

    def together(self, work: Callable[[], object]) -> None:
        """Let every rank work; where one fails, it says why, and the others that it did.

        Raises
        ------
        LostRank
            On the ranks that did not fail; if the first failed, they exit without a word.
        """
        if self.size == 1:
            return
        error = None
        try:
            with self.telling():
                work()
        except Exception as failed:
            error = failed
        code = 0 if error is None else exit_code(error)
        words: list[Any] = [None] * self.size
        with self._hearing():
            dist.all_gather_object(words, (code, str(error)), self.group)
        if error is not None:
            raise error
        bad = {rank: why for rank, why in enumerate(words) if why[0]}
        if not bad:
            return
        if 0 in bad:
            raise SystemExit(bad[0][0])
        rank, (code, why) = next(iter(bad.items()))
        place = self.words.place(rank) if self.words else f"rank {rank}"
        raise (ValueError if code == REFUSED else LostRank)(f"{place} of {self.size} cannot go on: {why}")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Leave a word for the others when this rank fails, and hear theirs when another is lost."""
        try:
            yield
        except LostRank as lost:
            with deaf():
                raise self._explained(lost) from lost.__cause__
        except Exception as error:
            if self.words is not None:
                self.words.leave(str(error), isinstance(error, BAD_INPUT))
            raise

    def _explained(self, lost: LostRank) -> LostRank:
        """The same with the rank that was lost, and its reason if it has left one."""
        if self.words is None:
            return lost
        words = self.words
        words.leave(_HEARS_NO_MORE)
        said = words.of([rank for rank in lost.among if rank != self.rank])
        reasons = [f"{words.place(r)} failed: {w}" for r, w in said.items() if w not in (None, _HEARS_NO_MORE)]
        silent = [rank for rank, word in said.items() if word is None]
        gone = [f"{words.place(rank)} ended without a word" for rank in silent]
        return LostRank("; ".join([str(lost), *(reasons or gone)]), silent)

    @contextmanager
    def others_wait(self) -> Iterator[None]:
        """Let the first rank work while the others `wait_for_first`, and tell them how it ended."""
        code = 0
        try:
            yield
        except BaseException as error:
            code = exit_code(error)
            raise
        finally:
            with suppress(LostRank):  # one that is killed while it waits changes nothing of the work
                self.sum(code)

    def wait_for_first(self) -> None:
        """Wait until the first rank has ended its work: a launcher gives its agents a few minutes to end together.

        Raises
        ------
        SystemExit
            With the exit code of the first rank, if it failed; it alone says why.
        """
        if code := int(self.sum(0)):
            raise SystemExit(code)

    def _reduced(self, values: list[float], operation: Any) -> Tensor:
        message = torch.tensor(values, dtype=torch.float64)
        with self._hearing():
            dist.all_reduce(message, operation, self.group)
        return message

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """Say in one line that another rank is gone, instead of what a collective says."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self.size == 1:
                raise
            raise LostRank(
                f"rank {self.offset + self.rank} of {dist.get_world_size()} hears no more from another rank, which was "
                f"killed, failed or was silent for longer than rank_timeout ({str(error).splitlines()[0]}); `resume` "
                "goes on from the last checkpoint",
                range(self.offset, self.offset + self.size),
            ) from error


ALONE = Ranks()


def exit_code(error: BaseException) -> int:
    """The exit code of a process that ends with an error, as the command line gives it."""
    if isinstance(error, Interrupted):
        return error.exit_code
    return REFUSED if isinstance(error, BAD_INPUT) else 1


@contextmanager
def deaf() -> Iterator[None]:
    """Let nothing but SIGKILL come between (main thread): a launcher that sees a dead rank stops the others at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def checksum(parameters: Mapping[str, Tensor]) -> int:
    """CRC-32 over the bytes of all parameters."""
    crc = 0
    for p in parameters.values():
        crc = zlib.crc32(p.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def is_first_process() -> bool:
    """Whether this is the process of a run that speaks to its user."""
    return int(os.environ.get("RANK", "0")) == 0


def processes_here() -> int:
    """How many processes of a run the launcher has started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def resume_command(out: Path) -> str:
    """What continues a run."""
    if "WORLD_SIZE" in os.environ:
        return f"torchrun (with its options) -m sgmcmc_prune resume {out}"
    return f"sgmcmc-prune resume {out}"


@contextmanager
def world() -> Iterator[Ranks]:
    """All the processes of a run: what `torchrun` started, or this process alone.

    Each takes the graphics processor of its local rank. Process groups are left as they are found.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    ours = not dist.is_initialized()
    words, restarted = _join() if ours else (None, False)
    try:
        yield Ranks(dist.get_rank(), size, dist.group.WORLD, words=words, restarted=restarted)
    finally:
        if ours:
            gc.collect()  # what belongs to a group must be gone before the group is
            dist.destroy_process_group()


def _join() -> tuple[Words, bool]:
    """Meet the other processes where the launcher says; say whether it has started them before.

    `torchrun` keeps one store of addresses over its restarts: each restart must look for its own, not for the dead. The
    number of the restart does not tell them apart, for each agent counts its own.

    Raises
    ------
    ValueError, SystemExit
        If the command was refused when it was started before: nothing has changed. The first rank says so, once.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    store = dist.PrefixStore(f"sgmcmc_prune {os.environ.get('TORCHELASTIC_RUN_ID', '')}", store)
    if store.check(["refused"]):
        if rank == 0 and store.add("said that it was", 1) == 1:
            reason = store.get("refused").decode()
            raise ValueError(f"not tried again, however often torchrun starts it, because it was refused: {reason}")
        raise SystemExit(REFUSED)
    meeting = meet(store, rank, size)
    restarted = store.check(["begun"]) or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    words = Words(store, meeting, rank)
    store_of_meeting = dist.PrefixStore(f"addresses {meeting}", store)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend, store=store_of_meeting, rank=rank, world_size=size, timeout=PATIENCE)
    dist.all_reduce(torch.zeros(1))  # all have looked whether there was a start before
    store.set("begun", "yes")
    words.learn_hosts(size)
    return words, restarted


def ranks_per_chain(processes: int, chains: int, batch_size: int, wanted: int | None) -> int:
    """How many processes share a chain.

    Parameters
    ----------
    processes : int
    chains : int
    batch_size : int
    wanted : int or None
        None: all processes take one chain after the other.

    Raises
    ------
    ValueError
        If the processes cannot be divided so.
    """
    each = processes if wanted is None else wanted
    if each < 1 or processes % each:
        raise ValueError(
            f"{processes} processes cannot be divided among chains of {each} ranks; start a multiple of it"
        )
    if processes // each > chains:
        raise ValueError(
            f"{processes} processes are {processes // each} groups of {each}, for {chains} chains: start at most "
            f"{chains * each} processes, or raise ranks_per_chain or chains"
        )
    if each > batch_size:
        raise ValueError(f"{each} ranks cannot share minibatches of {batch_size}: each needs an example at least")
    return each


def divide(everyone: Ranks, chains: int, each: int, timeout: float) -> tuple[Ranks, range]:
    """Divide the processes into groups of `each`, and the chains among the groups.

    Parameters
    ----------
    everyone : Ranks
        From `world`.
    chains, each : int
    timeout : float
        Seconds after which a rank gives up waiting for another of its group.

    Returns
    -------
    ranks : Ranks
        This process's group.
    chains : range
        The numbers of the chains that the group takes, one after the other.
    """
    groups = everyone.size // each
    mine = everyone.rank // each
    if each == 1:
        return ALONE, range(mine, chains, groups)
    made = [
        dist.new_group(list(range(g * each, (g + 1) * each)), timeout=timedelta(seconds=timeout)) for g in range(groups)
    ]
    return Ranks(everyone.rank % each, each, made[mine], mine * each, everyone.words), range(mine, chains, groups)
