"""The experiments of the variational families: their records go on where they stopped; each script runs, small."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from sgmcmc_prune.store.files import read_json

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))


def test_records_go_on_where_they_were_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records, path, computed = importlib.import_module("records"), tmp_path / "deeper" / "results.json", []

    def compute(seed: int, steps: int) -> dict[str, Any]:
        if seed == 2 and steps not in computed:
            computed.append(steps)
            raise KeyboardInterrupt
        computed.append(seed)
        return {"score": seed * steps}

    cells = [{"seed": seed, "steps": 10} for seed in range(4)]
    arguments = (path, cells, compute, lambda r: f"seed {r['seed']}: {r['score']}")
    with pytest.raises(KeyboardInterrupt):
        records.complete(*arguments)
    assert [run["seed"] for run in read_json(path)["runs"]] == [0, 1]
    assert records.complete(*arguments)[3] == {"seed": 3, "steps": 10, "score": 30}
    assert computed == [0, 1, 10, 2, 3]
    others = [{"seed": 0, "steps": 20}]  # stand beside
    assert len(records.complete(path, others, compute, arguments[3])) == 5
    assert capsys.readouterr().out.splitlines()[-2:] == ["seed 3: 30", "seed 0: 0"]


@pytest.mark.filterwarnings("ignore:nothing of")  # so few steps decide nothing
@pytest.mark.parametrize(
    ("script", "options", "result"),
    [
        ("saha_sun", "--designs 4 --seeds 1 --steps 12 --num-data 600", "saha_sun.json"),
        ("jantre_teacher", "--seeds 1 --steps 12 --refit 0 --starts low", "jantre_teacher.json"),
        ("saha_features", "--seeds 1 --steps 12 --methods R2", "saha_features.json"),
    ],
)
def test_a_script_writes_what_its_figure_reads(
    script: str, options: str, result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module(script).main([*options.split(), "--out", str(tmp_path)])
    monkeypatch.syspath_prepend(str(ROOT / "analysis"))
    import matplotlib.pyplot as plt

    spec = importlib.util.spec_from_file_location(f"figure_of_{script}", ROOT / "analysis" / f"{script}.py")
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    drawn = figure.draw(read_json(tmp_path / result))
    assert all(axes.get_xlabel() or axes.get_ylabel() for axes in drawn.axes)
    plt.close(drawn)


def test_the_better_of_both_starts_is_taken_for_each_data_set() -> None:
    fits = [("input gates", 0, -3.0), ("warm input gates", 0, -2.0), ("input gates", 0, -9.0), ("R2", 0, 0.0)]
    runs = [{"method": m, "seed": s, "bound": b} for m, s, b in [*fits, ("input gates", 1, -1.0)]]
    best = importlib.import_module("saha_features").best_bounds(runs)
    assert best == [{"method": "warm input gates", "seed": 0, "bound": -2.0}]
