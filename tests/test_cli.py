"""The command line: help, exit codes, one-line errors."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sgmcmc_prune.certify
from sgmcmc_prune import choices
from sgmcmc_prune.cli import Certify, main
from sgmcmc_prune.run.vocabulary import ALSO, SETTINGS, kind_called, vocabulary


def call(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "sgmcmc_prune.cli", *arguments]
    env = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env=env)


def test_help_shows_every_setting_with_its_default() -> None:
    shown = call("run", "demo", "--help").stdout
    options = ("--sampler.lr", "--prior.mode", "--em.kind", "--prune.targets", "--out", "--seed", "--data.data-dir")
    for option in options:
        assert option in shown
    assert "--keep-weight-draws, --no-keep-weight-draws" in shown  # or "--no-..." would stand over "Keep ..."
    settings = [block for block in shown.split("│ --") if block.startswith(("em.", "sampler.", "prior.", "prune."))]
    bare = [block.split()[0] for block in settings if block.split("(default:")[0].count("│") < 2]
    assert len(settings) > 40
    assert bare == []


def test_the_whole_vocabulary_is_listed() -> None:
    """Every name of every kind, its line and its options, under the setting that takes it."""
    done = call("list")
    blocks = {block.partition(":")[0]: block for block in done.stdout.split("\n\n")}
    assert max(map(len, done.stdout.splitlines())) <= 110
    shown = call("run", "demo", "--help").stdout
    kinds = [kind for kind in choices.OURS if kind != "comparison method"]  # those are listed by track
    for kind in kinds:
        title, *lines = blocks[kind].splitlines()
        assert all(setting in shown for setting in re.findall(r"--[\w.-]+", title))
        told = dict(line.split(maxsplit=1) for line in lines if line[2] != " ")
        assert list(told) == [*choices.OURS[kind], *(f"{head}:..." for head in choices.WITH_ARGUMENT.get(kind, {}))]
    assert "--track one-shot" in done.stdout
    assert call("list", "mass-matrix").stdout == blocks["mass matrix"] + "\n"
    wrong = call("list", "nonsense")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no kind of choice 'nonsense'; choose one of network, data-set" in wrong.stderr


def test_a_kind_is_known_by_its_plural_and_by_other_words() -> None:
    kinds = [*(kind.replace(" ", "-") for kind in SETTINGS), "method"]
    assert all(kind in kinds for kind in ALSO.values())
    for kind in kinds:
        assert {kind_called(word, kinds) for word in (kind, f"{kind}s", kind.replace("-", " "), kind.upper())} == {kind}
    other = {"datasets": "data-set", "models": "network", "criteria": "criterion", "mass matrices": "mass-matrix"}
    assert {word: kind_called(word, kinds) for word in other} == other
    with pytest.raises(ValueError, match=r"'netwrks' \(did you mean network\?\); choose one of network, data-set"):
        kind_called("netwrks", kinds)


@pytest.mark.parametrize("name", choices.OURS["network"])
def test_the_options_that_are_listed_are_those_that_a_network_takes(name: str) -> None:
    """With their defaults they build the same network; what a run gives itself is no option."""
    lines = vocabulary("network").splitlines()
    place = next(i for i, line in enumerate(lines) if line.split()[0] == name)
    own = [line for line in lines[place + 1 :] if line[2] != " "]
    block = " ".join(lines[place : lines.index(own[0], place + 1) if own else None])
    options = choices.options(block.partition("options: ")[2].split(", ") if "options: " in block else (), name)
    assert not {"input_shape", "num_classes", "normalisation", "block"} & options.keys()
    assert all(f"{known}=" in block for known in ("widths", "activation", "bias")) == (name == "mlp")
    shape = (1, 28, 28) if name == "lenet" else (3, 32, 32)
    with torch.device("meta"):
        given, plain = (choices.load("network", name)(shape, 10, **more) for more in (options, {}))
    assert {n: p.shape for n, p in given.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}


def test_what_else_an_option_may_be_is_listed() -> None:
    assert "options: noise=learned (or heteroscedastic, a number)" in vocabulary("likelihood")
    assert "options: form=corrected (or released), eta=None, curvature=1.0" in vocabulary("sampler")
    assert "decay" not in vocabulary("mass matrix")  # which no setting of a run gives


def test_an_existing_directory_is_refused_in_one_line_and_nothing_is_printed_before(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    done = call("run", "demo", "--out", "there", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("sgmcmc-prune: there exists and is not empty")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "nonsense"),
        ("run", "demo", "--nonsense", "1"),
        ("run", "demo", "--seed", "abc"),
        ("run", "demo", "--prior.mode", "nonsense"),
        ("run", "demo", "--sampler.temperature", "-1"),
        ("run", "fashion-mnist", "--data.data-dir", "/nonexistent"),
        ("run", "demo", "--ood", "nonsense"),
        ("run", "demo", "--ood", "svhn"),
        ("run", "demo", "--ood", "idx", "--ood-dir", "/nonexistent"),
        ("resume", "/nonexistent"),
        ("summary", "/nonexistent"),
        ("report", "/nonexistent"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("sgmcmc-prune: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


ASCII = {"PYTHONIOENCODING": "ascii"}
NARROW = {"COLUMNS": "20", "TERM": "dumb", "HOME": "/nonexistent"}


@pytest.mark.parametrize("environment", [ASCII, NARROW, ASCII | NARROW])
def test_bad_input_is_said_in_any_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    done = call("run", "demo", "--sampler.lrr", "1", cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "sgmcmc-prune: Unrecognized options: --sampler.lrr, 1. Perhaps you meant: --sampler.lr."
    )
    done = call("run", "demo", "--seed", "abc", cwd=tmp_path, **environment)
    assert done.stderr == (
        "sgmcmc-prune: Error parsing --seed: 'abc' is no whole number. All options: sgmcmc-prune run demo --help\n"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("run demo", '"gaussian" (numbers), "poisson" (counts), or your own as "package.module:function" of outputs'),
        ("compare", "the phases of every method fit into. With `start` nothing is trained"),
    ],
)
def test_help_breaks_no_line_before_a_quote(command: str, told: str) -> None:
    """What a docstring says of a setting is wrapped anew, to the width of the terminal."""
    assert told in call(*command.split(), "--help", COLUMNS="10000").stdout


def test_a_wrong_command_gets_the_help_of_all() -> None:
    assert call("runn").stderr.endswith("All options: sgmcmc-prune --help\n")
    assert call("compare", "--epochs", "two").stderr.endswith("All options: sgmcmc-prune compare --help\n")


def test_python_without_assertions_is_refused(tmp_path: Path) -> None:
    done = call("methods", cwd=tmp_path, PYTHONOPTIMIZE="2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "sgmcmc-prune: Python runs without assertions, under which Zarr fails; leave out -O and PYTHONOPTIMIZE\n"
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_end_no_command(closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m sgmcmc_prune methods {closed}"
    assert subprocess.run(command, shell=True, cwd=tmp_path, check=False, capture_output=True).returncode == 0


def test_a_working_directory_that_is_gone_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f"cd gone && rmdir ../gone && {sys.executable} -m sgmcmc_prune methods"
    done = subprocess.run(command, shell=True, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "sgmcmc-prune: the working directory does not exist any more; change into another\n"


def test_a_misspelt_option_gets_a_suggestion() -> None:
    done = call("run", "demo", "--prior.slab-varianc", "1")
    assert "Perhaps you meant: --prior.slab-variance" in done.stderr


@pytest.mark.parametrize(("level", "option"), [(1e-3, ""), (1e-5, " --false-alarm 1e-05")])
def test_a_certificate_names_the_command_that_makes_it(
    level: float, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []
    made = SimpleNamespace(passed=True, format=str, write=lambda path, command: commands.append(command))
    monkeypatch.setattr(sgmcmc_prune.certify, "certify", lambda *settings: made)
    out = tmp_path / "certificate.json"
    Certify(quick=True, out=out, seed=2, false_alarm=level)()
    assert commands == [f"sgmcmc-prune certify --quick --seed 2{option} --out {out}"]


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from sgmcmc_prune import __version__

    main(["--version"])
    assert capsys.readouterr().out == f"sgmcmc_prune {__version__}\n"
