"""The experiments of the variational families: each script runs, small, and its figure can be drawn."""

import importlib
from pathlib import Path

import pytest

from sgmcmc_prune.store.files import read_json


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
