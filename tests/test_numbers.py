"""Numbers in the README and in docs/results.md come from files of results."""

import itertools
import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.ours import public_checkpoint
from experiments.saha import nodes
from sgmcmc_prune.compare.table import paired, read_csv
from sgmcmc_prune.diagnostics.inference_data import RHAT_THRESHOLD
from sgmcmc_prune.predictive.intervals import mean_and_half_width

ROOT = Path(__file__).resolve().parents[1]
README, SAID = ((ROOT / file).read_text() for file in ("README.md", "docs/results.md"))
#: Seeds of the long comparison.
SEEDS = 5
TWO_CHAINS, RESULTS = "slab variance per layer, 2 chains", ROOT / "experiments" / "ours" / "results"


def mean(variant: str, key: str, criterion: str = "", decision: Any = None) -> float:
    """Mean over seeds of a score of the dense network, or of one pruned row."""
    runs = json.loads((RESULTS / "fashion_mnist_lenet.json").read_text())[variant]
    rows = [run["dense"] for run in runs]
    if criterion:
        rows = [
            next(
                row
                for row in run["pruned"]
                if row["criterion"] == criterion
                and decision in (row["target"], row["decision"])
                and (row["when"] == "in_chain") == (decision != "median")
            )
            for run in runs
        ]
    return float(sum(row[key] for row in rows) / len(rows))


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("dense posterior predictive | 0 %", (TWO_CHAINS,)),
        ("median probability model | 92 %", (TWO_CHAINS, "inclusion_probability", "median")),
        ("in the chain, expected log-odds | 95 %", (TWO_CHAINS, "expected_log_odds", 0.95)),
        ("in the chain, expected log-odds | 98 %", (TWO_CHAINS, "expected_log_odds", 0.98)),
        ("root mean square of the weights | 98 %", (TWO_CHAINS, "root_mean_square", 0.98)),
        ("in the chain, inclusion probability | 98 %", (TWO_CHAINS, "inclusion_probability", 0.98)),
        ("plain SGD, one network | 0 %", ("sgd",)),
        ("gradual magnitude pruning | 95 %", ("sgd", "root_mean_square", 0.95)),
        ("gradual magnitude pruning | 98 %", ("sgd", "root_mean_square", 0.98)),
    ],
)
def test_a_row_of_the_table_is_that_of_its_results(line: str, source: tuple[Any, ...]) -> None:
    (row,) = [text for text in SAID.splitlines() if line in text]
    accuracy, nll = re.findall(r"0\.\d+", row)
    variant, *rest = source
    assert accuracy == f"{mean(variant, 'accuracy', *rest):.4f}"
    assert nll == f"{mean(variant, 'nll', *rest):.3f}"


def test_what_one_network_of_the_chains_has_is_its_result() -> None:
    one, sgd = (
        mean(TWO_CHAINS, "single_accuracy", "expected_log_odds", 0.95),
        mean("sgd", "accuracy", "root_mean_square", 0.95),
    )
    assert f"at 95 % it has {one:.4f} where SGD has {sgd:.4f}." in " ".join(SAID.split())
    assert (mean(TWO_CHAINS, "members"), mean(TWO_CHAINS, "members", "expected_log_odds", 0.95)) == (24, 8)


