"""One chain over two processes: the same chain as in one, a clean end, and one clear line when a process is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import BATCH_SIZE, NUM_DATA, STEPS, advance, make_chain, result, worker
from lives import TIMEOUT, Life, end_all, start_resume
from small_run import assert_same_run, new_run, small

from sgmcmc_prune.data.augmentation import Augmentation
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.machine.distributed import ALONE, Ranks, ranks_per_chain
from sgmcmc_prune.run import main
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.decide import asked_post_hoc
from sgmcmc_prune.run.directory import load_averages
from sgmcmc_prune.run.main import resume
from sgmcmc_prune.store import checkpoint
from sgmcmc_prune.store.places import RunPlaces


def ranks(count: int) -> Iterator[dict[str, str]]:
    """The environment of every rank, as a launcher on this machine would set it, at a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for rank in range(count):
        yield {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two ranks of `distributed_worker` found; they have ended with exit code 0."""
    folder = tmp_path_factory.mktemp("ranks")
    lives = [Life(folder / f"{r['RANK']}.log", worker, (folder,), **r) for r in ranks(2)]
    assert end_all(lives) == [(0, ""), (0, "")]
    return [checkpoint.load(folder / f"rank{rank}.safetensors") for rank in range(2)]


def test_two_ranks_take_the_steps_of_one_process(outcome: list[dict[str, Any]]) -> None:
    chain = make_chain()
    alone: dict[str, Any] = result(chain, advance(chain, STEPS))
    first, second = outcome
    for name, p in alone["parameters"].items():
        assert torch.equal(first["parameters"][name], second["parameters"][name]), name
        torch.testing.assert_close(first["parameters"][name], p, rtol=0, atol=1e-9)
    assert torch.equal(first["losses"], second["losses"])
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=0, atol=1e-9)


def test_nan_on_one_rank_stops_both_at_the_same_step(outcome: list[dict[str, Any]]) -> None:
    first, second = (found["error"] for found in outcome)
    assert first == second
    assert first.startswith("chain 0 diverged at step ")


def test_a_difference_between_ranks_is_seen_by_both(outcome: list[dict[str, Any]]) -> None:
    assert all("no longer have the same parameters at step 200" in found["drift"] for found in outcome)


@pytest.mark.parametrize("name", [None, "crop_flip", "crop_flip_erase", "resized_crop_flip"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_make_up_the_minibatch(name: str | None, size: int) -> None:
    images = torch.randn(23, 3, 8, 8)
    augment = Augmentation(name, 8, torch.zeros(3), seed=1, chain=2) if name else None
    stream = MinibatchStream(images, torch.arange(23), BATCH_SIZE, seed=5, chain=0, transform=augment)
    for step in (0, 3):
        parts = [stream.batch(step, Ranks(rank, size).part(BATCH_SIZE)) for rank in range(size)]
        whole = stream.batch(step)
        torch.testing.assert_close(torch.cat([x for x, _ in parts]), whole[0], rtol=0, atol=1e-6)
        assert torch.equal(torch.cat([y for _, y in parts]), whole[1])
        assert {len(y) for _, y in parts} <= {BATCH_SIZE // size, BATCH_SIZE // size + 1}


@pytest.mark.parametrize(
    ("processes", "chains", "wanted", "each"), [(8, 2, None, 8), (8, 4, 2, 2), (8, 5, 4, 4), (1, 3, 1, 1)]
)
def test_processes_are_divided_among_chains(processes: int, chains: int, wanted: int | None, each: int) -> None:
    assert ranks_per_chain(processes, chains, NUM_DATA, wanted) == each


@pytest.mark.parametrize(
    ("processes", "chains", "batch_size", "wanted", "message"),
    [
        (8, 2, 64, 3, "8 processes cannot be divided among chains of 3 ranks"),
        (8, 2, 64, 0, "8 processes cannot be divided among chains of 0 ranks"),
        (8, 2, 64, 2, "8 processes are 4 groups of 2, for 2 chains: start at most 4"),
        (8, 2, 7, None, "8 ranks cannot share minibatches of 7"),
    ],
)
def test_impossible_divisions_are_refused(
    processes: int, chains: int, batch_size: int, wanted: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ranks_per_chain(processes, chains, batch_size, wanted)


def dense(**changes: object) -> RunConfig:
    """A run without forks, whose minibatches do not divide among two ranks."""
    return small(**{"data.batch_size": 51, "chains": 1, "prune.in_chain": (), "checkpoint_seconds": 0.05, **changes})


def start(out: Path, count: int) -> list[Life]:
    """`sgmcmc-prune resume OUT` in several ranks."""
    return [start_resume(out, **environment) for environment in ranks(count)]


def wait_for_checkpoint(out: Path, alive: Callable[[], bool]) -> None:
    """Come back in the middle of a run."""
    deadline = time.monotonic() + TIMEOUT
    while not list(out.glob("checkpoints/*.safetensors")):
        assert alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_rank_stops_the_other_with_one_clear_line(tmp_path: Path) -> None:
    out = new_run(dense(**{"schedule.burn_in": 300.0}), tmp_path / "run")
    first, second = start(out, 2)
    wait_for_checkpoint(out, lambda: first.alive and second.alive)
    second.send(signal.SIGKILL)
    code, output = first.end()
    complaints = [line for line in output.splitlines() if line.startswith("sgmcmc-prune: ")]
    assert code == 1
    assert len(complaints) == 1
    assert complaints[0].startswith("sgmcmc-prune: rank 0 of 2 hears no more from another rank, which was killed")
    assert "Traceback" not in output
    assert json.loads((out / "run.json").read_text())["status"] == "failed"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that nobody disturbed."""
    out = new_run(dense(), tmp_path_factory.mktemp("run") / "whole")
    assert [code for code, _ in end_all(start(out, 2))] == [0, 0]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ranks_that_were_stopped_resume_to_the_same_bits(whole: Path, tmp_path: Path, number: signal.Signals) -> None:
    broken = new_run(dense(), tmp_path / "broken")
    lives = start(broken, 2)
    wait_for_checkpoint(broken, lambda: all(life.alive for life in lives))
    lives[0].send(number)  # to one of them: both must stop
    codes = [code for code, _ in end_all(lives)]
    assert codes == ([143, 143] if number == signal.SIGTERM else [-signal.SIGKILL, 1])
    assert not (broken / "metrics.json").exists(), "the run ended before it was stopped"
    assert [code for code, _ in end_all(start(broken, 2))] == [0, 0]
    assert_same_run(whole, broken)


@pytest.mark.slow
def test_torchrun_restarts_a_killed_rank_and_the_run_ends_as_if_nothing_had_happened(
    whole: Path, tmp_path: Path
) -> None:
    broken = new_run(dense(), tmp_path / "broken")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "sgmcmc_prune", "resume", str(broken)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_checkpoint(broken, lambda: launcher.poll() is None)
    children = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    output, _ = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 0, output
    assert_same_run(whole, broken)


@pytest.mark.slow
def test_groups_of_ranks_take_chains_of_their_own(tmp_path: Path) -> None:
    config = small(chains=2, **{"ranks_per_chain": 1})
    together = new_run(config, tmp_path / "together")
    assert [code for code, _ in end_all(start(together, 2))] == [0, 0]
    alone = new_run(config, tmp_path / "alone")
    resume(alone, progress=False)
    assert_same_run(alone, together)


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_to_rounding_and_the_run_says_so(whole: Path, tmp_path: Path) -> None:
    changed = new_run(dense(), tmp_path / "changed")
    lives = start(changed, 2)
    wait_for_checkpoint(changed, lambda: all(life.alive for life in lives))
    lives[0].send(signal.SIGTERM)
    assert [code for code, _ in end_all(lives)] == [143, 143]
    resume(changed, progress=False)
    history = json.loads((changed / "run.json").read_text())["processes"]
    assert [entry["ranks_per_chain"] for entry in history] == [2, 1]
    first, second = (load_averages(RunPlaces(out), 0)["moments"] for out in (whole, changed))
    for name in first:
        torch.testing.assert_close(first[name]["mean"], second[name]["mean"], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("device", "at_once"), [("cpu", 4), ("cuda", 1)])
def test_memory_is_asked_for_by_all_ranks_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, device: str, at_once: int
) -> None:
    """Eight ranks, four of them here; each GPU has a memory of its own, and masks are made on CPUs."""
    asked: dict[str, tuple[int, ...]] = {}
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(main, "require_memory", lambda chain, *given: asked.update(chains=given))
    monkeypatch.setattr(main, "require_evaluation_memory", lambda chain, *given: asked.update(masks=given))
    config = dense(device=device)
    rows = len(asked_post_hoc(config))
    main._check_memory(config, None, Ranks(0, 8))  # type: ignore[arg-type]
    assert asked == {"chains": (at_once,), "masks": (1, rows, 8, 4)}
    main._check_memory(config, None, ALONE)  # type: ignore[arg-type]
    assert asked == {"chains": (1,), "masks": (1, rows, 1, 1)}
