"""The first minute on a GPU, rehearsed: it runs where there is little but PyTorch, and goes on where it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lives import TIMEOUT

from experiments import device
from sgmcmc_prune.certify.suite import tier_suite
from sgmcmc_prune.certify.tiers import TierCase
from sgmcmc_prune.machine.progress import Silent, bar

ROOT = Path(__file__).resolve().parents[1]
#: What such a machine lacks.
ABSENT = ("zarr", "xarray", "arviz", "arviz_base", "arviz_stats", "tyro", "h5py", "pandas", "tqdm", "matplotlib", "PIL")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which these packages fail to import, for its children, too."""
    folder = tmp_path_factory.mktemp("absent")
    for name in ABSENT:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is not here')\n")
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def command(out: Path, *parts: str) -> list[str]:
    """A rehearsal of some parts."""
    code = f"""
from experiments import device
device.PARTS = {{name: device.PARTS[name] for name in {parts!r}}}
device.main(["--rehearse", "--out", {str(out)!r}])
"""
    return [sys.executable, "-c", code]


def rehearse(out: Path, environment: dict[str, str], *parts: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(out, *parts), env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_the_rehearsal_needs_little_but_torch_and_computes_nothing_twice(bare: dict[str, str], tmp_path: Path) -> None:
    done = rehearse(tmp_path, bare, "predict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(json.loads((tmp_path / "device.json").read_text())) == ["predict"]
    page = (tmp_path / "device.md").read_text()
    assert "share of the throughput of plain passes" in page
    assert "A rehearsal at a tiny size" in page
    computed = (tmp_path / "predict.json").stat().st_mtime_ns
    assert rehearse(tmp_path, bare, "predict").returncode == 0
    assert computed == (tmp_path / "predict.json").stat().st_mtime_ns


@pytest.mark.slow
def test_every_part_is_rehearsed_in_minutes(bare: dict[str, str], tmp_path: Path) -> None:
    done = rehearse(tmp_path, bare, *device.PARTS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "device.json").read_text())
    assert list(found) == list(device.PARTS)
    assert found["tier"]["passed"]
    assert "Triton" in (tmp_path / "device.md").read_text()
    rows = found["cifar10"]["metrics"]["pruned"]
    assert [row["target"] for row in rows if row["when"] == "in_chain"] == [0.9, 0.95]
    control = found["cifar10"]["metrics"]["control"]
    dense = found["cifar10"]["metrics"]["dense"]["gradient_evaluations"]
    assert control[0]["gradient_evaluations"] == dense
    assert "Not finished" not in (tmp_path / "device.md").read_text()


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_to_the_same_table(bare: dict[str, str], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert rehearse(whole, bare, "cifar10").returncode == 0
    process = subprocess.Popen(command(broken, "cifar10"), env=bare, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + TIMEOUT
    while not list(broken.glob("cifar10/draws/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 143
    assert "0 of 1 parts" in output
    assert "Not finished; the same command goes on." in (broken / "device.md").read_text()
    assert rehearse(broken, bare, "cifar10").returncode == 0
    first, second = (json.loads((out / "cifar10.json").read_text())["metrics"] for out in (whole, broken))
    assert first == second


def test_the_minutes_end_with_a_signal_that_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: sent.append(arguments))
    with device.time_limit(1e-3):
        time.sleep(0.5)
    with device.time_limit(1.0):
        pass
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_a_tier_is_certified_by_its_steps_and_by_the_exact_law() -> None:
    cases = tier_suite("compiled", "cpu", 64)
    equal = [case for case in cases if isinstance(case, TierCase)]
    assert {(c.sampler.split(",")[0], c.settings["implementation"]) for c in equal} == {
        (name + words, "compiled") for name in ("SGHMC", "SGLD") for words in ("", " with random signs")
    }
    others: Any = [case for case in cases if not isinstance(case, TierCase)]
    assert {c.sampler for c in others} == {"SGHMC", "SGLD"}
    assert all(c.dtype == torch.float32 and c.options["implementation"] == "compiled" for c in others)


def test_on_a_cpu_there_is_only_a_rehearsal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        device.main(["--device", "cpu"])
    assert stop.value.code == 2
    assert "give --rehearse" in capsys.readouterr().err


def test_a_hidden_bar_writes_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(3, "step", disable=True) as hidden:
        assert isinstance(hidden, Silent)
        hidden.update(2)
        hidden.set_description("chain 0")
        hidden.write("a damaged file")
    assert capsys.readouterr().out == "a damaged file\n"
