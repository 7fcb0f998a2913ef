"""The table of opponents: its numbers are in the results files, and the independent code is independent."""

import argparse
import ast
import importlib
import json
import re
import runpy
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sgmcmc_prune.baselines import grasp, snip, synflow
from sgmcmc_prune.baselines.training import single_weights
from sgmcmc_prune.compare.cell import load_problem
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.methods import METHODS
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.image_data import held_out
from sgmcmc_prune.models import MLP
from sgmcmc_prune.pruning.decision import target_sparsity
from sgmcmc_prune.run.config import DataConfig, ModelConfig

FOLDER = Path(__file__).parents[1] / "benchmarks" / "opponents"
TABLE = FOLDER.with_suffix(".md")


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / file).read_text().splitlines()]


def shown(row: dict[str, Any]) -> tuple[str, str]:
    """Accuracy and NLL, as the tables show them."""
    return f"{row['accuracy']:.4f}", f"{row['nll']:.4f}"


def compared(method: str, target: float, seed: int, network: str = "lenet") -> dict[str, Any]:
    """The single network of a cell of the long comparison."""
    cell = FOLDER.parent / "comparison_long" / network / "cells" / f"{method}-seed{seed}" / "rows.json"
    (row,) = [r for r in json.loads(cell.read_text()) if r["kind"] == "single" and r["sparsity"] == target]
    return dict(row)


def results() -> set[tuple[str, str]]:
    """Every network that was recorded."""
    rows = [row for file in FOLDER.glob("*.jsonl") for row in lines(file.name)]
    return {shown(row) for row in [*rows, compared("gradual-magnitude", 0.95, 0)]}


def test_every_pair_of_the_table_was_recorded() -> None:
    text = TABLE.read_text().split("## Our own chain")[0]
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


def test_the_tables_of_our_lead_are_those_of_the_results() -> None:
    lead, text = runpy.run_path(str(FOLDER.parent / "lead.py")), TABLE.read_text()
    tables = {f"{name} mlp": lead[name]("mlp") for name in ("means", "leads")}
    tables |= {name: lead[name]() for name in ("means", "leads", "parts")}
    for name, table in tables.items():
        shown_here = text.split(f"<!-- {name} -->")[1].split("<!-- end -->")[0]
        assert shown_here.strip().endswith(table), name
    networks = [(network, key) for network in lead["TARGETS"] for key in lead["independent"](network)]
    assert len(networks) == 40
    for network, (method, target, seed) in networks:
        row, ours = lead["independent"](network)[method, target, seed], compared(method, target, seed, network)
        settings = [float(part.split("=")[1]) for part in ours["settings"].split(", ")]
        assert settings == [row["lr"], row["slab_variance" if method == "log-odds-in-chain" else "weight_decay"]]
        assert row["gradient_evaluations"] == ours["gradient_evaluations"] == 400_000
        assert (method, target, seed) in lead["cells"](network)


def test_what_is_said_of_our_lead_is_so() -> None:
    """In independent code every difference has the chain's sign, and none is outside its interval."""
    lead = runpy.run_path(str(FOLDER.parent / "lead.py"))
    for network in ("mlp", "lenet"):
        rows = lead["leads"](network).splitlines()
        (cells, plain, both) = [re.findall(r"(-?\d\.\d+) ± (\d\.\d+)", line) for line in rows]
        assert all(0 < float(mean) <= float(half) for mean, half in plain)
        assert all(float(mean) > float(half) for mean, half in (both[1], both[3], cells[1], cells[3]))
        if network == "mlp":
            for page in (TABLE.parents[1] / "docs" / "results.md", FOLDER.parent / "comparison_long" / "README.md"):
                said = " ".join(page.read_text().split())
                assert "by {} ± {} at 98 % and by {} ± {} at 99 %".format(*plain[1], *plain[3]) in said, page
    pages = (TABLE.parents[1] / "README.md", TABLE.parents[1] / "docs" / "results.md")
    for page in (*pages, FOLDER.parent / "comparison_long" / "README.md"):
        said = " ".join(page.read_text().split())
        assert "by {} ± {} at 95 % and by {} ± {} at 99 %".format(*plain[1], *plain[3]) in said, page
        assert "by {} ± {} at 95 % and by {} ± {} at 99 %".format(*both[1], *both[3]) in said, page


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


