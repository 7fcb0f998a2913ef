"""Tables by name: read as they stand, standardised by the training part, and refused by row and column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sgmcmc_prune import open_posterior
from sgmcmc_prune.data import load
from sgmcmc_prune.likelihoods import Gaussian
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace


def table(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


GOOD = "a;b;y\n" + "\n".join(f"{i};{i % 3};{3 * i + 1}" for i in range(20)) + "\n"


def test_csv_is_standardised_by_its_training_part(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", GOOD)
    data = load(f"csv:{file}:y", targets="standardised", test=0.2)
    x, y = data.train.inputs(data.mean, data.std, "cpu"), data.train.labels
    assert (len(data.train), len(data.test), data.num_classes, data.target_width) == (16, 4, 0, 1)
    torch.testing.assert_close(x.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.std(), torch.tensor(1.0))
    raw = torch.cat([part.labels for part in (data.train, data.test)]) * data.unit + data.centre
    torch.testing.assert_close(raw.sort().values, torch.arange(20) * 3.0 + 1, rtol=1e-4, atol=1e-3)
    assert (
        data.provenance["files"]["tensors"]
        == load(f"csv:{file}:y", targets="standardised", test=0.2).provenance["files"]["tensors"]
    )
    numbers = load(f"csv:{file}:y", targets="numbers")
    assert (numbers.unit, numbers.centre) == (1.0, 0.0)


def test_csv_of_labels_and_of_several_targets(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{'cat' if i % 2 else 'dog'},{i}" for i in range(30))
    file = table(tmp_path / "t.csv", f"x,animal,z\n{rows}\n")
    data = load(f"csv:{file}:animal")
    assert (data.num_classes, data.train.labels.dtype) == (2, torch.int64)
    assert (data.classes, data.columns, data.target_names) == (("cat", "dog"), ("x", "z"), ("animal",))
    numbers = "\n".join(f"{i}\t{i * i}\t{i + 2}" for i in range(30))
    two = load(
        f"csv:{table(tmp_path / 'u.tsv', 'x' + chr(9) + 'y1' + chr(9) + 'y2' + chr(10) + numbers)}:y1,y2",
        targets="numbers",
    )
    assert (two.target_width, tuple(two.train.labels.shape)) == (2, (27, 2))


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        ("a,b\n1,2\n3,x\n5,6\n", "a", "row 3, column 'b' holds 'x', no finite number"),
        ("a,b\n1,2\n3,\n5,6\n", "a", "row 3, column 'b' is empty"),
        ("a,b\n1,2\n3,nan\n5,6\n", "a", "row 3, column 'b' holds 'nan'"),
        ("a,b\n1,2\n3\n5,6\n", "a", "row 3 has 1 cells, and the header 2"),
        ("1,2\n3,4\n5,6\n", "a", "has no header"),
        ("a,b\n1,2\n3,4\n", "c", "has no column 'c'; it has a, b"),
        ("a,a\n1,2\n3,4\n", "a", "has 2 columns 'a'"),
        ("a\n1\n2\n", "a", "no column beside a"),
        ("a,b\n", "a", "a header and two rows"),
        ("", "a", "a header and two rows"),
        ("a,b\n1,1\n1,2\n1,3\n", "a", "all training targets are 1"),
        ("a,b\n0.1,1\n0.1,2\n0.1,3\n", "a", "all training targets are 0.1"),
        ("a,b\n1e300,1\n-1e300,2\n1,3\n", "a", "too large"),
        ("a,b\n1_000,1\n2,2\n3,3\n", "a", "no finite number"),
        ("a,b,b\n1,1,1\n2,2,2\n3,3,3\n", "a", "two columns have one name"),
    ],
)
def test_a_csv_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str, target: str, said: str) -> None:
    file = table(tmp_path / "t.csv", text)
    with pytest.raises(ValueError, match=said) as refused:
        load(f"csv:{file}:{target}", targets="standardised", test=0.34)
    assert "\n" not in str(refused.value)


def test_npz(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20.0)
    np.savez(tmp_path / "one.npz", x=x, y=y)
    assert len(load(f"npz:{tmp_path / 'one.npz'}", targets="numbers").test) == 2
    np.savez(tmp_path / "two.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    assert len(load(f"npz:{tmp_path / 'two.npz'}", targets="numbers").test) == 5
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object), y=y)
    np.savez(tmp_path / "other.npz", a=x)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:400])
    for name, said in {
        "objects": r"^[^\n]*objects.npz is no whole .npz file of numbers; write one with numpy.savez\(FILE, x=",
        "cut": "cut.npz is no whole .npz file of numbers",
        "other": "holds a; give x and y",
        "none": "is no file",
    }.items():
        with pytest.raises(ValueError, match=said):
            load(f"npz:{tmp_path / f'{name}.npz'}", targets="numbers")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("uci:yacht", {}, "needs the folder"),
        ("csv:nothing", {}, "names no target"),
        ("csv:nowhere.csv:y", {}, "is no file"),
        ("csv", {}, "choose one of"),
    ],
)
def test_names_that_lack_something(monkeypatch: Any, name: str, options: dict[str, Any], said: str) -> None:
    monkeypatch.delenv("SGMCMC_PRUNE_DATA", raising=False)
    with pytest.raises(ValueError, match=said):
        load(name, targets="numbers", **options)


def test_uci_by_name_keeps_its_units(tmp_path: Path) -> None:
    folder = tmp_path / "toy" / "data"
    folder.mkdir(parents=True)
    x = np.random.default_rng(1).normal(size=(12, 3))
    np.savetxt(folder / "data.txt", x)
    for name, values in {"features": [0, 1], "target": [2], "train_0": range(9), "test_0": range(9, 12)}.items():
        np.savetxt(folder / f"index_{name}.txt", list(values), fmt="%d")
    data = load("uci:toy", tmp_path, targets="standardised")
    assert data.unit == pytest.approx(x[:9, 2].std(ddof=1), rel=1e-5)
    assert data.centre == pytest.approx(x[:9, 2].mean(), abs=1e-5)
    with pytest.raises(ValueError, match="no split 1; choose 0 to 0"):
        load("uci:toy", tmp_path, targets="standardised", split=1)
    with pytest.raises(ValueError, match="class labels"):
        load("uci:toy", tmp_path)


def test_features_are_taken_in_the_units_of_the_file(tmp_path: Path) -> None:
    data = load(f"csv:{table(tmp_path / 't.csv', GOOD)}:y", targets="standardised")
    raw = torch.tensor([[float(i), float(i % 3)] for i in range(20)])
    rows = data.as_inputs(raw)
    for own in data.train.inputs(data.mean, data.std, "cpu"):
        assert any(torch.allclose(own, row, atol=1e-5) for row in rows)
    with pytest.raises(ValueError, match=r"give \(n, 2\)"):
        data.as_inputs(raw[:, :1])


def test_several_targets_are_standardised_by_column(tmp_path: Path) -> None:
    rows = "\n".join(f"{i % 7},{1000 * i},{i * i}" for i in range(30))
    data = load(f"csv:{table(tmp_path / 't.csv', 'x,y,z' + chr(10) + rows)}:y,z", targets="standardised")
    torch.testing.assert_close(data.train.labels.std(0), torch.ones(2), rtol=1e-4, atol=0)
    assert (data.unit, len(data.units), data.provenance["targets"]) == (1.0, 2, ["y", "z"])


def test_several_targets_are_predicted_and_scored_each_in_its_unit(tmp_path: Path) -> None:
    """z has a thousand times y's scale; predictions come in these scales, and so does the RMSE of each."""
    rows = "\n".join(f"{i % 7},{i % 7 + (i * i) % 3},{1000 * (i % 7)}" for i in range(60))
    file = table(tmp_path / "t.csv", "x,y,z" + chr(10) + rows)
    changes = {"schedule.burn_in": 300.0, "schedule.sample": 100.0, "schedule.draws": 4, "data.batch_size": 54}
    short = {"probes": 8, "execution": "loop", "chains": 1, "data.name": f"csv:{file}:y,z", **changes}
    out = tmp_path / "run"
    metrics = run(replace(PRESETS["regression"](), **short), out, progress=False)
    posterior = open_posterior(out)
    test = posterior.run.data.dataset.test
    x = test.inputs((), (), "cpu") * torch.tensor(posterior.run.data.dataset.input_scale)
    predicted = posterior.predict(x + torch.tensor(posterior.run.data.dataset.input_centre))
    y = test.labels * torch.tensor(posterior.run.data.dataset.units) + torch.tensor(posterior.run.data.dataset.centres)
    rmse = (predicted.mean - y).square().mean(0).sqrt().tolist()
    assert list(metrics["rmse_by_target"].values()) == pytest.approx(rmse, rel=1e-4)
    assert list(metrics["rmse_by_target"]) == ["y", "z"]
    assert "2 targets are in standard deviations of each; RMSE in their units, dense: y " in str(posterior)
    low, high = predicted.interval()
    assert bool(((high - low)[:, 1] > 100 * (high - low)[:, 0]).all())


