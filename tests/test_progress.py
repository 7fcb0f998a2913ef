"""While it runs: scores in the bar and in a file, and quiet lines where nobody watches."""

import csv
import io
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from small_run import small

from sgmcmc_prune import Gaussian, ScheduleConfig, sample
from sgmcmc_prune.chains import monitor, step_size
from sgmcmc_prune.chains.monitor import ess_so_far
from sgmcmc_prune.diagnostics.ess import ess
from sgmcmc_prune.machine import log_bar, progress
from sgmcmc_prune.run.main import run
from sgmcmc_prune.store.weights import WeightStore


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_has_whole_lines_and_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    with progress.bar(1000, "step", desc="chains") as bar:
        bar.set_description("chain 0, dense")
        for _ in range(1000):
            bar.update()
            bar.set_postfix_str("loss 1")
    assert output.getvalue() == "chain 0, dense: 100% (1000/1000 steps) after 00:00, 00:00 left, loss 1\n"
    output = Terminal()
    monkeypatch.setattr("sys.stderr", output)
    with progress.bar(10, "step", desc="chains") as bar:
        bar.update(10)
    assert "\r" in output.getvalue()


def test_a_log_says_soon_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    monkeypatch.setattr(log_bar, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(log_bar, "LOOK_SECONDS", 0.01)
    with progress.bar(1000, "step", desc="chains") as bar:
        time.sleep(0.1)  # as a process does that starts; it says nothing of the speed
        bar.set_postfix_str("begins")
        for _ in range(1000):
            time.sleep(5e-4)
            bar.update()
    first, last = output.getvalue().splitlines()  # the second would be due after a minute
    found = re.match(r"chains: \d+% \((\d+)/1000 steps\) after 00:00, \d\d:\d\d left, begins$", first)
    assert found
    assert 1 < int(found[1]) < 900
    assert last.startswith("chains: 100% ")


def test_scores_are_kept_in_a_file_and_looking_changes_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    short = {"prune.in_chain": (), "prune.post_hoc": ("magnitude",), "prune.decisions": ()}
    config = small(chains=1, execution="loop", **short)
    run(config, tmp_path / "rarely", progress=False)
    monkeypatch.setattr(monitor, "SECONDS", 0.0)
    monkeypatch.setattr(monitor, "RARELY", 0.0)
    run(config, tmp_path / "often", progress=False)
    places = {name: tmp_path / name / "progress" / "chain0.csv" for name in ("rarely", "often")}
    rows = {name: list(csv.DictReader(place.read_text().splitlines())) for name, place in places.items()}
    assert len(rows["often"]) > len(rows["rarely"]) >= 1
    last = rows["often"][-1]
    assert list(last) == [
        *("seconds", "step", "phase", "loss", "kinetic_temperature", "sparsity"),
        *("accuracy", "nll", "ess", "seconds_left"),
    ]
    assert 0 <= float(last["accuracy"]) <= 1
    assert last["phase"] == "sample"
    left = [float(row["seconds_left"]) for row in rows["often"][1:]]
    assert left[-1] == 0 < left[0]
    for draw in range(8):
        first, second = (WeightStore(tmp_path / name / "draws").load(0, draw) for name in ("rarely", "often"))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_validation_examples_what_is_known_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a run of `sample`, which first shows its search for a step."""
    monkeypatch.setattr(step_size, "FIT_STEPS", 50)
    monkeypatch.setattr(monitor, "SECONDS", 0.0)
    monkeypatch.setattr(monitor, "RARELY", 0.0)
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    schedule = ScheduleConfig(burn_in=20, cycles=1, explore=0, sample=60, relax=0, draws=30)
    sample(torch.nn.Linear(2, 1), (x, x[:, 0]), likelihood="gaussian", schedule=schedule, chains=1, out=tmp_path)
    announced = capsys.readouterr().out.splitlines()[0]
    assert announced == ("first a training and trial chains, of 3,050 steps at most, find a step size for the sampler")
    shown = output.getvalue().splitlines()[0]
    assert re.match(r"finding a step size: 100% \((\d+)/\1 steps\) after .*, step \d\.\de[+-]\d\d$", shown)
    rows = list(csv.DictReader((tmp_path / "progress" / "chain0.csv").read_text().splitlines()))
    assert [row["step"] for row in rows[-2:]] == ["79", "80"]
    assert all(float(row["kinetic_temperature"]) > 0 and float(row["loss"]) for row in rows)
    assert "rmse" not in rows[0]
    assert rows[0]["ess"] == ""


def test_the_effective_sample_size_is_the_smallest_at_the_first_probes() -> None:
    outputs = torch.randn(40, 9, 2, generator=torch.Generator().manual_seed(0))
    outputs[:, 8] = outputs[:, 8].cumsum(0)  # the ninth is not looked at
    outputs[:, 3, 1] += torch.arange(40) / 10
    assert ess_so_far(outputs.numpy()) == pytest.approx(float(ess(outputs[None, :, 3, 1])))
    assert not ess_so_far(outputs[:9].numpy()) >= 0


def test_a_file_of_an_earlier_release_keeps_its_columns(tmp_path: Path) -> None:
    place = tmp_path / "chain0.csv"
    place.write_text("seconds,step,phase,loss,sparsity,nll\n1.0,5,burn_in,0.5,0,0.9\n")
    empty = torch.zeros(0, 1)
    looking = monitor.Monitor(Gaussian(), (empty, empty), 1.0, lambda chain: np.zeros((0, 1, 1)), lambda chain: place)
    chain: Any = SimpleNamespace(index=0, step=6, loss=0.25, finished=False, schedule=SimpleNamespace(num_steps=10))
    plan: Any = SimpleNamespace(phase="sample")
    looking.look(chain, plan, {"kinetic_temperature": 1.0, "sparsity": 0.5})
    rows = list(csv.DictReader(place.read_text().splitlines()))
    assert list(rows[1].values())[1:] == ["6", "sample", "0.25", "0.5", ""]
    place.write_text(place.read_text() + "3.0,7,sam")  # a kill cut this line
    chain.step, chain.finished = 8, True
    looking.look(chain, plan, {"kinetic_temperature": 1.0, "sparsity": 0.5})
    assert list(csv.DictReader(place.read_text().splitlines()))[-1]["step"] == "8"


class Recorded:
    """Stands for TensorBoard's writer, which the tests do not install."""

    scalars: ClassVar[dict[str, list[tuple[str, float, int]]]] = {}

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.setdefault(Path(self.folder).name, []).append((name, value, step))

    def flush(self) -> None:
        """Nothing is held back."""


def test_tensorboard_has_the_numbers_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"prune.in_chain": (), "prune.post_hoc": ("magnitude",), "prune.decisions": ()}
    config = small(chains=1, tensorboard=True, **short)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'not installed: pip install "\.\[tensorboard\]"'):
        run(config, tmp_path / "run", progress=False)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Recorded))
    monkeypatch.setattr("sgmcmc_prune.run.checks.importlib.util.find_spec", lambda name: True)
    run(config, tmp_path / "run", progress=False)
    rows = csv.DictReader((tmp_path / "run" / "progress" / "chain0.csv").read_text().splitlines())
    expected = [
        (name, float(text), int(row["step"]))
        for row in rows
        for name, text in row.items()
        if text and name not in ("seconds", "step", "phase")
    ]
    assert len(expected) >= 5
    for (name, value, step), written in zip(Recorded.scalars["chain0"], expected, strict=True):
        assert (name, step) == (written[0], written[2])
        assert value == pytest.approx(written[1], rel=1e-5)


def test_the_last_row_is_of_the_last_step_and_of_all_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the trace has no record of that step: here it has every seventh of 80."""
    monkeypatch.setattr(step_size, "FIT_STEPS", 50)
    monkeypatch.setattr("sgmcmc_prune.run.stages.MOST_RECORDS", 11)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    schedule = ScheduleConfig(burn_in=20, cycles=1, explore=0, sample=60, relax=0, draws=30)
    settings = {"likelihood": "gaussian", "schedule": schedule, "chains": 1, "progress": False}
    found = sample(torch.nn.Linear(2, 1), (x, x[:, 0]), out=tmp_path, **settings)  # type: ignore[arg-type]
    last = list(csv.DictReader((tmp_path / "progress" / "chain0.csv").read_text().splitlines()))[-1]
    assert last["step"] == "80"
    assert float(last["ess"]) > 0
    assert found.inference_data()["training"].sizes["record"] == 11
