"""While it runs: scores in the bar and in a file, and quiet lines where nobody watches."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small

from sgmcmc_prune.chains import monitor
from sgmcmc_prune.machine import progress
from sgmcmc_prune.run.main import run
from sgmcmc_prune.store.weights import WeightStore


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_has_whole_lines_and_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    with progress.bar(1000, "step", desc="chains") as bar:
        for _ in range(1000):
            bar.update()
            bar.set_postfix_str("loss 1")
    assert output.getvalue() == "chains: 100% (1000/1000 steps) after 00:00, 00:00 left, loss 1\n"
    output = Terminal()
    monkeypatch.setattr("sys.stderr", output)
    with progress.bar(10, "step", desc="chains") as bar:
        bar.update(10)
    assert "\r" in output.getvalue()


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
    assert 0 <= float(last["accuracy"]) <= 1
    assert last["phase"] == "sample"
    for draw in range(8):
        first, second = (WeightStore(tmp_path / name / "draws").load(0, draw) for name in ("rarely", "often"))
        assert all(torch.equal(first[name], second[name]) for name in first)
