"""How chains are taken is chosen by measuring: the choice, and the processes that are measured."""

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_run import new_run, small
from test_batched_chains import chain

from sgmcmc_prune.chains import execution, loop
from sgmcmc_prune.chains.loop import interruptible
from sgmcmc_prune.chains.processes import worker_commands
from sgmcmc_prune.errors import Interrupted, RunError
from sgmcmc_prune.machine.distributed import ALONE


class TestChoice:
    """`auto` predicts the time of a whole run; its measurements are replaced here. Four chains, two processes."""

    @pytest.mark.parametrize(
        ("seconds", "step", "steps", "predicted", "mode"),
        [
            ({"loop": 2.0, "batched": 1.0}, 0.75, 100, {"loop": 200, "batched": 100, "processes": 152}, "batched"),
            ({"loop": 2.0, "batched": 3.0}, 0.5, 100, {"loop": 200, "batched": 300, "processes": 102}, "processes"),
            ({"loop": 2.0}, 1.25, 100, {"loop": 200, "processes": 252}, "loop"),  # they slow each other down too much
            ({"loop": 2.0}, 0.5, 15, {"loop": 30}, "loop"),  # at best 15 s; to measure and to start twice takes as long
            ({"loop": 1.0, "batched": 1.0}, 1.0, 1, {"loop": 1, "batched": 1}, "loop"),
        ],
    )
    def test_the_soonest_end_wins(
        self,
        monkeypatch: pytest.MonkeyPatch,
        seconds: dict[str, float],
        step: float,
        steps: int,
        predicted: dict[str, float],
        mode: execution.Mode,
    ) -> None:
        monkeypatch.setattr(execution, "seconds_per_step", lambda make, chains: seconds)
        monkeypatch.setattr(execution, "side_by_side", lambda commands, limit: (1.0, step))
        choice = execution.choose(lambda k: chain("mlp", k), 4, steps, [["a"], ["b"]])
        assert choice == execution.Choice(mode, predicted)

    def test_without_a_second_process_nothing_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(execution, "seconds_per_step", lambda make, chains: {"loop": 1.0})
        assert execution.choose(lambda k: chain("mlp", k), 4, 10**6, [["not a command"]]).mode == "loop"

    def test_processes_that_cannot_be_measured_are_not_chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(execution, "seconds_per_step", lambda make, chains: {"loop": 1.0})
        with pytest.warns(UserWarning, match="processes' could not be measured .* no data here"):
            choice = execution.choose(lambda k: chain("mlp", k), 2, 10**6, [child("sys.exit('no data here')")] * 2)
        assert choice == execution.Choice("loop", {"loop": 10**6})

    def test_chains_in_this_process_are_measured(self) -> None:
        found = execution.seconds_per_step(lambda k: chain("mlp", k, burn_in=10**6), 2)
        assert set(found) == {"loop", "batched"}
        assert min(found.values()) > 0


def child(code: str) -> list[str]:
    """The command line of a process to be measured, with its number of threads and its chain at the end."""
    return [sys.executable, "-S", "-c", f"import os, sys, time; {code}", "1", "0"]


class TestSideBySide:
    """Processes that are measured, with children that take no steps."""

    def test_the_slowest_counts_once_all_are_ready(self) -> None:
        late = child("time.sleep(0.3); print('ready', flush=True); sys.stdin.read(); print(0.25)")
        soon = child("print('ready', flush=True); sys.stdin.read(); print(os.environ['OMP_NUM_THREADS'])")
        start, step = execution.side_by_side([late, soon], limit=30)
        assert start > 0.3
        assert step == 1  # its number of threads

    def test_the_reason_of_a_failure_is_its_last_complaint(self) -> None:
        with pytest.raises(RunError, match=r"^no such data set$"):
            execution.side_by_side([child("sys.exit('warning\\nno such data set')")], limit=30)

    @pytest.mark.parametrize("code", ["time.sleep(60)", "print('ready', flush=True); time.sleep(60)"])
    def test_what_hangs_is_killed_at_the_limit(self, code: str) -> None:
        began = time.monotonic()
        with pytest.raises(RunError, match="too late"):
            execution.side_by_side([child(code), child(code)], limit=0.5)
        assert time.monotonic() - began < 10

    def test_no_child_outlives_sigterm(self, tmp_path: Path) -> None:
        code = f"open(os.path.join({str(tmp_path)!r}, str(os.getpid())), 'w').close(); time.sleep(60)"

        def terminate() -> None:
            while len(list(tmp_path.iterdir())) < 2:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        killer = threading.Thread(target=terminate)
        killer.start()
        with pytest.raises(Interrupted), interruptible():
            execution.side_by_side([child(code), child(code)], limit=30)
        killer.join()
        for started in tmp_path.iterdir():
            with pytest.raises(ProcessLookupError):
                os.kill(int(started.name), 0)

    def test_a_process_warms_up_waits_and_says_its_time(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        steps: list[str] = []
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        monkeypatch.setattr(execution, "SECONDS", 0)
        execution.be_measured(lambda: steps.append(capsys.readouterr().out))
        assert "".join(steps) == "ready\n"
        assert steps[execution.WARM_UP] == "ready\n"
        assert len(steps) == execution.WARM_UP + execution.LEAST
        assert float(capsys.readouterr().out) > 0

    def test_the_workers_of_a_run_can_be_measured(self, tmp_path: Path) -> None:
        out = new_run(small(), tmp_path / "run")
        start, step = execution.side_by_side(worker_commands("measure", out, 1), limit=120)
        assert 0 < step < start
        assert [path.name for path in out.iterdir()] == ["config.json"]


def test_a_signal_while_the_last_step_is_written_is_heard() -> None:
    chain = SimpleNamespace(finished=False, step=1, ranks=ALONE)

    def write(plans: Any, stop: bool) -> None:
        assert not stop
        chain.finished = True
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        loop._advance(chain, lambda: [SimpleNamespace(end_of_cycle=False)], write)  # type: ignore[arg-type, list-item]
