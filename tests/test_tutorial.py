"""The tutorial's code runs as it stands: with short chains, and in a slow test in full, which asks for convergence."""

import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sgmcmc_prune.chains import step_size
from sgmcmc_prune.run import defaults

ROOT = Path(__file__).resolve().parents[1]


def run_blocks(file: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, file, "exec"), names)
    return names


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short chains, and short trainings before them."""
    for name, value in {"BURN_IN": 60, "SAMPLE": 200, "DRAWS": 20, "EXPLORE": 20, "SAMPLE_PRUNED": 20}.items():
        monkeypatch.setattr(defaults, name, value)
    monkeypatch.setattr(defaults, "DRAWS_PRUNED", 4)
    monkeypatch.setattr(step_size, "FIT_STEPS", 100)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("file", ["docs/tutorial.md", "README.md"])
def test_the_blocks_run(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_blocks(file)
    assert names["pruned"].network()(names["x"][:3]).shape == (3, 2)  # means, and the logarithm of the noise
    assert "RMSE" in capsys.readouterr().out
    if file.endswith("tutorial.md"):  # what it keeps is the network
        program = torch.export.load("pruned.pt2").module()
        torch.testing.assert_close(program(names["x"]), names["network"](names["x"]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("short")
def test_the_blocks_of_a_how_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks("docs/temperature.md")
    assert "temperature 0.1 instead of 1" in capsys.readouterr().out
    run_blocks("docs/resuming.md")
    assert (tmp_path / "runs" / "resumed" / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_in_full_the_chains_are_healthy_and_the_idle_inputs_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-hat of 64 probes under 1.02, ESS in the hundreds, no finding about temperatures."""
    monkeypatch.chdir(tmp_path)
    names = run_blocks("docs/tutorial.md")
    diagnostics = names["posterior"].metrics["diagnostics"]
    assert diagnostics["mean"]["rhat_max"] < 1.02
    assert diagnostics["mean"]["ess_min"] > 200
    assert diagnostics["temperature"]["findings"] == []
    by_input = names["first"].probability[0].reshape(8, 4).mean(0)
    assert float(by_input[:2].min()) > float(by_input[2:].max())


def test_the_reference_names_what_there_is() -> None:
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 30
    for name in names:
        found = pkgutil.resolve_name(name)
        assert found.__doc__, name
