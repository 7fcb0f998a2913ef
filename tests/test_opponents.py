"""The table of opponents: its numbers are in the results files, and the independent code is independent."""

import ast
import json
import re
import runpy
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sgmcmc_prune.baselines import grasp, snip, synflow
from sgmcmc_prune.baselines.training import single_weights
from sgmcmc_prune.pruning.decision import target_sparsity

FOLDER = Path(__file__).parents[1] / "benchmarks" / "opponents"
TABLE = FOLDER.with_suffix(".md")


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / file).read_text().splitlines()]


def results() -> set[tuple[str, str]]:
    """Accuracy and NLL of every network that was recorded, as the table shows them."""
    rows = [row for file in FOLDER.glob("*.jsonl") for row in lines(file.name)]
    return {(f"{row['accuracy']:.4f}", f"{row['nll']:.4f}") for row in rows}


def test_every_pair_of_the_table_was_recorded() -> None:
    text = TABLE.read_text().split("The earlier measurements")[0]
    pairs = re.findall(r"(0\.\d{4}), (\d\.\d{4})", text)
    assert len(pairs) >= 20
    assert set(pairs) <= results()


def test_the_differences_are_those_of_their_rows() -> None:
    pair = r"(0\.\d{4}), (\d\.\d{4})"
    rows = re.findall(rf"{pair} \| {pair} \| ([+-]\d\.\d{{4}}), ([+-]\d\.\d{{4}})", TABLE.read_text())
    assert rows
    for *pair, accuracy, nll in rows:
        theirs_accuracy, theirs_nll, ours_accuracy, ours_nll = map(float, pair)
        assert float(accuracy) == pytest.approx(ours_accuracy - theirs_accuracy, abs=1e-9)
        assert float(nll) == pytest.approx(ours_nll - theirs_nll, abs=1e-9)


def test_theirs_and_ours_spent_the_same() -> None:
    spent = {row["gradient_evaluations"] for file in FOLDER.glob("*.jsonl") for row in lines(file.name)}
    assert max(spent) - min(spent) <= 128


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_the_independent_code_imports_nothing_of_the_package(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert not [name for name in imported if name.startswith("sgmcmc_prune")]


def test_the_scatter_of_iterates_is_that_of_the_results() -> None:
    rows = [json.loads(line) for line in (FOLDER.parent / "bmr_iterates.jsonl").read_text().splitlines()]
    text, means = " ".join(TABLE.read_text().split()), {}
    for whose in ("theirs", "ours"):
        for seed in (0, 1):
            seen = [row["accuracy"] for row in rows if (row["whose"], row["seed"]) == (whose, seed)]
            assert len(seen) == 25
            means[whose, seed] = round(statistics.fmean(seen), 4)
            assert f"{whose} have {means[whose, seed]:.4f}" in text or f"{whose} {means[whose, seed]:.4f}" in text
            assert f"{means[whose, seed]:.4f} ({statistics.stdev(seen):.4f})" in text.replace("standard deviation ", "")
            if seed == 0:
                assert f"from {min(seen):.4f} to {max(seen):.4f}" in text
    differences = [abs(means["theirs", seed] - means["ours", seed]) for seed in (0, 1)]
    assert f"agree to {max(differences):.4f}" in text


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_theirs_and_ours_choose_the_same_weights_at_one_start(name: str) -> None:
    """In float64, so that no weight is decided by rounding."""
    plain = runpy.run_path(str(FOLDER / "plain.py"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 4))
    model, x, y = model.double(), torch.randn(50, 30).double(), torch.arange(50) % 4
    ours = {
        "snip": lambda: target_sparsity(snip.connection_sensitivity(model, x, y), single_weights(model), 0.8),
        "grasp": lambda: target_sparsity(grasp.gradient_flow(model, x, y), single_weights(model), 0.8),
        "synflow": lambda: synflow.synflow_mask(model, x, 0.8)[0],
    }[name]()
    given = (model, x) if name == "synflow" else (model, x, y)
    theirs = plain[f"{name}_masks"](*given, 0.8)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[layer], theirs[layer]) for layer in ours)