def test_the_cifar_table_is_that_of_its_results() -> None:
    runs = json.loads((RESULTS / "cifar10_resnet20.json").read_text())

    def row(run: dict[str, Any], target: float | None) -> dict[str, Any]:
        pruned = [r for r in run["pruned"] if r["when"] == "in_chain" and r["target"] == target]
        return dict(pruned[0] if pruned else run["dense"])

    def means(variant: str, target: float | None, keys: tuple[str, ...]) -> list[float]:
        return [float(np.mean([row(run, target)[key] for run in runs[variant]])) for key in keys]

    for line, variant in (
        ("six draws averaged |", "gaussian"),
        ("| the same under a spike and slab, by log-odds |", "spike and slab"),
        ("| SGD, gradual magnitude pruning |", "sgd"),
    ):
        (text,) = [each for each in SAID.splitlines() if line in each]
        found = [means(variant, target, ("accuracy", "nll", "ece")) for target in (None, 0.9, 0.95)]
        assert re.findall(r"0\.\d+ / 0\.\d+ / 0\.\d+", text) == [f"{a:.4f} / {n:.3f} / {e:.3f}" for a, n, e in found]
    for target in (None, 0.9, 0.95):  # at one budget
        assert len({row(run, target)["gradient_evaluations"] for each in runs.values() for run in each}) == 1
    text = " ".join(SAID.split())
    behind = [
        row(g, 0.95)["accuracy"] - row(s, 0.95)["accuracy"] for g, s in zip(runs["gaussian"], runs["sgd"], strict=True)
    ]
    mean, half = mean_and_half_width(behind)
    assert f"behind by {-mean:.4f} ± {half:.4f}" in text
    gaps = [
        100 * (means("sgd", target, ("accuracy",))[0] - means("gaussian", target, ("single_accuracy",))[0])
        for target in (None, 0.9, 0.95)
    ]
    assert f"{min(gaps):.1f} to {max(gaps):.1f} points behind SGD" in text
    for target, where in ((None, "dense"), (0.95, "at 95 %")):
        pairs = zip(runs["spike and slab"], runs["sgd"], strict=True)
        mean, half = mean_and_half_width([row(s, target)["accuracy"] - row(g, target)["accuracy"] for s, g in pairs])
        assert f"{-mean:.4f} ± {half:.4f} {where}" in text
    for target in (0.9, 0.95):
        once = [
            np.mean(
                [
                    r["accuracy"]
                    for run in runs[v]
                    for r in run["pruned"]
                    if (r["when"], r["target"]) == ("post_hoc", target)
                ]
            )
            for v in ("spike and slab", "gaussian")
        ]
        assert f"at {target:.0%} with".replace("%", " %") + f" {once[0]:.4f} against {once[1]:.4f}" in text
    plain, ours = json.loads((RESULTS / "cifar10_plain.jsonl").read_text()), runs["gaussian"][0]["dense"]
    quoted = ["{accuracy:.4f} / {nll:.3f} / {ece:.3f}".format(**each) for each in (plain, ours)]
    assert f"has {quoted[0]} for the first seed" in text
    assert f"the library has {quoted[1]}." in text


def test_the_certificate_has_as_many_rows_as_the_readme_says() -> None:
    certificate = json.loads((ROOT / "benchmarks" / "certify.json").read_text())
    assert certificate["passed"]
    assert f"All {len(certificate['rows'])} rows" in SAID
    assert f"false-alarm rate of {certificate['false_alarm']}" in " ".join(SAID.split())


def test_the_correction_quotes_the_long_comparison() -> None:
    rows, text, targets = long_rows(), " ".join(SAID.split()), (0.8, 0.9, 0.95, 0.98, 0.99)

    def ahead(other: str, target: float, score: str) -> tuple[float, float]:
        differences = np.array(paired(rows, other, "log-odds-in-chain", target, score))
        mean, half = mean_and_half_width(-differences if score == "accuracy" else differences)
        return float(mean), float(half)

    nll = {target: ahead("gradual-magnitude", target, "nll") for target in targets}
    assert all(mean > half for mean, half in nll.values())
    least, most = ("{:.4f} ± {:.4f}".format(*nll[target]) for target in (0.8, 0.99))
    assert f"by {least} at 80 % to {most} at 99 %" in text
    outside = {t for t in targets if _above(ahead("gradual-magnitude", t, "accuracy"))}
    assert outside == {0.9, 0.99}
    for target in outside:
        ours, theirs = (
            np.mean([r["accuracy"] for r in rows if (r["method"], r["sparsity"]) == (method, target)])
            for method in ("log-odds-in-chain", "gradual-magnitude")
        )
        assert f"at {100 * target:.0f} % ({ours:.4f} against {theirs:.4f})" in text
    others = {row["method"] for row in rows} - {"log-odds-in-chain", "gradual-magnitude"}
    for score in ("accuracy", "nll"):
        ties = {(other, t) for other in others for t in targets if not _above(ahead(other, t, score))}
        assert ties == ({("snip", 0.8)} if score == "accuracy" else {("rigl", 0.8)}), score


def test_the_bias_of_em_is_that_of_its_table() -> None:
    table = (RESULTS / "exact_inclusion.md").read_text()
    worst = max(float(row.split("|")[6]) for row in table.splitlines() if "| em |" in row)
    assert f"off by up to {worst:.2f}" in SAID


def long_rows(network: str = "lenet") -> list[dict[str, Any]]:
    """The single networks of the long comparison, at its targets."""
    cells = ROOT / "benchmarks" / "comparison_long" / network / "cells"
    rows = [row for file in sorted(cells.glob("*/rows.json")) for row in json.loads(file.read_text())]
    return [row for row in rows if row["kind"] == "single" and not row["own_stopping_rule"]]


