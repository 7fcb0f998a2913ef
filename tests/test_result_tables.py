"""Every table of results: the same columns first, whoever writes it; what a run's rows are in one."""

import argparse
import csv
from pathlib import Path

import pytest
from small_run import small

from experiments import shared
from sgmcmc_prune.compare.score import COLUMNS
from sgmcmc_prune.run.main import run
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.result_table import COMMON, data_label, write_results


def test_the_columns_of_the_project() -> None:
    assert COMMON[:5] == ("method", "seed", "sparsity", "split", "accuracy")
    assert COMMON[5:] == ("nll", "ece", "gradient_evaluations", "seconds", "data")
    assert COLUMNS[: len(COMMON)] == COMMON


def test_a_row_without_a_common_column_or_with_an_unknown_one_is_refused(tmp_path: Path) -> None:
    row = dict.fromkeys(COMMON, 1)
    with pytest.raises(ValueError, match=r"lacks split, data; every table of results has these columns"):
        write_results(tmp_path / "t.csv", [{k: v for k, v in row.items() if k not in ("split", "data")}])
    with pytest.raises(ValueError, match=r"has colour, which are no columns"):
        write_results(tmp_path / "t.csv", [row | {"colour": "red"}])
    assert not list(tmp_path.iterdir())
    write_results(tmp_path / "t.csv", [row, row | {"ece": None}])
    header, full, holed = (tmp_path / "t.csv").read_text().splitlines()
    assert (header, full, holed) == (",".join(COMMON), "1,1,1,1,1,1,1,1,1,1", "1,1,1,1,1,1,,1,1,1")


def test_data_that_are_not_official_are_labelled() -> None:
    assert data_label("cifar10", True) == "cifar10"
    assert data_label("cifar10", False) == "cifar10 (not the official files)"


def test_a_sweep_writes_every_network_of_its_runs_as_a_row(tmp_path: Path) -> None:
    a = argparse.Namespace(runs=tmp_path / "runs", out=tmp_path / "results" / "sweep")
    short = {"schedule.burn_in": 2.0, "schedule.cycles": 1, "prune.in_chain": ("magnitude",), "prune.decisions": ()}
    config = small(**short, **{"prune.post_hoc": ("magnitude",), "chains": 1, "control": "sgd", "seed": 3})
    out = shared.run_dir(a, "em, soft", 3)
    metrics = run(config, out, progress=False)
    shared.write_runs(a, {"em, soft": [metrics]}, "A sweep", "Text.")
    with a.out.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[: len(COMMON)] == COMMON
    assert [(r["method"], r["when"], r["decision"]) for r in rows[:2]] == [
        ("dense", "dense", ""),
        ("magnitude", "post hoc", "50%"),
    ]
    assert [r["method"] for r in rows[-3:]] == ["sgd"] * 3
    assert {(r["seed"], r["split"], r["variant"]) for r in rows} == {("3", "test", "em, soft")}
    assert all(0 < float(r["accuracy"]) < 1 and float(r["nll"]) > 0 and 0 <= float(r["ece"]) < 1 for r in rows)
    assert rows[-1]["gradient_evaluations"] == rows[-4]["gradient_evaluations"]
    whole = read_json(out / "run.json", checksum=True)["seconds"]
    assert 0 < float(rows[-3]["seconds"]) < float(rows[-1]["seconds"]) < whole == float(rows[0]["seconds"])
