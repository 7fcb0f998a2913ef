"""One chain over many processes: each takes a part of every minibatch, and all take the same step.

`torchrun` starts the processes, or ranks. The gradient of a minibatch of B examples is

    (1/B) sum_i grad_i  =  mean over R ranks of  (R n_r / B) x (mean gradient over the n_r examples of rank r),

and this mean is taken by `DistributedDataParallel` while the backward pass is still running. Noise, minibatches, masks
and hyperparameters are functions of (seed, chain, step) and of that mean, so every rank computes them for itself: no
other tensor is sent. The loss and the wish to stop are numbers on the CPU, over gloo, also when gradients go over NCCL.
"""

import gc
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sgmcmc_prune.errors import RunError

#: Chains of one run need not end on the same day; a rank that dies is noticed at once all the same.
PATIENCE = timedelta(days=30)

T = TypeVar("T")


class LostRank(RunError):
    """Another process of the run is gone, or silent for too long."""


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
    """

    rank: int = 0
    size: int = 1
    group: Any = None

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
        """Let the first rank work while the others wait; if it fails, it alone says why, and the others exit with 1."""
        result, failed = None, self.first
        try:
            if self.first:
                result, failed = work(), False
        finally:
            failed = self.any(failed)
        if failed:
            raise SystemExit(1)
        return result

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
                f"rank {self.rank} of {self.size} hears no more from another rank, which was killed, failed or was "
                f"silent for longer than rank_timeout ({str(error).splitlines()[0]}); `resume` goes on from the last "
                "checkpoint"
            ) from error


ALONE = Ranks()


def checksum(parameters: Mapping[str, Tensor]) -> int:
    """CRC-32 over the bytes of all parameters."""
    crc = 0
    for p in parameters.values():
        crc = zlib.crc32(p.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def is_first_process() -> bool:
    """Whether this is the process of a run that speaks to its user."""
    return int(os.environ.get("RANK", "0")) == 0


def resume_command(out: Path) -> str:
    """What continues a run."""
    if "WORLD_SIZE" in os.environ:
        return f"torchrun (with its options) -m sgmcmc_prune resume {out}"
    return f"sgmcmc-prune resume {out}"


def restarted() -> bool:
    """Whether `torchrun` has started this command anew, after a rank failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


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
    if ours:
        _join()
    try:
        yield Ranks(dist.get_rank(), size, dist.group.WORLD)
    finally:
        if ours:
            gc.collect()  # what belongs to a group must be gone before the group is
            dist.destroy_process_group()


def _join() -> None:
    """Meet the other processes where the launcher says.

    `torchrun` keeps one store of addresses over its restarts: each restart must look for its own, not for the dead.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


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
    return Ranks(everyone.rank % each, each, made[mine]), range(mine, chains, groups)
