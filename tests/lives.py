"""Processes that begin in a moment and may be killed: forked from one that has imported all there is to import."""

import os
import signal
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["sgmcmc_prune.cli", "sgmcmc_prune.run.main", "sgmcmc_prune.store.durable", "xarray", "tyro", "torch._dynamo"]
)
TIMEOUT = 300.0


class Life:
    """A function that runs in a process of its own, with its output in a file and one thread.

    Parameters
    ----------
    log : Path
        For standard output and standard error.
    function : callable
        Of a module that can be imported.
    arguments : tuple
    environment : mapping of str to str
        Changes of the environment.
    """

    def __init__(
        self, log: Path, function: Callable[..., None], arguments: tuple[Any, ...], **environment: str
    ) -> None:
        self.log = log
        self.process = _CONTEXT.Process(target=_live, args=(log, function, arguments, environment), daemon=True)
        self.process.start()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int | None, str]:
        """Wait for the end: exit code (minus the signal that killed it) and output. Nothing outlives this."""
        self.process.join(TIMEOUT)
        self.process.kill()
        return self.process.exitcode, self.log.read_text()


def end_all(lives: Iterable[Life]) -> list[tuple[int | None, str]]:
    """`Life.end` of each."""
    return [life.end() for life in lives]


def _live(log: Path, function: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    torch.set_num_threads(1)
    function(*arguments)


def resume_command(out: Path) -> None:
    """`sgmcmc-prune resume OUT`."""
    from sgmcmc_prune.cli import main

    main(["resume", str(out)])


def start_resume(out: Path, **environment: str) -> Life:
    """Begin a life of `resume_command`."""
    return Life(out.parent / f"{out.name}-{environment.get('RANK', 0)}.log", resume_command, (out,), **environment)