@pytest.mark.parametrize("network", ["lenet", "mlp"])
def test_the_table_of_the_long_comparison_is_that_of_its_cells(network: str) -> None:
    sections = (ROOT / "benchmarks" / "comparison_long" / "README.md").read_text().split("## The MLP")
    text, rows = sections[network == "mlp"], long_rows(network)
    lines = re.findall(r"^\| ([a-z-]+) \| (0\.\d+ / .*) \|$", text, re.MULTILINE)
    assert {method for method, _ in lines} == {row["method"] for row in rows}
    assert len(lines) == 8
    for method, cells in lines:
        own = [row for row in rows if row["method"] == method]
        assert len({row["seed"] for row in own}) == SEEDS
        by_target = [[row for row in own if row["sparsity"] == target] for target in (0.8, 0.9, 0.95, 0.98, 0.99)]
        expected = [[np.mean([row[key] for row in each]) for key in ("accuracy", "nll")] for each in by_target]
        assert cells.split(" | ") == [f"{accuracy:.4f} / {nll:.4f}" for accuracy, nll in expected], method
        assert all(row["gradient_evaluations"] == pytest.approx(400_000, rel=0.005) for row in own)


@pytest.mark.parametrize("network", ["lenet", "mlp"])
def test_what_is_said_of_the_long_comparison_is_that_of_its_cells(network: str) -> None:
    """The differences of gradual magnitude to our chain, paired by seed, with their intervals."""
    text, rows = (ROOT / "benchmarks" / "comparison_long" / "README.md").read_text(), long_rows(network)
    for score, sign in (("accuracy", -1), ("nll", 1)):
        said = []
        for target in (0.8, 0.9, 0.95, 0.98, 0.99):
            differences = sign * np.array(paired(rows, "gradual-magnitude", "log-odds-in-chain", target, score))
            mean, half = mean_and_half_width(differences)
            said.append(f"{mean:.4f} ± {half:.4f}")
        assert f"| {score if score == 'accuracy' else 'NLL'} | {' | '.join(said)} |" in text


