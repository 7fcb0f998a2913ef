"""A sweep of the experiments: runs as cells, their metrics by variant, and what is missing or refused, in words."""

import importlib
import shlex
from pathlib import Path
from typing import Any

import pytest
from small_run import small

from experiments import shared
from sgmcmc_prune.settings import to_json


def test_the_help_lists_every_name_once_and_as_a_shell_reads_it() -> None:
    names = ["A mlp flat-map", "layerwise, diagonal", "90%", *(f"long name {i}" for i in range(60))]
    parser = shared.parser("About.", (0,), __file__)
    shared.add_names(parser, "--variants", names)
    usage, _, listed = parser.format_help().partition("--variants, by default all:\n")
    assert "long name" not in usage
    assert [name for line in listed.splitlines() for name in shlex.split(line)] == names, "no line ends in a name"
    assert max(map(len, listed.splitlines())) < 80
    assert parser.parse_args([]).variants == names
    assert parser.parse_args(["--variants", "90%"]).variants == ["90%"]


def test_a_sweep_of_runs_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = importlib.import_module("experiments.shared")
    parser = shared.sweep_parser("Runs.", "tiny", ["em, soft", "no EM"], __file__)
    common = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "tiny"), "--evaluate", "validation"]
    small_one = {"chains": 1, "prune.in_chain": (), "evaluate": "validation"}

    def config_of(variant: str, seed: int) -> dict[str, Any]:
        return {"config": to_json(small(**small_one, seed=seed))}

    def sweep(*options: str) -> Any:
        return shared.sweep(parser.parse_args([*common, *options]), shared.run_or_resume, config_of)

    found = sweep("--seeds", "3", "--variants", "em, soft")
    assert [(variant, [run["seed"] for run in runs]) for variant, runs in found.items()] == [("em, soft", [3])]
    metrics = tmp_path / "runs" / "em-soft-seed3" / "metrics.json"
    written = metrics.stat().st_mtime_ns
    assert sweep("--seeds", "3", "4", "--tables-only") == found
    assert "3 of 4 cells are missing: em, soft, seed 4; no EM, seed 3; no EM, seed 4" in capsys.readouterr().err
    assert sweep("--seeds", "3", "--variants", "em, soft") == found
    assert metrics.stat().st_mtime_ns == written
    with pytest.raises(SystemExit, match="2"):
        sweep("--seeds", "3", "--evaluate", "test", "--variants", "em, soft")
    assert "metrics.json is of a cell with other split (validation)" in capsys.readouterr().err
