"""The benchmarks' arithmetic, and that each of them runs; how fast anything is, is not tested."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sgmcmc_prune import bench
from sgmcmc_prune.bench import csr, latency, loop, smaller, step, train
from sgmcmc_prune.machine import timing


def test_the_interval_of_a_median_covers() -> None:
    """2000 samples of 15 ratios with median 2: coverage is at least .95 by construction, .965 exactly."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        ratios = 2 * np.exp(rng.standard_normal(15))
        r = timing.paired_ratio(list(ratios), [1.0] * 15)
        covered += r.low <= 2 <= r.high
    # The binomial standard error is .004; five of them either way.
    assert covered / 2000 == pytest.approx(0.965, abs=0.02)


def test_an_interval_needs_six_rounds() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        timing.paired_ratio([1.0] * 5, [1.0] * 5)


def test_candidates_take_turns() -> None:
    order: list[str] = []
    candidates = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = timing.interleaved(candidates, rounds=3, warm_up=0, progress=False)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert all(len(times) == 3 for times in seconds.values())


def test_the_order_of_turns_is_drawn_anew_in_every_round() -> None:
    order: list[str] = []
    candidates = {name: lambda name=name: order.append(name) for name in "abc"}
    timing.interleaved(candidates, rounds=50, warm_up=0, progress=False, order=random.Random(0))
    rounds = ["".join(order[i : i + 3]) for i in range(0, 150, 3)]
    assert {"".join(sorted(turns)) for turns in rounds} == {"abc"}
    assert len(set(rounds)) == 6  # one of six orders is missing in fifty rounds with less than .001


def test_the_tensors_are_those_of_resnet18() -> None:
    shapes = step.resnet18_shapes()
    assert len(shapes) == 62
    assert sum(int(np.prod(s)) for s in shapes) == 11_173_962


@pytest.mark.parametrize(
    ("candidate", "needed", "moved"),
    [
        ("sghmc gaussian (reference)", 24, None),
        ("sghmc without noise (compiled)", 24, 28),
        ("adamw (fused)", 28, 28),
        ("sgd (fused)", 20, 20),
    ],
)
def test_what_a_step_needs_and_moves(candidate: str, needed: int, moved: int | None) -> None:
    assert step.bytes_per_parameter(candidate) == (needed, moved)


@pytest.mark.parametrize("what", ["step", pytest.param("predict", marks=pytest.mark.slow)])
def test_each_benchmark_runs_and_prints_a_table(what: str) -> None:
    result, table = bench.run(what, "lenet", rounds=6, device="cpu")
    assert result["machine"]["cpus"] >= 1
    assert len(table.splitlines()) == 2 + len(result["rows"])


def test_the_training_loops_stand_beside_plain_sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(train.NETWORKS, "lenet", ((1, 28, 28), 1))  # one step a measurement
    result = train.bench_train(("lenet",), rounds=6, batch_size=4, progress=False)
    assert [row["method"] for row in result["rows"]] == ["sgd", "chain, gaussian", "chain, rademacher", *train.FAMILIES]
    assert result["rows"][0]["ratio_to_sgd"] == {"median": 1, "low": 1, "high": 1}
    assert len(train.table(result).splitlines()) == 2 + len(result["rows"])


def test_the_latency_of_each_form_stands_beside_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """LeNet without half of its nodes has 3, 8, 60 and 42; in the sparse form single weights are masked."""
    monkeypatch.setattr(latency, "SHARES", (0.5,))
    monkeypatch.setattr(latency, "why_no_onnx", lambda: "onnx, onnxscript, onnxruntime not installed")
    result, table = bench.run("latency", "lenet", 6, "cpu")
    assert len(table.splitlines()) == 2 + 2 * 5 + 1  # a header, the rows, and what was not measured
    assert table.endswith("lenet, 50% of the nodes, cut, ONNX Runtime: onnx, onnxscript, onnxruntime not installed")
    forms = ["dense", "masked", "95% of single weights, CSR", "cut", "cut, torch.export", "cut, ONNX Runtime"]
    assert [(row["batch"], row["form"]) for row in result["rows"]] == [(b, form) for b in (1, 128) for form in forms]
    dense, masked, sparse, cut, exported, absent = result["rows"][6:]
    assert absent["not_measured"] == "onnx, onnxscript, onnxruntime not installed"
    assert dense["parameters"] == masked["parameters"] == 61_706
    assert cut["parameters"] == exported["parameters"] == 26 * 3 + 76 * 8 + 201 * 60 + 61 * 42 + 43 * 10
    assert cut["multiply_adds"] == 784 * 75 + 100 * 600 + 12_000 + 60 * 42 + 42 * 10
    linear = 120 * 84 + 84 * 10
    assert sparse["parameters"] == pytest.approx(61_706 - 0.95 * linear, abs=5 * (linear * 0.95 * 0.05) ** 0.5)
    assert dense["ratio_to_dense"] == {"median": 1, "low": 1, "high": 1}
    assert all(0 < row["milliseconds"] <= row["milliseconds_p95"] for row in result["rows"] if "milliseconds" in row)


