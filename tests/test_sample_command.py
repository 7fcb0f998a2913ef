"""The command `sample`: data, network and likelihood by name, with the settings of the call `sample`."""

from pathlib import Path

import numpy as np
import pytest

from sgmcmc_prune.cli import main
from sgmcmc_prune.run import defaults
from sgmcmc_prune.run.directory import load_config
from sgmcmc_prune.store.files import read_json


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 80 rows whose target one straight line explains but for a tenth, and counts with the same inputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sgmcmc_prune.chains.step_size.FIT_STEPS", 200)
    monkeypatch.setattr(defaults, "TRIAL_STEPS", 50)
    monkeypatch.setattr(defaults, "BURN_IN", 40)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(80, 2))
    y = 2 * x[:, 0] + 0.1 * generator.normal(size=80)
    rows = ["left,right,price", *(f"{a},{b},{c}" for (a, b), c in zip(x, y, strict=True))]
    (tmp_path / "houses.csv").write_text("\n".join(rows))
    np.savez(tmp_path / "counts.npz", x=x.astype(np.float32), y=generator.poisson(np.exp(0.5 * x[:, 0])))
    return tmp_path


def command(*options: str, length: str = "0.01") -> None:
    main(["sample", *options, "--length", length, "--chains", "2"])


def test_a_table_is_sampled_with_a_step_that_suits_it(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    houses = ("csv:houses.csv:price", "--likelihood", "gaussian")
    command(*houses)
    out = table / "runs" / "sample-seed0"
    config = load_config(out)
    assert config.data.batch_size == 72  # all of its training rows
    assert (config.model.name, config.model.options) == ("mlp", ("widths=(50,)", "activation=tanh"))
    assert (config.schedule.burn_in, config.schedule.sample, config.schedule.draws) == (40, 300, 250)
    assert (config.start, config.em.kind) == ("trained", "fixed")
    assert 0 < config.sampler.lr < 0.1
    assert read_json(out / "metrics.json", checksum=True)["dense"]["rmse"] < 0.5
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].startswith("run directory: runs/sample-seed0")
    assert last[1] == 'predictions, in Python: sgmcmc_prune.open_posterior("runs/sample-seed0").predict(x)'

    kept = {path: path.read_bytes() for path in (out / "draws").rglob("*.safetensors")}
    same = ("--data-options", "seed=0", "test=0.1", "--model-options", "activation=tanh", "widths=(50,)")
    command(*houses, *same, "--likelihood-options", "noise=learned")  # all said, goes on, and finds everything done
    assert kept
    assert kept == {path: path.read_bytes() for path in (out / "draws").rglob("*.safetensors")}

    with pytest.raises(SystemExit, match="2"):
        command("npz:counts.npz", "--likelihood", "poisson")
    assert "was sampled from other data" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command(*houses, "--model-options", "widths=(5,)", "activation=tanh")
    said = capsys.readouterr().err
    assert "holds a run with other settings (model.options); " in said
    assert "give the same ones, another directory, or overwrite it (overwrite=True, --overwrite)" in said
    command("npz:counts.npz", "--likelihood", "poisson", "--overwrite", "--in-chain", "expected_log_odds")
    pruned = read_json(out / "metrics.json", checksum=True)["pruned"]
    assert {row["criterion"] for row in pruned if row["when"] == "in_chain"} == {"expected_log_odds"}
    assert load_config(out).likelihood == "poisson"


def test_other_data_are_refused_and_change_nothing(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command, where the file has other numbers."""
    houses = ("csv:houses.csv:price", "--likelihood", "gaussian")
    command(*houses)
    kept = {path: path.read_bytes() for path in (table / "runs").rglob("*") if path.is_file()}
    lines = (table / "houses.csv").read_text().splitlines()
    (table / "houses.csv").write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]))
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        command(*houses)
    assert "was sampled from other data" in capsys.readouterr().err
    assert kept == {path: path.read_bytes() for path in (table / "runs").rglob("*") if path.is_file()}


HOUSES = ("csv:houses.csv:price", "--likelihood", "gaussian")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*HOUSES, "--batch-size", "0"), "batch_size is 0; choose 1 to 72 examples"),
        ((*HOUSES, "--batch-size", "73"), "batch_size is 73; choose 1 to 72 examples"),
        ((*HOUSES, "--data-options", "test=abc"), "test is 'abc'; give the share of the rows"),
        ((*HOUSES, "--data-options", "seed=1.5"), "seed is 1.5; give an integer"),
        ((*HOUSES, "--data-options", "targets=labels"), "data.options has targets"),
        (("csv:houses.csv:price", "--likelihood", "poisson"), "a count: 0, 1, 2"),
        (("csv:houses.csv:price", "--likelihood", "categorical"), "column 'price' looks like a number"),
        (("uci:yacht", "--likelihood", "gaussian"), "--data-dir"),
        (("houses.csv", "--likelihood", "gaussian"), "houses.csv"),
        (("csv:houses.csv:rent", "--likelihood", "gaussian"), "rent"),
        (("csv:houses.csv:price", "--likelihood", "normal"), "normal"),
        (("csv:houses.csv:price", "--likelihood", "gaussian", "--model", "lenet"), "lenet"),
        (("csv:houses.csv:price", "--likelihood", "gaussian", "--in-chain", "size"), "size"),
    ],
)
def test_what_does_not_fit_is_one_line(
    options: tuple[str, ...], said: str, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(*options)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (table / "runs").exists()


@pytest.mark.parametrize("length", ["0", "-1", "nan", "inf", "1e300"])
def test_a_length_is_a_number_above_zero(length: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(*HOUSES, length=length)
    assert f"length is {float(length):g}; choose one above 0, up to 1,000" in capsys.readouterr().err


def test_a_trained_start_is_no_option_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The step of a preset need not be stable where a training ends."""
    with pytest.raises(SystemExit, match="2"):
        main(["run", "regression", "--start", "trained"])
    assert "--start" in capsys.readouterr().err