def test_a_known_noise_is_in_the_units_of_the_file() -> None:
    assert Gaussian(5.0).in_unit(38.0).noise == pytest.approx(5 / 38)
    assert Gaussian().in_unit(38.0).noise == "learned"


def test_integer_targets_of_npz_are_standardised(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.random.default_rng(0).normal(size=(30, 2)), y=np.arange(1000, 1030))
    data = load(f"npz:{tmp_path / 't.npz'}", targets="standardised")
    assert float(data.train.labels.std()) == pytest.approx(1, rel=1e-4)
    assert data.unit > 5


def test_numbers_as_labels_are_told_from_classes(tmp_path: Path) -> None:
    """Prices, or decimals; but labels that start at 1 are classes, and so are rare words."""
    said = "column 'y' looks like a number, with [0-9]+ values in 30 rows; --likelihood gaussian takes numbers"
    for values in ([997 * i for i in range(30)], [round(0.37 * i, 2) for i in range(30)]):
        file = table(tmp_path / "t.csv", "x,y\n" + "\n".join(f"{i},{v}" for i, v in enumerate(values)))
        with pytest.raises(ValueError, match=said):
            load(f"csv:{file}:y")
    words = table(tmp_path / "w.csv", "x,y\n" + "\n".join(f"{i},w{i}" for i in range(30)))
    with pytest.raises(ValueError, match="no training example has label"):
        load(f"csv:{words}:y")
    stars = table(tmp_path / "s.csv", "x,y\n" + "\n".join(f"{i},{1 + i % 3 / 2}" for i in range(30)))
    assert load(f"csv:{stars}:y").classes == ("1.0", "1.5", "2.0")


def test_a_column_that_is_not_there_is_one(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", GOOD)
    with pytest.raises(ValueError, match=r"t\.csv has no column 'yy'; it has a, b, y$"):
        load(f"csv:{file}:yy")
