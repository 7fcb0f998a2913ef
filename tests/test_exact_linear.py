"""The experiment on a table of numbers: what it writes, what it refuses, and its chains against enumeration."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from experiments import shared
from experiments.ours import exact_inclusion, exact_linear
from experiments.ours.exact_inclusion import simulated
from experiments.ours.linear_chains import Ladder, sample

RESULTS = shared.results(exact_inclusion.__file__)
ARGUMENTS = ("--noise-variance", "0.3", "--spike", "0.01", "--slab", "0.5", "--pi", "0.3")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def run(data: Path, out: Path, *more: str) -> int:
    return exact_linear.main(["--data", str(data), "--out", str(out), *ARGUMENTS, *more])


def test_a_table_is_read_with_names_comments_and_a_constant_column(tmp_path: Path) -> None:
    data = write(tmp_path / "t.txt", "# a b c y\n1 2 7 1.5\n\n# between\n2 1 7 3.5  # after\n4 4 7 2\n")
    table = exact_linear.read_table(data)
    for target in ("y", "3", "-1"):
        x, y = exact_linear.split_target(table, target)
        assert x.shape == (3, 2)
        torch.testing.assert_close(torch.cat([x, y.unsqueeze(1)], 1).square().mean(0), torch.ones(3).double())
    assert exact_linear.split_target(table, "a")[0].shape == (3, 2)


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("1 2\n3 oops\n", (), "line 2, column 2: 'oops' is not a finite number"),
        ("1 2\n3 nan\n", (), "line 2, column 2"),
        ("1 2\n3\n", (), "line 2: 1 numbers, but the first row has 2"),
        ("", (), "holds no numbers"),
        ("1 2\n3 4\n", ("--target", "2"), "out of range"),
        ("1 2\n3 4\n", ("--target", "y"), "no header line"),
        ("1 2\n3 2\n", (), "constant"),
        ("1 2\n1 3\n", (), "every feature column is constant"),
        ("1 2\n3 4\n", ("--spike", "0.5"), "0 < spike < slab"),
        ("1 2\n3 4\n", ("--pi", "1"), "inclusion_rate"),
        ("1 2\n3 4\n", ("--noise-variance", "0"), "noise-variance"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    text: str, more: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(tmp_path / "t.txt", text), tmp_path / "out.json", "--target", "-1", *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.txt", tmp_path / "out.json", "--target", "0") == 2
    assert "none.txt" in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "keys"), [("marginal", {"sampled", "exact"}), ("em", {"sampled", "exact", "mode"})])
def test_the_result_has_exactly_the_promised_keys(
    mode: str, keys: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run cut to a fraction of a second: its form alone."""
    for name, blocks in {"BURN_IN_BLOCKS": 1, "MIN_BLOCKS": 3}.items():
        monkeypatch.setattr(f"experiments.ours.linear_chains.{name}", blocks)
    for name in ("SECONDS", "BIAS_SECONDS"):
        monkeypatch.setattr(f"experiments.ours.exact_linear.{name}", 0.0)
    rows = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).tolist()
    data = write(tmp_path / "t.txt", "\n".join(" ".join(map(str, row)) for row in rows))
    assert run(data, tmp_path / "out.json", "--target", "0", "--mode", mode) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert set(document) == keys
    assert set(document["sampled"]) == {"inclusion_probability", "mean", "variance", "mcse"}
    assert set(document["exact"]) == {"inclusion_probability", "mean", "variance"}
    assert all(len(values) == 2 for part in ("sampled", "exact") for values in document[part].values())
    assert ("not a posterior probability" in capsys.readouterr().out) == (mode == "em")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["marginal", "gibbs"])
def test_correlated_features_are_sampled_exactly(mode: str) -> None:
    """Ten features with neighbours correlated at 0.9, a spike sixteen times narrower than the data's precision.

    Within 4 SE of enumeration: false-alarm rate under 20 * 6.3e-5. Moments: the mean within 4 of its own SE is not
    available, so they are compared at 2 per cent of the posterior's scale.
    """
    problem = simulated(0.9, 100, 10)
    exact = exact_linear.enumerated(problem)
    sampled = sample(Ladder(problem, mode), 0.003, 60.0)  # type: ignore[arg-type]
    assert float(sampled.mcse.max()) < 0.005
    assert ((sampled.inclusion_probability - exact.inclusion_probability).abs() < 4 * sampled.mcse + 1e-3).all()
    assert ((sampled.mean - exact.mean).abs() < 0.04 * exact.variance.sqrt()).all()
    torch.testing.assert_close(sampled.variance, exact.variance, rtol=0.05, atol=0)
    assert sampled.rhat < exact_linear.MAX_RHAT


def test_the_committed_rows_are_read_and_none_is_computed_again(tmp_path: Path) -> None:
    for name in ("exact_inclusion.json", "exact_inclusion.md"):
        shutil.copy(RESULTS / name, tmp_path)
    before = (tmp_path / "exact_inclusion.json").read_bytes()
    (tmp_path / "exact_inclusion.md").unlink()
    failed = [row for row in exact_inclusion.read(tmp_path / "exact_inclusion.json") if row.get("pass") is False]
    assert exact_inclusion.main(["--uci", str(tmp_path), "--out", str(tmp_path)]) == bool(failed)
    assert (tmp_path / "exact_inclusion.json").read_bytes() == before
    assert (tmp_path / "exact_inclusion.md").read_text() == (RESULTS / "exact_inclusion.md").read_text()


def test_a_table_of_several_seeds_names_them() -> None:
    rows = exact_inclusion.read(RESULTS / "exact_inclusion.json")[:3]
    assert "| energy | 768 |" in exact_inclusion.table(rows)
    assert "| energy, seed 1 | 768 |" in exact_inclusion.table([*rows, *(row | {"seed": 1} for row in rows)])


def test_a_public_design_needs_its_folder() -> None:
    with pytest.raises(ValueError, match="design yacht is read from UCI_Datasets; give its folder as --uci"):
        exact_inclusion.row("yacht", "em", 0, None)
