"""The experiments of the variational families: each script runs, small, and its figure can be drawn."""

import csv
import importlib
from pathlib import Path

import pytest
from toy_uci import write_toy

from sgmcmc_prune.data import fashion_mnist
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.result_table import COMMON


@pytest.mark.parametrize(
    ("paper", "script", "options", "result"),
    [
        ("saha", "sun", "--designs 4 --seeds 1 --steps 12 --num-data 600", "saha_sun.json"),
        ("jantre", "teacher", "--seeds 1 --steps 12 --refit 0 --starts low", "jantre_teacher.json"),
        ("saha", "features", "--seeds 1 --steps 12 --methods R2", "saha_features.json"),
    ],
)
def test_a_script_writes_what_its_figure_reads(
    paper: str, script: str, options: str, result: str, tmp_path: Path
) -> None:
    importlib.import_module(f"experiments.{paper}.{script}").main([*options.split(), "--out", str(tmp_path)])
    import matplotlib.pyplot as plt

    figure = importlib.import_module(f"experiments.{paper}.figure_{script}")
    drawn = figure.draw(read_json(tmp_path / result))
    assert all(axes.get_xlabel() or axes.get_ylabel() for axes in drawn.axes)
    plt.close(drawn)


def test_the_better_of_both_starts_is_taken_for_each_data_set() -> None:
    fits = [("input gates", 0, -3.0), ("warm input gates", 0, -2.0), ("input gates", 0, -9.0), ("R2", 0, 0.0)]
    runs = [{"method": m, "seed": s, "bound": b} for m, s, b in [*fits, ("input gates", 1, -1.0)]]
    best = importlib.import_module("experiments.saha.features").best_bounds(runs)
    assert best == [{"method": "warm input gates", "seed": 0, "bound": -2.0}]


def test_nodes_are_scored_before_and_after_and_the_best_bound_counts(tmp_path: Path) -> None:
    """A toy set in the standard format: a file of cells, a table with a mark for each reading, a CSV of all scores."""
    write_toy(tmp_path)
    nodes = importlib.import_module("experiments.saha.nodes")
    nodes.main(f"--data-dir {tmp_path} --sets toy --seeds 0 --epochs 20 --out {tmp_path}".split())
    runs = read_json(tmp_path / "saha_nodes.json")["runs"]
    assert len(runs) == len(nodes.READINGS) * len(nodes.SLABS)
    for r in runs:
        assert 1 < r["scores"]["monte_carlo"]["rmse"] < 300  # the targets have a standard deviation of 100
        if r["nodes"] == nodes.WIDTH:
            assert r["scores"]["mean"] == r["scores"]["median_mean"]
    marks = [line.split()[3] == "*" for line in (tmp_path / "saha_nodes.md").read_text().splitlines() if "toy" in line]
    assert (len(marks), sum(marks)) == (len(runs), len(nodes.READINGS))
    with (tmp_path / "saha_nodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[: len(COMMON)] == COMMON
    assert len(rows) == 4 * len(runs)
    assert {r["nodes"] for r in rows if r["predictor"] == "mean"} == {str(nodes.WIDTH)}


def test_families_on_images_in_the_format_of_mnist_leave_a_page(tmp_path: Path) -> None:
    images = importlib.import_module("experiments.jantre.images")
    call = (
        f"--network lenet --data mnist --validation 6500 --epochs 1 --batch 125 --families ss_ig svbnn --out {tmp_path}"
    )
    folder = Path(fashion_mnist.__file__).parent / "fashion_mnist_subset"
    images.main([*call.split(), "--seeds", "0", "--data-dir", str(folder)])
    runs = read_json(tmp_path / "jantre_lenet_mnist.json")["runs"]
    lines = (tmp_path / "jantre_lenet_mnist.md").read_text().splitlines()
    for run in runs:
        (row,) = [line.split() for line in lines if line.startswith(run["family"])]
        assert row[2] == f"{run['predictors']['monte_carlo']['accuracy']:.4f}"
        assert row[8:12] == [
            *(f"{run[name]:.3f}" for name in ("parameters", "multiply_adds")),
            *(f"{run['latency'][size]['ratio']['median']:.2f}" for size in ("1", "128")),
        ]
        assert row[12:] == [str(nodes) for _, nodes, _ in run["kept"].values()]


def test_the_files_of_mnist_have_to_be_somewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("experiments.jantre.images").main(["--data", "mnist"])
    assert "--data mnist needs --data-dir" in capsys.readouterr().err


def test_the_slab_with_the_best_mean_bound_is_taken() -> None:
    nodes = importlib.import_module("experiments.saha.nodes")
    bounds = [(1.0, -3.0), (1.0, -5.0), (0.3, -1.0), (0.3, -9.0), (0.1, -6.0)]
    runs = [{"set": "yacht", "method": "R1", "slab": slab, "bound": bound} for slab, bound in bounds]
    assert nodes.best(nodes.slabs(runs)["yacht", "R1"]) == 1.0