def network(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return MLP(input_shape, num_classes, widths=(8,))


def imported(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file of the independent code; other tests have modules of such names, and what was there comes back."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for each in ("plain", "plain_chain", "spam"):
        monkeypatch.setitem(sys.modules, each, None)
        del sys.modules[each]
    return importlib.import_module(name)


def test_the_curvature_of_spam_is_the_sum_of_squared_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    spam = imported("spam", monkeypatch)
    torch.manual_seed(0)
    model, x = sys.modules["plain"].LeNet(), torch.randn(3, 1, 28, 28)
    torch.manual_seed(1)
    found = spam.curvature(model, x)
    torch.manual_seed(1)
    drawn = torch.distributions.Categorical(logits=model(x).detach()).sample()
    for name, w in model.named_parameters():
        losses = [nn.functional.cross_entropy(model(x[i : i + 1]), drawn[i : i + 1]) for i in range(3)]
        exact = sum(torch.autograd.grad(loss, w)[0].double().square() for loss in losses) * spam.TRAIN / 3
        torch.testing.assert_close(found[name], exact, rtol=1e-4, atol=1e-4 * float(exact.max()), msg=name)


def test_the_plain_chain_is_ours_where_nothing_is_random(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From one start, by the same minibatches and without noise: one mask, and one network to rounding.

    Ours begins its passes over the images anew where the mask begins to grow, which theirs by itself does not.
    """
    split = DataConfig(validation=6000, batch_size=100)
    comparison = Comparison(
        sparsities=(0.9,), seeds=(0,), epochs=20, members=4, data=split, model=ModelConfig(name=f"{__name__}:network")
    )
    problem, _ = load_problem(comparison, tmp_path, 0)
    problem = replace(problem, settings={"sampler.temperature": 0.0})
    (candidate,) = METHODS["log-odds-in-chain"].fit(problem, tmp_path)

    plain = imported("plain_chain", monkeypatch)
    lengths = {"STEPS": 200, "BURN_IN": 12, "EXPLORE": 170, "GROWTH": 85, "RELAX": 2, "THIN": 4}
    stream = MinibatchStream(torch.arange(1000), torch.zeros(1000), 100, 0, 0)
    batches = [stream.batch(step)[0] for step in (*range(12), *range(188))]
    sizes = {"minibatches": lambda generator: iter(batches), "BATCH": 100, "TRAIN": 1000}
    for name, value in {**lengths, **sizes, "TEMPERATURE": 0.0}.items():
        monkeypatch.setattr(plain, name, value)
    model, settings = problem.network(), argparse.Namespace(sparsity=0.9, lr=0.1, slab_variance=0.3, without=None)
    spent = plain.fit(model, problem.data.train, settings, torch.Generator())

    assert spent == candidate.cost.gradient_evaluations
    kept = {name: w != 0 for name, w in model.named_parameters() if w.ndim > 1}
    assert all(torch.equal(kept[name], mask) for name, mask in candidate.masks[0].items())
    x = problem.data.validation[0][:500]
    torch.testing.assert_close(model(x).softmax(1).double(), candidate.single(x), atol=1e-5, rtol=0)


def test_the_plain_gradual_pruning_is_ours_by_the_same_minibatches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From one start; of 200 steps both take a mask every second one from the tenth on."""
    split = DataConfig(validation=6000, batch_size=100)
    comparison = Comparison(
        sparsities=(0.9,), seeds=(0,), epochs=20, data=split, model=ModelConfig(name=f"{__name__}:network")
    )
    problem, _ = load_problem(comparison, tmp_path, 0)
    (candidate,) = METHODS["gradual-magnitude"].fit(problem, tmp_path)

    plain = imported("plain", monkeypatch)
    stream = MinibatchStream(torch.arange(1000), torch.zeros(1000), 100, 0, 0)
    sizes = {"minibatches": lambda generator: (stream.batch(step)[0] for step in range(200))}
    for name, value in {**sizes, "BATCH": 100, "TRAIN": 1000, "EPOCHS": 20}.items():
        monkeypatch.setattr(plain, name, value)
    settings = {"method": "gradual-magnitude", "sparsity": 0.9, "lr": 0.1, "lr_min": 0.0, "weight_decay": 5e-4}
    model = problem.network()
    spent = plain.train(model, problem.data.train, argparse.Namespace(**settings, as_drawn=False), torch.Generator())

    assert spent == candidate.cost.gradient_evaluations
    kept = {name: w != 0 for name, w in model.named_parameters() if w.ndim > 1}
    assert all(torch.equal(kept[name], mask) for name, mask in candidate.masks[0].items())
    x = problem.data.validation[0][:500]
    torch.testing.assert_close(model(x).softmax(1).double(), candidate.single(x), atol=1e-5, rtol=0)


def test_theirs_can_train_on_the_images_of_a_cell() -> None:
    plain = runpy.run_path(str(FOLDER / "plain.py"))
    assert torch.equal(plain["used"]("comparison", 1), (~held_out(60_000, 10_000, 1)).nonzero().flatten())
    assert len(plain["used"]("random", 1).unique()) == len(plain["used"]("last", 1)) == 50_000