def test_a_network_that_cannot_be_cut_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "BATCHES", (2,))
    shared = torch.nn.Linear(4, 4)
    case = latency.Pruned("mine", torch.nn.Sequential(shared, torch.nn.ReLU(), shared), {}, torch.randn(2, 4))
    rows = latency._rows(case, 2, 6, progress=False)
    assert [row["form"] for row in rows] == ["dense", "masked", "95% of single weights, CSR", "cut"]
    assert "'2.weight' and '0.weight' are one parameter" in rows[-1]["not_measured"]


def test_a_sparse_layer_is_the_masked_layer() -> None:
    torch.manual_seed(0)
    layer, kept, x = torch.nn.Linear(30, 20), torch.rand(20, 30) < 0.2, torch.randn(7, 30)
    expected = torch.nn.functional.linear(x, layer.weight * kept, layer.bias)
    torch.testing.assert_close(csr.SparseLinear(layer, kept)(x), expected)
    assert csr.SparseLinear(layer, kept).weight.values().numel() == int(kept.sum())


def test_sparse_layers_pay_at_and_below_a_density() -> None:
    assert csr.pays_at({0.5: 2.0, 0.1: 0.9, 0.05: 0.5}) == 0.1
    assert csr.pays_at({0.5: 0.9, 0.1: 1.1, 0.05: 0.5}) == 0.05
    assert csr.pays_at({0.5: 0.9, 0.05: 1.0}) is None


def test_the_table_of_sparse_layers_has_a_row_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csr, "LAYERS", ((84, 10),))
    monkeypatch.setattr(csr, "PRODUCTS", 1)
    result, table = bench.run("csr", None, 6, "cpu")
    assert [list(row["ratios"]) for row in result["rows"]] == [[f"{d:g}" for d in csr.DENSITIES]] * 2
    assert len(table.splitlines()) == 2 + 2


def test_a_chain_in_a_cut_network_stands_beside_the_masked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smaller, "SHARES", (0.5,))
    monkeypatch.setitem(train.NETWORKS, "lenet", ((1, 28, 28), 1))
    result, table = bench.run("smaller", "lenet", 6, "cpu")
    assert [row["noise"] for row in result["rows"]] == ["gaussian", "rademacher"]
    assert {row["parameters"] for row in result["rows"]} == {26 * 3 + 76 * 8 + 201 * 60 + 61 * 42 + 43 * 10}
    assert len(table.splitlines()) == 2 + 2


def test_latency_is_refused_where_it_means_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on a CPU alone, not on cuda"):
        bench.run("latency", None, 6, "cuda")
    with pytest.raises(ValueError, match="a run is for bench latency"):
        bench.run("step", None, 6, "cpu", tmp_path)
    with pytest.raises(ValueError, match="no network beside it"):
        bench.run("latency", "lenet", 6, "cpu", tmp_path)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match="bench step has no network 'resnet20'; choose lenet or resnet18"):
        bench.run("step", "resnet20", 6, "cpu")


def test_no_round_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="rounds is 0"):
        bench.run("step", None, 0, "cpu")