def test_the_model_reduction_of_lenet_is_that_of_its_table() -> None:
    table = (ROOT / "experiments" / "markovic" / "results" / "markovic_fashion_mnist.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("B ")]
    accuracy, ece, nll, _, _, pruned = re.findall(r"(0\.\d+) ± (0\.\d+)", line)
    said = (ROOT / "benchmarks" / "README.md").read_text()
    assert "| {} ± {} |".format(*accuracy) in said
    assert "| {} ± {}, {} ± {} |".format(*nll, *ece) in said
    assert f"| {float(pruned[0]):.3f} ± {float(pruned[1]):.3f} |" in said


def test_the_public_checkpoint_is_that_of_its_table() -> None:
    rows = read_csv(public_checkpoint.RESULTS / "public_checkpoint.csv")
    assert public_checkpoint.table(rows) in (RESULTS / "public_checkpoint.md").read_text()
    theirs = json.loads((RESULTS / "public_checkpoint_chita.json").read_text())["rows"]
    accuracy = {("chita", row["sparsity"]): row["estimated_again"][0] for row in theirs}
    accuracy |= {(row["method"], row["sparsity"]): row["accuracy"] for row in rows if row["kind"] == "single"}
    text = " ".join((ROOT / "docs" / "conditional.md").read_text().split())
    for method, said in (
        ("sgd-magnitude-one-shot", "magnitude"),
        ("chita", "CHITA's released code in one stage"),
        ("sgd-conditional-kfac-staged", "`sgd-conditional-kfac-staged`"),
    ):
        assert f"{said} {' / '.join(f'{accuracy[method, s]:.4f}' for s in (0.7, 0.8, 0.9))}" in text
    staged = json.loads((RESULTS / "public_checkpoint_chita.json").read_text())["in 16 stages"]
    assert f"has {staged[0]['estimated_again'][0]:.4f} at 90 %" in text
    ours = max(row["calibration_examples"] for row in rows)
    assert (round(ours / 8000), round(16 * 8000 / ours)) == (3, 5)


def test_on_the_mlp_two_differences_are_outside_their_intervals() -> None:
    """The chain and gradual magnitude tie elsewhere, as the page says."""
    rows, outside = long_rows("mlp"), set()
    for score, target in itertools.product(("accuracy", "nll"), (0.8, 0.9, 0.95, 0.98, 0.99)):
        sign = 1 if score == "nll" else -1
        mean, half = mean_and_half_width(
            sign * np.array(paired(rows, "gradual-magnitude", "log-odds-in-chain", target, score))
        )
        if abs(mean) > half:
            outside.add((score, target, mean > 0))
    assert outside == {("nll", 0.98, True), ("nll", 0.99, True)}


def test_the_uci_table_and_what_is_said_of_it_are_those_of_the_results() -> None:
    runs = json.loads((RESULTS / "uci.json").read_text())["runs"]
    methods = ("posterior", "mean field", "ensemble", "single")

    def scores(name: str, method: str, key: str) -> list[float]:
        found = sorted((r for r in runs if r["set"] == name and r["method"] == method), key=lambda r: int(r["split"]))
        return [r[key] for r in found]

    outside = set()
    for name in ("bostonHousing", "concrete", "wine-quality-red", "yacht"):
        (row,) = [line for line in SAID.splitlines() if line.startswith(f"| {name} |")]
        means = [[sum(scores(name, m, key)) / 3 for key in ("rmse", "nll")] for m in methods]
        assert row == f"| {name} | " + " | ".join(f"{rmse:.3f} / {nll:.3f}" for rmse, nll in means) + " |"
        for key, other in itertools.product(("rmse", "nll"), ("mean field", "ensemble")):
            ours, theirs = (scores(name, method, key) for method in ("posterior", other))
            mean, half = mean_and_half_width(np.array(ours) - np.array(theirs))
            if abs(mean) > half:
                outside.add((other, name, key))
                assert mean < 0
    ahead = {("ensemble", "concrete", "nll"), ("ensemble", "wine-quality-red", "rmse")}
    assert outside == {*ahead, ("mean field", "yacht", "nll")}
    rhats = {
        name: scores(name, "posterior", "rhat") for name in ("bostonHousing", "concrete", "wine-quality-red", "yacht")
    }
    assert {round(rhat, 1) for rhat in rhats["wine-quality-red"]} == {1.1}
    middle = [*rhats["bostonHousing"], *rhats["concrete"]]
    said = f"is 1.1 on each split of wine, {min(middle):.1f} to {max(middle):.1f} on Boston and concrete, and "
    assert said + f"{min(rhats['yacht']):.1f} to {max(rhats['yacht']):.1f} on yacht" in " ".join(SAID.split())
    assert {r["passes"] for r in runs} == {24_000}


def test_plain_torch_has_the_same_order_on_every_split_that_it_was_run_on() -> None:
    lines = (RESULTS / "uci_plain.jsonl").read_text().splitlines()
    found = {(r["set"], r["split"], r["method"]): r for r in map(json.loads, lines)}
    assert {name for name, _, _ in found} == {"concrete", "wine-quality-red"}
    for name, split, method in found:
        if method == "posterior":
            for key in ("rmse", "nll"):
                assert found[name, split, "posterior"][key] < found[name, split, "ensemble"][key]


def test_the_one_shot_table_is_that_of_its_results() -> None:
    rows = read_csv(RESULTS / "one_shot_lenet.csv")
    text = (ROOT / "docs" / "conditional.md").read_text()
    lines = re.findall(r"^\| ([a-z-]+) \| (\d) \| (0\..*) \| (0\.\d\d) \|$", text, re.MULTILINE)
    assert len(lines) >= 8
    for method, seeds, cells, control in lines:
        own = [row for row in rows if row["kind"] == "single" and row["method"] == method]
        assert len({row["seed"] for row in own}) == int(seeds)
        assert {row["split"] for row in own} == {"test"}
        by_target = [[row for row in own if row["sparsity"] == target] for target in (0.8, 0.9, 0.95, 0.98)]
        means = [[np.mean([row[key] for row in each]) for key in ("accuracy", "nll")] for each in by_target]
        assert cells == " | ".join(f"{accuracy:.4f} / {nll:.3f}" for accuracy, nll in means), method
        assert control == f"{np.mean([row['shuffled_accuracy'] for row in by_target[2]]):.2f}", method


def test_the_loss_budget_is_kept_as_it_is_said() -> None:
    results = json.loads((RESULTS / "loss_budget.json").read_text())
    text = " ".join((ROOT / "docs" / "conditional.md").read_text().split())
    assert f"in at most {max(result['beyond'] for result in results):.3f} of the cases" in text
    assert all(result["sets"] == 400 for result in results)


def test_what_is_said_of_one_shot_is_that_of_its_rows() -> None:
    rows = [row for row in read_csv(RESULTS / "one_shot_lenet.csv") if row["kind"] == "single"]

    def interval(other: str, target: float, score: str) -> tuple[float, float]:
        found = mean_and_half_width(paired(rows, "sgd-conditional-ggn-staged", other, target, score))
        return float(found[0]), float(found[1])

    targets = (0.8, 0.9, 0.95, 0.98)
    staged = "sgd-conditional-fisher-staged", "sgd-conditional-kfac-staged"
    others = ("sgd-magnitude-one-shot", "obc", *staged)
    ahead = {(other, t) for other in others for t in targets if _above(interval(other, t, "accuracy"))}
    everywhere = {(other, t) for other in others if other != "obc" for t in targets}
    assert ahead == everywhere | {("obc", 0.95), ("obc", 0.98)}
    better = {(other, t) for other in others for t in targets if sum(interval(other, t, "nll")) < 0}
    assert better == {(other, t) for other in ("sgd-magnitude-one-shot", staged[0]) for t in targets}
    worse = {(other, t) for other in others for t in targets if _above(interval(other, t, "nll"))}
    assert worse == {("obc", t) for t in targets[:3]} | {(staged[1], t) for t in targets[1:]}
    means = {
        method: np.mean([row["accuracy"] for row in rows if row["method"] == method and row["sparsity"] == 0.95])
        for method in (
            "sgd-magnitude-one-shot",
            "sgd-magnitude-moved",
            "sgd-conditional-ggn",
            "sgd-conditional-ggn-staged",
        )
    }
    text = " ".join((ROOT / "docs" / "conditional.md").read_text().split())
    has = "magnitude has {:.2f}; its mask with moves, {:.2f}; joint evidence with moves in one stage, {:.2f}; and in "
    assert (has + "twelve stages, {:.2f}.").format(*means.values()) in text


def test_what_is_said_of_one_shot_draws_is_that_of_their_rows() -> None:
    rows = read_csv(RESULTS / "one_shot_lenet.csv")
    single = [row for row in rows if row["kind"] == "single"]
    text = " ".join((ROOT / "docs" / "conditional.md").read_text().split())
    ours = "draws-conditional-kfac-staged"

    def ahead(other: str, target: float) -> bool:
        accuracy, nll = (
            mean_and_half_width(paired(single, ours, other, target, score)) for score in ("accuracy", "nll")
        )
        return bool(accuracy[0] > accuracy[1] and nll[0] < -nll[1])

    others = {row["method"] for row in single if not row["method"].startswith("draws")} - {"sgd-conditional-fisher"}
    assert all(ahead(other, target) for other in others for target in (0.95, 0.98))
    assert len(paired(single, ours, "sgd-conditional-fisher", 0.95, "accuracy")) == 1  # as the text says
    behind = mean_and_half_width(paired(single, ours, "sgd-conditional-ggn-staged", 0.8, "accuracy"))
    assert f"{-behind[0]:.4f} ± {behind[1]:.4f} behind `sgd-conditional-ggn-staged`" in text
    spent = {row["gradient_evaluations"] - row["calibration_examples"] for row in rows}
    assert [f"{each:,}" for each in spent] == ["659,968"]
    assert "the same 659,968 gradient evaluations" in text
    names = ("draws-magnitude-one-shot", "draws-magnitude-moved", ours)
    found = [np.mean([r["accuracy"] for r in single if r["method"] == n and r["sparsity"] == 0.98]) for n in names]
    assert "magnitude has {:.2f}, its mask with moves {:.2f}, joint evidence {:.2f}".format(*found) in text
    by_kind = {
        kind: [r["accuracy"] for r in rows if r["kind"] == kind and "draws" in r["method"]]
        for kind in ("single", "ensemble")
    }
    means = [np.array(each).reshape(-1, 3, 4).mean(1) for each in by_kind.values()]
    assert 0.003 < np.abs(means[0] - means[1]).max() < 0.004


def _above(interval: tuple[float, float]) -> bool:
    mean_difference, half = interval
    return mean_difference > half


def test_the_moved_draws_are_those_of_their_record() -> None:
    rows = json.loads((RESULTS / "conditional_draws.json").read_text())["rows"]
    text = (ROOT / "docs" / "conditional.md").read_text()
    for criterion in ("magnitude", "conditional"):
        found = [row for row in rows if row.get("criterion") == criterion and row["target"]]
        cells = " | ".join(f"{row['accuracy']:.3f} / {row['nll']:.3f}" for row in found)
        assert f"| {criterion} | {cells} |" in text


def test_the_pages_of_the_long_comparison_are_those_of_its_cells() -> None:
    tables = runpy.run_path(str(ROOT / "benchmarks" / "long_tables.py"))
    for name in tables["NETWORKS"]:
        assert (tables["FOLDER"] / f"{name}.md").read_text() == tables["page"](name)


def test_what_the_corrections_cost_is_that_of_its_record() -> None:
    rows = json.loads((ROOT / "benchmarks" / "bench_before_after.json").read_text())["rows"]
    said = " ".join((ROOT / "benchmarks" / "README.md").read_text().split())

    def between(bench: str, *words: str) -> str:
        own = [row for row in rows if row["bench"] == bench and any(word in row["candidate"] for word in words)]
        ratios = sorted(np.median(row["after"]) / np.median(row["before"]) for row in own)
        return f"{ratios[0]:.3f} to {ratios[-1]:.3f}"

    assert f"of a chain takes {between('train', 'chain')} of what it took" in said
    assert f"a compiled step {between('step', 'compiled')}, the loops of the variational families" in said
    families = between("train", "mean_field", "ss_", "svbnn", "continuous_spike")
    assert f"the loops of the variational families {families}. A step" in said
    assert f"without a C compiler, takes {between('step', 'reference')}." in said


def test_the_heat_of_minibatches_is_that_of_its_record() -> None:
    rows = json.loads((ROOT / "benchmarks" / "minibatch_noise.json").read_text())
    text = (ROOT / "docs" / "temperature.md").read_text()
    shown = {row["way"]: [] for row in rows}
    for row in rows:
        if row["step"] in (0.01, 0.03):
            shown[row["way"]].append(f"{row['stiff']:.2f} / {row['kinetic temperature']:.2f}")
    lines = [f"| {way} | {' | '.join(cells)} |" for way, cells in shown.items()]
    assert "\n".join(lines) in text


def test_choosing_a_temperature_quotes_its_results() -> None:
    text = " ".join((ROOT / "docs" / "temperature.md").read_text().split())
    cells = json.loads((RESULTS / "cifar10_temperature.json").read_text())
    found = [cells[f"batch, augmented, T={t}"] for t in ("1", "0.1", "0.01", "0")]
    assert all(len(runs) == 1 for runs in found)
    for heading, key in (
        ("accuracy, six draws averaged", "accuracy"),
        ("accuracy, one draw", "single_accuracy"),
        ("NLL, six draws averaged", "nll"),
    ):
        row = " | ".join(f"{runs[0]['dense'][key]:.4f}" for runs in found)
        assert f"| {heading} | {row} |" in text
    row = " | ".join(f"{runs[0]['diagnostics']['kinetic_temperature']:.3g}" for runs in found)
    assert f"| kinetic temperature | {row} |" in text
    plain = [f"{cells[f'batch, plain, T={t}'][0]['dense']['accuracy']:.4f}" for t in ("1", "0.01")]
    assert f"narrower, with {plain[0]} at T = 1 and {plain[1]} at 0.01." in text
    dense = [f"{runs[0]['dense']['accuracy']:.4f}" for runs in found]
    assert f"has {dense[0]}, {dense[1]}, {dense[2]} and {dense[3]} at T = 1, 0.1, 0.01 and 0" in " ".join(SAID.split())
    still = [f"{cells[f'batch, plain, T={t}'][0]['dense']['accuracy']:.4f}" for t in ("1", "0.1", "0.01", "0")]
    assert f"without augmentation {still[0]}, {still[1]}, {still[2]} and {still[3]}." in " ".join(SAID.split())
    group = [f"{cells[f'group, augmented, T={t}'][0]['dense']['accuracy']:.4f}" for t in ("1", "0.01")]
    assert f"the same step it has {group[0]} and {group[1]} at T = 1 and 0.01" in " ".join(SAID.split())
    gains = [100 * (runs[0]["dense"]["accuracy"] - runs[0]["dense"]["single_accuracy"]) for runs in found]
    assert f"gains {min(gains):.1f} to {max(gains):.1f} points at every T" in text
    single, averaged, sgd = (
        f"{mean(*which):.4f}"
        for which in ((TWO_CHAINS, "single_accuracy"), (TWO_CHAINS, "accuracy"), ("sgd", "accuracy"))
    )
    assert (
        f"has an accuracy of {single}, the average of all draws {averaged}, and one network by plain SGD {sgd} " in text
    )


def test_what_is_said_of_five_seeds_of_the_regression_is_their_result() -> None:
    runs = json.loads((RESULTS / "regression_seeds.json").read_text())["runs"]
    assert [run["seed"] for run in runs] == list(range(5))
    worst, least = max(run["rhat_max"] for run in runs), min(run["ess_min"] for run in runs)
    assert worst <= RHAT_THRESHOLD
    assert f"the largest R-hat is {worst:.4f}, the smallest ESS {least:.0f})" in " ".join(README.split())
    table = (RESULTS / "regression_seeds.md").read_text()
    for run in runs:
        assert re.search(rf"^{run['seed']} +{run['rhat_max']:.4f} +{run['ess_min']:.0f} ", table, re.MULTILINE)
        assert run["off"] == []


def test_what_is_said_of_the_preset_smaller_is_its_result() -> None:
    runs = json.loads((RESULTS / "smaller_seeds.json").read_text())["runs"]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    text = " ".join(README.split())

    def three(numbers: list[float]) -> str:
        return "{:.4f}, {:.4f} and {:.4f}".format(*numbers)

    assert f"test images is {three([run['exported']['scores']['accuracy'] for run in runs])} with three seeds" in text
    one, averaged = (three([run["dense"][key] for run in runs]) for key in ("single_accuracy", "accuracy"))
    assert f"one dense draw has {one}, and the average of all 18 has {averaged} (" in text
    assert {run["dense"]["members"] for run in runs} == {18}
    shares = {round(r["exported"]["pruned"]["parameters"] / r["exported"]["dense"]["parameters"], 2) for r in runs}
    times = sorted(run["exported"]["latency"]["1"]["ratio"]["median"] for run in runs)
    (share,) = shares
    assert (
        f"has {share} of the parameters and takes {times[0]:.2f} to {times[-1]:.2f} of the time for one image" in text
    )


def test_what_is_said_of_distilling_is_its_result() -> None:
    runs = json.loads((RESULTS / "distilled.json").read_text())["runs"]
    assert [(run["seed"], run["epochs"]) for run in runs] == [(0, 10), (1, 10), (2, 10)]
    single, average, distilled, on_labels = zip(*(run["networks"].values() for run in runs), strict=True)

    def three(networks: Any) -> str:
        return "{:.4f}, {:.4f} and {:.4f}".format(*(scores["accuracy"] for scores in networks))

    text = " ".join((ROOT / "docs" / "guide.md").read_text().split())
    assert f"from {three(single)} to {three(distilled)} with three seeds" in text
    assert f"the average of the draws has {three(average)}; a gain of" in text
    gains = np.array([d["accuracy"] - s["accuracy"] for d, s in zip(distilled, single, strict=True)])
    mean, half = mean_and_half_width(gains)
    assert f"a gain of {mean:.4f} ± {half:.4f}, which three seeds do not tell apart from none" in text
    assert abs(mean) < half
    assert f"on the labels for as many epochs has {three(on_labels)}, and a lower NLL" in text
    for better, other in itertools.product(on_labels, (*single, *average, *distilled)):
        assert (better["accuracy"] > other["accuracy"], better["NLL"] < other["NLL"]) == (True, True)
    worse = [[each["NLL"] > s["NLL"] for each, s in zip(other, single, strict=True)] for other in (distilled, average)]
    assert worse[0] == worse[1]
    assert sum(worse[0]) == 1


def test_what_is_said_of_pruning_by_node_is_its_result() -> None:
    by_slab = nodes.slabs(json.loads((ROOT / "experiments/saha/results/saha_nodes.json").read_text())["runs"])
    assert {len(runs) for group in by_slab.values() for runs in group.values()} == {3, 5}

    def changed(set: str, method: str, slab: float) -> str:
        score, sign = ("accuracy", -1) if set == nodes.IMAGES else ("rmse", 1)
        each = [r["scores"] for r in by_slab[set, method][slab]]
        loss = np.array([sign * (s["median_sampled"][score] - s["monte_carlo"][score]) for s in each])
        mean, half = mean_and_half_width(loss)
        return "" if abs(mean) <= half else "worse" if mean > 0 else "better"

    sets = (*nodes.UCI, nodes.IMAGES)
    best = {key: changed(*key, nodes.best(group)) for key, group in by_slab.items()}
    assert {key: said for key, said in best.items() if said} == {
        ("concrete", "R1"): "worse",
        ("bostonHousing", "R1"): "better",
        ("yacht", "R2"): "worse",
        ("bostonHousing", "R2"): "worse",
    }
    assert [changed(name, "R1", 1.0) for name in sets].count("worse") == 4
    text = " ".join((ROOT / "docs" / "discrepancies.md").read_text().split())
    assert "R1 is worse after pruning than before on one of five sets (concrete), and better on Boston;" in text
    assert "R2 is worse on yacht and Boston." in text
    assert "Under the slab N(0, 1), R1 is worse on four of the five, beyond the interval." in text


def test_what_is_said_of_half_of_the_units_is_that_of_the_record() -> None:
    """Moves are told apart from none whatever chooses the units; no choice is told apart from another, once moved."""
    runs = json.loads((RESULTS / "units_one_shot.json").read_text())["runs"]
    assert [(run["seed"], run["split"]) for run in runs] == [(seed, "test") for seed in range(3)]
    text = (ROOT / "docs" / "conditional.md").read_text()

    def scores(way: str, key: str) -> Any:
        return np.array([run[way][key] for run in runs])

    def cell(way: str) -> str:
        return f"{scores(way, 'accuracy').mean():.4f} / {scores(way, 'nll').mean():.3f}"

    for way, said in (("norm", "norm of its weights"), ("random", "chance"), ("evidence", "joint evidence")):
        assert f"| {said} | {cell(way)} | {cell(f'{way}, moved')} |" in text
        assert scores(f"{way}, moved", "accuracy").mean() > 0.85 > 0.45 > scores(way, "accuracy").mean()
    assert f"The dense networks have {cell('dense')}." in text
    for other in ("norm, moved", "random, moved"):
        for key, sign in (("accuracy", 1), ("nll", -1)):
            ahead = sign * (scores("evidence, moved", key) - scores(other, key))
            mean, half = mean_and_half_width(ahead)
            assert bool((ahead > 0).all())
            assert abs(mean) < half


def test_what_is_said_of_whole_filters_is_that_of_the_rows() -> None:
    """No method's difference to chance is told apart from zero, at any target."""
    rows = [row for row in read_csv(RESULTS / "structured_lenet.csv") if row["kind"] == "single"]
    text = " ".join((ROOT / "docs" / "guide.md").read_text().split())

    def accuracy(method: str, target: float | None) -> str:
        found = [row["accuracy"] for row in rows if (row["method"], row["sparsity"]) == (method, target)]
        assert len(found) == 3
        return f"{np.mean(found):.4f}"

    assert f"dense {accuracy('dense', None)} with 416,520 multiply-adds" in text
    said = ", ".join(
        f"{accuracy(m, 0.5)} {how}" for m, how in (("filter-norm", "by norm"), ("filter-in-chain", "in a chain"))
    )
    assert f"133,740 multiply-adds, {said}, {accuracy('filter-taylor', 0.5)} by Taylor importance" in text
    assert f"{accuracy('filter-conditional', 0.5)} by [joint evidence](conditional.md)" in text
    assert f"and {accuracy('filter-random', 0.5)} at random" in text
    assert {row["cut_flops"] for row in rows if row["sparsity"] == 0.5 and row["method"].startswith("filter")} == {
        133_740
    }
    for method in ("filter-norm", "filter-in-chain", "filter-taylor", "filter-conditional"):
        for target in (0.3, 0.5, 0.7):
            mean, half = mean_and_half_width(paired(rows, method, "filter-random", target, "accuracy"))
            assert abs(mean) < half
    text = " ".join((ROOT / "docs" / "conditional.md").read_text().split())
    assert (
        f"units it has {accuracy('filter-conditional', 0.5)}, where norms have {accuracy('filter-norm', 0.5)}" in text
    )
    assert f"and chance {accuracy('filter-random', 0.5)}." in text
    lost = float(accuracy("dense", None)) - float(accuracy("filter-conditional", 0.5))
    assert f"Dense has {accuracy('dense', None)}; half" in text
    assert f"at most 0.5 points, and cost {100 * lost:.1f}." in text
    for other in ("filter-norm", "filter-in-chain", "filter-taylor", "filter-random"):
        for target in (0.3, 0.5, 0.7):
            for score in ("accuracy", "nll"):
                found = paired(rows, "filter-conditional", other, target, score)
                outside = (other, target, score) == ("filter-norm", 0.3, "nll")
                assert (abs(np.mean(found)) > mean_and_half_width(found)[1]) == outside
    mean, _ = mean_and_half_width(paired(rows, "filter-conditional", "filter-norm", 0.3, "nll"))
    assert f"its NLL is {mean:.3f} above that of norms, outside the interval" in text


def test_the_readme_quotes_the_page_of_results() -> None:
    """Each number of its summary and its correction stands there, too, where the tests above compare it."""
    summary = README[README.index("## What it does, measured") : README.index("## Read on")]
    numbers = re.findall(r"\d+(?:[.,]\d+)+|\b570\b", summary)
    assert len(numbers) > 10
    assert [number for number in numbers if number not in SAID] == []
