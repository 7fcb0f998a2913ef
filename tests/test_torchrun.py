"""Two agents of `torchrun` on loopback, as on two nodes: one status, one line, no restart of what is refused.

Ranks are sorted by host; on one host by the agents' process numbers. The agent that starts first has rank 0, and the
second is the host of the rendezvous, so rank 0 never is.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lives import TIMEOUT
from small_run import assert_same_run, new_run
from test_distributed import dense, wait_for_checkpoint

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent


class Agents:
    """Two agents with one rank each."""

    def __init__(self, folder: Path, *command: str, restarts: int = 0, second: dict[str, str] | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.logs = [folder / f"agent{k}.log" for k in range(2)]
        self.processes = []
        for k, log in enumerate(self.logs):
            options = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", str(restarts), "--rdzv-id", "test"]
            options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
            options += ["--rdzv-conf", f"is_host={k},join_timeout=120"]
            path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
            environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **((second or {}) if k else {})}
            line = [sys.executable, str(TESTS / "agent.py"), *options, *command]
            with log.open("w") as file:
                self.processes.append(subprocess.Popen(line, stdout=file, stderr=file, env=environment))
        assert self.processes[0].pid < self.processes[1].pid

    def __enter__(self) -> "Agents":
        return self

    def __exit__(self, *_: object) -> None:
        ranks = [rank for process in self.processes for rank in children(process.pid)]
        for pid in (*(process.pid for process in self.processes if process.poll() is None), *ranks):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()

    @property
    def alive(self) -> bool:
        """Whether both run."""
        return all(process.poll() is None for process in self.processes)

    def worker(self, agent: int) -> int:
        """The process of an agent's rank."""
        return children(self.processes[agent].pid)[-1]

    def end(self) -> tuple[list[int], list[str]]:
        """Wait for both: exit codes, and what each has printed."""
        codes = [process.wait(timeout=TIMEOUT) for process in self.processes]
        return codes, [log.read_text() for log in self.logs]


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def lines(output: str) -> list[str]:
    """What our command has said."""
    return [line for line in output.splitlines() if line.startswith("sgmcmc-prune: ")]


def traced(output: str) -> bool:
    """Whether a rank has printed a traceback through our files (torchrun prints one of its own)."""
    return "sgmcmc_prune/" in output and "Traceback" in output


def status(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def test_all_stay_until_the_first_rank_has_evaluated(tmp_path: Path) -> None:
    out = new_run(dense(), tmp_path / "run")
    with Agents(tmp_path, "-m", "slow_evaluation", "resume", str(out)) as agents:
        codes, outputs = agents.end()
    assert codes == [0, 0], outputs
    assert status(out)["status"] == "finished"
    assert (out / "metrics.json").is_file()


def test_a_refusal_is_not_tried_again_which_is_said_once(tmp_path: Path) -> None:
    out = new_run(dense(), tmp_path / "run")
    command = ("-m", "sgmcmc_prune", "run", "demo", "--out", str(out))
    with Agents(tmp_path, *command, restarts=3) as agents:
        codes, outputs = agents.end()
    assert 0 not in codes
    said = [lines(output) for output in outputs]
    first, again = said[0]
    assert "exists and is not empty" in first
    assert again == first.replace(
        "prune: ", "prune: not tried again, however often torchrun starts it, because it was refused: ", 1
    )
    assert said[1] == []
    assert not any(map(traced, outputs))


def test_a_bad_folder_on_one_rank_is_one_line_on_each(tmp_path: Path) -> None:
    bad = tmp_path / "nothing"
    out = new_run(dense(**{"data.name": "fashion-mnist"}), tmp_path / "run")
    with Agents(
        tmp_path, "-m", "sgmcmc_prune", "resume", str(out), restarts=2, second={"SGMCMC_PRUNE_DATA": str(bad)}
    ) as agents:
        codes, outputs = agents.end()
    assert 0 not in codes
    first, second = (lines(output) for output in outputs)
    assert len(first) == 2
    assert len(second) == 1
    assert "not tried again" in first[1]
    assert f"rank 1 on {socket.gethostname()} of 2 cannot go on: " in first[0]
    assert str(bad) in first[0]
    assert str(bad) in second[0]
    assert not any(map(traced, outputs))


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_leaves_one_status_with_its_number(tmp_path: Path, killed: int) -> None:
    out = new_run(dense(**{"schedule.burn_in": 300.0}), tmp_path / "run")
    with Agents(tmp_path, "-m", "sgmcmc_prune", "resume", str(out)) as agents:
        wait_for_checkpoint(out, lambda: agents.alive)
        os.kill(agents.worker(killed), signal.SIGKILL)
        codes, outputs = agents.end()
    assert 0 not in codes
    found = status(out)
    assert found["status"] == "failed"
    assert found["error"].endswith(f"rank {killed} on {socket.gethostname()} ended without a word")
    assert [len(lines(output)) for output in outputs] == [1 - (k == killed) for k in range(2)]
    assert not any(map(traced, outputs))


@pytest.mark.parametrize("hung", [0, 1])
def test_a_hung_rank_is_named_and_ends_the_run(tmp_path: Path, hung: int) -> None:
    """Stopped, it neither steps nor ends; the other rank says so after `rank_timeout` seconds."""
    out = new_run(dense(rank_timeout=10.0, **{"schedule.burn_in": 300.0}), tmp_path / "run")
    with Agents(tmp_path, "-m", "sgmcmc_prune", "resume", str(out)) as agents:
        wait_for_checkpoint(out, lambda: agents.alive)
        os.kill(agents.worker(hung), signal.SIGSTOP)
        assert agents.processes[1 - hung].wait(timeout=TIMEOUT) != 0
    said = lines(agents.logs[1 - hung].read_text())
    assert len(said) == 1
    assert said[0].endswith(f"rank {hung} on {socket.gethostname()} ended without a word")
    assert lines(agents.logs[hung].read_text()) == []
    found = status(out)
    assert found["status"] == "failed"
    assert f"sgmcmc-prune: {found['error']}" == said[0]


def test_a_killed_rank_is_started_anew_and_the_run_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, broken = (new_run(dense(), tmp_path / name) for name in ("whole", "broken"))
    with Agents(tmp_path, "-m", "sgmcmc_prune", "resume", str(whole)) as agents:
        assert agents.end()[0] == [0, 0]
    with Agents(tmp_path, "-m", "sgmcmc_prune", "resume", str(broken), restarts=3) as agents:
        wait_for_checkpoint(broken, lambda: agents.alive)
        os.kill(agents.worker(1), signal.SIGKILL)
        codes, outputs = agents.end()
    assert codes == [0, 0], outputs
    assert_same_run(whole, broken)


def test_a_signal_of_the_scheduler_interrupts_all(tmp_path: Path) -> None:
    out = new_run(dense(**{"schedule.burn_in": 300.0}), tmp_path / "run")
    with Agents(tmp_path, "-m", "sgmcmc_prune", "resume", str(out)) as agents:
        wait_for_checkpoint(out, lambda: agents.alive)
        for process in agents.processes:
            process.send_signal(signal.SIGTERM)
        codes, outputs = agents.end()
    assert 0 not in codes
    assert status(out)["status"] == "interrupted"
    assert sum("everything is saved" in output for output in outputs) == 1
