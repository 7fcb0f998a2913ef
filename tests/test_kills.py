"""A run that is killed fifty times, at moments that nobody chose, ends as one that never was."""

import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from lives import TIMEOUT, Life, start_resume
from small_run import assert_same_run, new_run, small

from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.main import resume
from sgmcmc_prune.store.draws import DrawStore
from sgmcmc_prune.store.files import read_json

KILLS, LONGEST_LIFE = 50, 0.8
CHECKPOINTS = ("checkpoints/*.safetensors", "forks/*/checkpoints/*.safetensors")


def long_run(execution: str) -> RunConfig:
    """Long enough to outlive its kills: two chains, burn-in, many cycles, two forks; checkpoints every 0.2 s."""
    return small(
        **{
            "execution": execution,
            "schedule.burn_in": 2500.0,
            "schedule.cycles": 4,
            "schedule.explore": 50.0,
            "schedule.sample": 20.0,
            "prune.in_chain": ("inclusion_probability", "random"),
            "prune.explore": 200.0,
            "prune.sample": 20.0,
        }
    )


def wait_for(patterns: tuple[str, ...], out: Path, life: Life) -> None:
    """Come back when a file has been written since now, or the process has ended."""
    since, deadline = time.time(), time.monotonic() + TIMEOUT
    while life.alive and time.monotonic() < deadline:
        with suppress(FileNotFoundError):  # a checkpoint is being replaced
            if any(path.stat().st_mtime > since for pattern in patterns for path in out.glob(pattern)):
                return
        time.sleep(0.01)


def check_stores(out: Path) -> None:
    """Every store opens, and every draw that is counted is whole."""
    for path in out.rglob("posterior.zarr"):
        store = DrawStore.open(path)
        tree = xr.open_datatree(path, engine="zarr")
        for chain in range(2):
            logits = tree["posterior"]["logits"].values[chain, : store.count("posterior", chain)]
            assert not np.isnan(logits).any(), path


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["loop", "processes"])
def test_fifty_kills_leave_no_trace(tmp_path: Path, execution: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole, killed = (new_run(long_run(execution), tmp_path / name) for name in ("whole", "killed"))
    resume(whole, progress=False)
    started, chance, sent = time.monotonic(), random.Random(0), Counter[str]()
    for _ in range(KILLS):
        life = start_resume(killed)
        wait_for(("run.json",), killed, life)
        if chance.random() < 0.5:
            wait_for(CHECKPOINTS, killed, life)
        time.sleep(chance.uniform(0, LONGEST_LIFE))
        number = chance.choice([signal.SIGKILL, signal.SIGTERM])
        assert life.alive, f"the run ended after {sent.total()} kills: make it longer"
        life.send(number)
        code, output = life.end()
        sent[number.name] += 1
        assert code == (128 + signal.SIGTERM if number == signal.SIGTERM else -signal.SIGKILL), output
        check_stores(killed)
    resume(killed, progress=False)
    assert_same_run(whole, killed)
    assert read_json(killed / "run.json")["damaged_checkpoints"] == []
    with capsys.disabled():
        minutes = (time.monotonic() - started) / 60
        print(f"\n{execution}: {sent.total()} kills {dict(sent)} in {minutes:.1f} minutes; same bits as never killed")