def test_the_loop_of_a_run_stands_beside_one_written_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step a measurement, so that only the form is tested; the hand-written mask is checked below."""
    monkeypatch.setitem(loop.NETWORKS, "lenet", ((1, 28, 28), "crop_flip", 1))
    result = loop.bench_loop(("lenet",), rounds=6, batch_size=4, progress=False)
    loops = [name for pair in loop.PAIRS.items() for name in reversed(pair)]
    assert [row["method"] for row in result["rows"]] == [*loops, *loop.SELDOM]
    assert [row["method"] for row in result["rows"] if "ratio" in row] == list(loop.PAIRS)
    assert (result["clock"], len(loop.table(result).splitlines())) == ("processor", 2 + len(result["rows"]))


def test_the_hand_written_masks_and_crops() -> None:
    weights = [torch.nn.Parameter(torch.tensor([1.0, -4.0])), torch.nn.Parameter(torch.tensor([[2.0, -3.0]]))]
    assert [m.tolist() for m in loop.magnitude_masks(weights, 0.5)] == [[0, 1], [[0, 1]]]
    assert [m.tolist() for m in loop.magnitude_masks(weights, 0.0)] == [[1, 1], [[1, 1]]]
    torch.manual_seed(0)
    images = torch.arange(1, 65, dtype=torch.float32).view(1, 1, 8, 8).expand(200, 1, 8, 8)
    cut = loop.crop_and_flip(images)
    assert cut.shape == images.shape
    whole = [x.equal(images[0]) or x.equal(images[0].flip(2)) for x in cut]
    assert 0 < sum(whole) < 30  # a shift by nothing has probability 1/81; 30 of 200 happen with less than 1e-20
    assert all(set(x.unique().tolist()) <= {0, *range(1, 65)} for x in cut)


def test_the_figures_of_the_loop_are_those_of_its_files() -> None:
    root = Path(__file__).resolve().parents[1] / "benchmarks"
    text = (root / "README.md").read_text()
    files = [json.loads((root / f"bench_loop_{network}.json").read_text()) for network in ("lenet", "resnet20")]
    both = [{row["method"]: row for row in found["rows"]} for found in files]
    ratios = {"chain, dense": "dense, over one-cycle SGD"}
    ratios |= {"chain, pruned on the way": "pruned on the way, over gradual magnitude"}
    for method, said in ratios.items():
        assert f"| {said} | {' | '.join(str(timing.Ratio(**rows[method]['ratio'])) for rows in both)} |" in text
    named = dict.fromkeys(loop.SELDOM) | {"draw": "a draw", "checkpoint": "a checkpoint"}
    named |= {"BatchNorm statistics": "BatchNorm statistics of a draw under a mask"}
    for name, said in named.items():
        steps = " | ".join(f"{rows[name]['steps_of_sgd']:.1f}" for rows in both)
        assert f"| {said or name} | {steps} |" in text
    statistics, predicted = (both[1][name]["steps_of_sgd"] for name in loop.SELDOM[2:])
    assert f"takes {statistics + 10 * predicted:.0f} steps, {statistics:.1f} of them for BatchNorm" in text
    assert f"{round(93 * (statistics + 10 * predicted), -1):,.0f} steps beside its 14,000" in text


def test_the_latencies_said_are_those_of_their_files() -> None:
    root = Path(__file__).resolve().parents[1] / "benchmarks"
    text = (root / "README.md").read_text()
    rows = json.loads((root / "bench_latency.json").read_text())["rows"]
    ratios = {
        (r["network"], r["form"], r["batch"]): timing.Ratio(**r["ratio_to_dense"])
        for r in rows
        if "ratio_to_dense" in r
    }
    for network in dict.fromkeys(row["network"] for row in rows):
        for form in ("masked", "cut", "cut, torch.export", "95% of single weights, CSR"):
            said = " | ".join(str(ratios[network, form, batch]) for batch in latency.BATCHES)
            assert f"| {network} | {form} | {said} |" in text
    for row in json.loads((root / "bench_csr.json").read_text())["rows"]:
        pays = "-" if row["pays_at"] is None else f"{row['pays_at']:.0%}"
        assert f"| {row['inputs']} to {row['outputs']}, batch {row['batch']} | {pays} |" in text
    cut = json.loads((root / "bench_smaller.json").read_text())["rows"]
    gained = {(r["network"], r["share"], r["noise"]): str(timing.Ratio(**r["speed_up"])) for r in cut}
    for share in smaller.SHARES:
        said = " | ".join(gained[network, share, "gaussian"] for network in ("mlp", "lenet"))
        assert f"| {share:.0%} | {said} |" in text
