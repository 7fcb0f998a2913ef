"""Work in processes of its own: one for each chain of a run, or for each cell of a grid, which reports in lines.

The parent shows one progress bar, passes SIGINT and SIGTERM on, and turns what a worker says into the same exceptions
as a loop. A worker whose parent dies ends at once (its standard input closes): nothing writes behind a resume's back.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import torch

from sgmcmc_prune.chains.loop import catch_signals, skip
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.machine.allocator import keep_freed_memory
from sgmcmc_prune.machine.cores import available_cores
from sgmcmc_prune.machine.progress import bar as progress_bar

#: Exit code of a worker that was told to stop and has saved everything.
INTERRUPTED = 3
#: Between two questions whether another process has finished.
RETRY_SECONDS = 0.5


class Elsewhere(Exception):
    """Another process does this now."""


def num_workers(chains: int) -> int:
    """How many chains run at once: one per core that this process may use."""
    return min(chains, available_cores())


def worker_commands(what: str, directory: Path, chains: int) -> list[list[str]]:
    """The command line of every chain's worker, which shall "run" it or "measure" its steps."""
    threads = max(1, torch.get_num_threads() // num_workers(chains))
    common = [sys.executable, "-m", "sgmcmc_prune.run.worker", what, str(directory), str(threads)]
    return [[*common, str(index)] for index in range(chains)]


def start_worker(command: Sequence[str], gpu: str | None = None) -> "subprocess.Popen[str]":
    """Start a command of `worker_commands`, its standard streams piped, on its number of threads, and on one GPU."""
    only = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    # A session of its own: Ctrl-C reaches the parent alone, which tells the workers.
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **only, "OMP_NUM_THREADS": command[-2]},
    )


def run_in_processes(directory: Path, chains: int, total: int, progress: bool = True) -> None:
    """Take every chain of a run through all its stages, each in a process of its own.

    Parameters
    ----------
    directory : Path
        The run directory; the stores of its stages must exist.
    chains : int
    total : int
        Steps of all chains in all stages, for the bar.

    Raises
    ------
    Interrupted, RunError
        As `run_chains`.
    """
    with progress_bar(total, "step", desc="chains", disable=not progress) as bar:
        run_workers(worker_commands("run", directory, chains), num_workers(chains), bar)


def run_workers(
    commands: Sequence[Sequence[str]],
    jobs: int,
    bar: Any,
    ended: Callable[[int, Future[Any]], object] = lambda index, future: future.result(),
    begin: Callable[[int], bool] = lambda index: True,
    gpus: Sequence[str] = (),
) -> None:
    """Run commands that report as `LineBar` does, some at a time.

    Parameters
    ----------
    commands : sequence of command lines
        The last argument but one is the number of threads.
    jobs : int
        Processes at once.
    bar : tqdm
    ended : callable
        Told, in this thread, which command has ended, and how: its future's result is what the worker gave. By default
        the first that failed stops the others.
    begin : callable
        Asked before a command starts, in another thread. False: it need not run, and gives None. `Elsewhere`: it is
        asked again later, after the commands that wait.
    gpus : sequence of str
        As CUDA_VISIBLE_DEVICES names them: those that run at once see one each, in turn. Without any they see all.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM, which the processes are told, or if one of them was interrupted. Those that finish all
        the same have been told to `ended`.
    RunError
        If a process failed, and `ended` let that pass through; the others are stopped.
    """
    stop, running = threading.Event(), list["subprocess.Popen[str]"]()
    free = queue.SimpleQueue[str | None]()
    for place in range(jobs):
        free.put(gpus[place % len(gpus)] if gpus else None)

    def one(index: int) -> Any:
        gpu = free.get()
        try:
            return _follow(commands[index], bar, stop, running, gpu) if begin(index) else None
        except Elsewhere:
            stop.wait(RETRY_SECONDS)
            raise
        finally:
            free.put(gpu)

    with catch_signals() as received, ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(one, index): index for index in range(len(commands))}
        try:
            while pending:
                done = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED).done
                if received:
                    raise Interrupted(received[0])
                for future in done:
                    index = pending.pop(future)
                    if isinstance(future.exception(), Elsewhere):
                        pending[pool.submit(one, index)] = index
                    else:
                        ended(index, future)
        except BaseException:
            stop.set()  # let running workers save and end; forget those not begun
            for process in running:
                process.terminate()
            begun = [future for future in pending if not future.cancel()]
            for future in wait(begun).done:
                if future.exception() is None:
                    ended(pending[future], future)
            raise


def _follow(
    command: Sequence[str], bar: Any, stop: threading.Event, running: "list[subprocess.Popen[str]]", gpu: str | None
) -> Any:
    """Run one worker and move the bar with it; return what it gave."""
    process, given = start_worker(command, gpu), None
    running.append(process)
    if stop.is_set():  # it began when the others were told
        process.terminate()
    with process:
        assert process.stdout is not None
        complaints: list[str] = []
        reader = threading.Thread(target=lambda: complaints.extend(process.stderr or ()))
        reader.start()
        for line in process.stdout:
            report = json.loads(line)
            if report["message"]:
                bar.write(report["message"])
            bar.set_postfix_str(report["text"])  # shown at once: a cell may take long, and counts when it ends
            skip(bar, report["skipped"])
            bar.update(report["steps"])
            given = report["given"]
        code = process.wait()
        reader.join()
    if given is not None:  # whole, however the process ended
        return given
    if code == INTERRUPTED:
        raise Interrupted
    if code != 0:
        raise RunError(complaints[-1].strip() if complaints else f"its process ended with exit code {code}")
    return given


class LineBar:
    """What a worker has instead of a progress bar: lines of JSON for its parent, at most two a second.

    Parameters
    ----------
    output : text file
        The worker's standard output, on which nobody else may print.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._stage = ""
        self._steps, self._skipped, self._text, self._shown = 0, 0, "", 0.0

    def update(self, steps: int = 1) -> None:
        """Count steps; tell the parent now and then."""
        self._steps += steps
        if time.monotonic() - self._shown > 0.5:
            self.close()

    def skip(self, steps: int) -> None:
        """Count steps that were taken before a resume."""
        self._skipped += steps

    def set_description(self, text: str) -> None:
        """Remember the stage."""
        self._stage = text

    def set_postfix_str(self, text: str) -> None:
        """Remember what the bar should say."""
        self._text = text

    def write(self, message: str) -> None:
        """Have the parent print a line, at once."""
        self.close(message)

    def close(self, message: str = "", given: Any = None) -> None:
        """Tell the parent what it was not told yet; what the last line gives is the worker's result."""
        text = f"{self._stage}: {self._text}" if self._text else self._stage
        report = {"steps": self._steps, "skipped": self._skipped, "text": text}
        print(json.dumps({**report, "message": message, "given": given}), file=self._output, flush=True)
        self._steps, self._skipped, self._shown = 0, 0, time.monotonic()


def work(task: Callable[[], None], threads: int) -> int:
    """Do a worker's task on so many threads; return its exit code, and leave the reason as the last line of stderr."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    sys.path.insert(0, str(Path.cwd()))
    try:
        task()
    except Interrupted:
        return INTERRUPTED
    except (RunError, ValueError, TypeError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


@contextmanager
def reporting() -> Iterator[LineBar]:
    """Give a worker its bar; from here it ends with its parent, and what it prints goes to standard error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    bar = LineBar(sys.stdout)
    with redirect_stdout(sys.stderr):  # a network may print
        yield bar


def _end_with_parent() -> None:
    """The parent holds our standard input open as long as it lives."""
    sys.stdin.read()
    os._exit(1)
