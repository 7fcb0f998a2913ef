"""A user's own parts, each a file of ten lines or fewer outside the package, run by the command line to a table."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sgmcmc_prune import choices, cli
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.report.page import page
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.run.data import SAME_AGAIN
from sgmcmc_prune.run.directory import open_run
from sgmcmc_prune.run.tables import metrics_table
from sgmcmc_prune.store.weights import WeightStore

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "extend.md").read_text()
#: The files that docs/extend.md shows, by their names.
OWN: dict[str, str] = dict(re.findall(r"`own_(\w+)\.py`.*?```python\n(.*?)```", GUIDE, re.DOTALL))
#: What is no part of a run, in one file.
WRONG = """
import torch
from sgmcmc_prune.criteria.base import Criterion
from sgmcmc_prune.preconditioners import RMSprop, change_mass
from sgmcmc_prune.priors import Prior
from sgmcmc_prune.samplers import Sampler

class Opposite(Prior):
    def __init__(self, params): pass
    def potential_gradient(self, name, w): return -w
    def log_density(self, params): return sum(-(w.double() ** 2).sum() / 2 for w in params.values())

class Reads(Opposite):
    settings = ("width",)

class Pole(Prior):
    def __init__(self, params): pass
    def potential_gradient(self, name, w): return 0.5 / w + w
    def log_density(self, params): return sum(-(w.abs().log() + w ** 2).double().sum() / 2 for w in params.values())

class InPlace(Opposite):
    def potential_gradient(self, name, w): return w.mul_(1.0)
    def log_density(self, params): return super().log_density({n: w.add_(1e-3) for n, w in params.items()})

class Kicks(Opposite):
    def potential_gradient(self, name, w): return w
    def sample_latent(self, params, step, temperature=1.0):
        for p in params.values(): p.data.add_(1e-3)

class Unmasked(Sampler):
    def _update(self, p, force, noise, state, group): p.add_(force, alpha=-group["lr"])

class NoRule(Sampler): pass

class Light(RMSprop):
    def refresh(self, states):
        for state in states: change_mass(state, torch.full_like(state["square_average"], 0.1))

class Narrow(RMSprop):
    def refresh(self, states):
        for state in states: change_mass(state, torch.ones(3))

class Floorless(RMSprop):
    def __init__(self): self.min_mass = 0.0

class Fails(RMSprop):
    def observe(self, state, gradient): {}["seen"]

class Number(Opposite):
    def potential_gradient(self, name, w): return torch.tensor(1000.0)

class Short(Criterion):
    def scores(self, averages, groups, seed): return {name: torch.ones(3) for name in groups}

class Nothing(Criterion):
    def scores(self, averages, groups, seed): return None

class Raises(Criterion):
    def observe(self, prior, name, w, temperature): return {}["w"]

def rises(fraction): return fraction
def none(scores, groups): return None

def sets(train, test, first=0):
    labels = torch.arange(100) % 3 + first
    return (train, labels), (test, labels)

def unlike(): return sets(torch.zeros(100, 4), torch.zeros(100, 5))
def from_one(): return sets(torch.zeros(100, 4), torch.zeros(100, 4), 1)
def flat(): return sets(torch.zeros(100), torch.zeros(100))
def other(): return sets(torch.randn(100, 4), torch.randn(100, 4))
DRAWN = torch.randn(100, 4)  # at the import, by every process
def imported(): return sets(DRAWN, DRAWN)
def fixed(): return sets(torch.arange(400.0).view(100, 4) / 400, torch.ones(100, 4))
"""
SHORT = """
    --data.validation 6500 --data.batch-size 50 --model.name linear --prior.spike-variance 1e-3 --schedule.burn-in 2
    --schedule.cycles 1 --schedule.explore 1 --schedule.sample 2 --schedule.draws 4 --prune.targets 0.5
    --prune.post-hoc magnitude --prune.in-chain magnitude --prune.explore 1 --prune.sample 1 --prune.draws 2
    --probes 8 --execution loop --chains 1
""".split()  # noqa: SIM905


def short_run(options: list[str]) -> list[str]:
    """A short run with these options, to `out`; under another prior without the spike's variance, which it refuses."""
    spike = ("--prior.spike-variance", "1e-3") if "--prior.family" in options else ()
    return ["run", "demo", *(typed for typed in SHORT if typed not in spike), *options, "--out", "out"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the user's files, in which the command is typed."""
    for name, text in OWN.items():
        (tmp_path / f"own_{name}.py").write_text(text)
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("wrong", *(f"own_{name}" for name in OWN)):
        sys.modules.pop(name, None)


def test_the_guide_shows_a_file_for_every_choice() -> None:
    parts = "prior sampler mass criterion curvature decision growth data likelihood network method".split()  # noqa: SIM905
    assert list(OWN) == parts


@pytest.mark.parametrize("name", OWN)
def test_a_file_has_ten_lines_or_fewer(name: str) -> None:
    assert len([line for line in OWN[name].splitlines() if line]) <= 10
    assert f"own_{name}:" in GUIDE, "the guide shows how it is given"


@pytest.mark.parametrize(
    ("part", "options", "seen"),
    [
        ("prior", "--prior.family own_prior:Cauchy --prior.options scale=0.3", "magnitude"),
        ("sampler", "--sampler.name own_sampler:Slow", "magnitude"),
        ("mass", "--sampler.preconditioner own_mass:Quick", "magnitude"),
        ("criterion", "--prune.post-hoc own_criterion:Wander --prune.in-chain own_criterion:Wander", "own"),
        (
            "curvature",
            "--prune.post-hoc conditional --prune.curvature own_curvature:Diagonal --prune.stages 1",
            "conditional",
        ),
        ("decision", "--prune.decisions own_decision:above_average", "own_decision:above_average"),
        ("growth", "--prune.growth-schedule own_growth:early", "magnitude"),
        ("data", "--data.name own_data:blobs --data.options n=4000 --data.validation 50 --model.name mlp", "magnitude"),
        ("likelihood", "--likelihood own_likelihood:smoothed", "magnitude"),
        ("network", "--model.name own_network:net --model.options width=12", "magnitude"),
    ],
)
def test_a_run_takes_a_users_own_part(
    folder: Path, capsys: pytest.CaptureFixture[str], part: str, options: str, seen: str
) -> None:
    cli.main(short_run(options.split()))
    table = capsys.readouterr().out
    assert "dense" in table
    assert seen in table
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["dense"]["accuracy"] > 0.3
    own = json.loads(Path("out/run.json").read_text())["own"]
    assert [place["file"] for place in own.values()] == [str(folder / f"own_{part}.py")]


def test_the_options_of_a_part_reach_it(folder: Path) -> None:
    cli.main(["run", "demo", *SHORT, "--model.name", "own_network:net", "--model.options", "width=5", "--out", "out"])
    dense = json.loads(Path("out/metrics.json").read_text())["dense"]
    assert dense["parameters"] == 784 * 5 + 5 + 5 * 10 + 10


def test_a_criterion_of_ones_own_survives_a_resume_and_ranks_the_same_groups(folder: Path) -> None:
    criterion = ["--prune.post-hoc", "own_criterion:Wander", "--prune.in-chain"]
    cli.main(["run", "demo", *SHORT, *criterion, "--out", "out"])
    before = Path("out/metrics.json").read_text()
    assert "own_criterion:Wander" in metrics_table(json.loads(before))
    assert "own criterion" not in page(RunData.open(Path("out")), [])
    cli.main(["resume", "out"])
    assert json.loads(Path("out/metrics.json").read_text()) == json.loads(before)


def test_the_comparison_takes_a_users_own_method(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = "--epochs 8 --sparsities 0.5 --seeds 0 --model.name linear --data.validation 6500".split()  # noqa: SIM905
    methods = ["--methods", "own_method:untrained", "sgd-magnitude", "--reference", "sgd-magnitude"]
    cli.main(["compare", *methods, *size, "--out", "out"])
    assert "own_method:untrained" in capsys.readouterr().out
    assert "own_method:untrained" in Path("out/comparison.csv").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--prune.post-hoc nowhere:X", "criterion 'nowhere:X' cannot be imported: No module named 'nowhere'"),
        ("--prior.family own_decision:above_average", "is no subclass of sgmcmc_prune.priors.Prior"),
        ("--prior.family own_prior:Cauchy --prior.options width=3", "width"),
        ("--sampler.name own_prior:Cauchy", "is no subclass of sgmcmc_prune.samplers.Sampler"),
        ("--model.options width", "give NAME=VALUE"),
        (
            "--model.options depth=3",
            "linear has no option 'depth'; it has bias; a network of your own takes its own: --model.name "
            "package.module:callable --model.options NAME=VALUE",
        ),
        ("--sampler.options lr=3", "sampler.options has lr, which is a setting of the run's own"),
        ("--sampler.options prior=None", "sampler.options has prior"),
        ("--prior.options spike_variance=1e-12", "prior.options has spike_variance"),
        ("--prior.options seed=1", "prior.options has seed"),
        ("--prune.growth-schedule wrong:rises", "must fall from 1 to 0"),
        ("--prior.family wrong:Reads", "prior 'wrong:Reads' reads width, no setting of a run's prior"),
        ("--prior.family wrong:Opposite", "potential_gradient is not the slope of -log_density"),
        ("--prior.family wrong:Number", "must give a finite tensor of the shape of w"),
        ("--prior.family wrong:Pole", "must give a finite 0-d tensor where masks hold weights at zero"),
        ("--prior.family wrong:InPlace", "it changes the weights 'linear.weight' that it is given"),
        ("--prior.family wrong:Kicks", "it changes the weights 'linear.weight' that it is given"),
        ("--sampler.name wrong:Unmasked", "a step moves masked weights of 'linear.weight'"),
        ("--sampler.name wrong:NoRule", "the sampler NoRule has no _update"),
        ("--sampler.preconditioner wrong:Light", "gives 'linear.weight' a mass of 0.1, below its min_mass, 0.25"),
        ("--sampler.preconditioner wrong:Narrow", "your mass matrix wrong:Narrow fails: RuntimeError"),
        (
            "--sampler.preconditioner wrong:Narrow --sampler.name sgld",
            "a mass of shape (3,); it must be",
        ),
        ("--sampler.preconditioner wrong:Floorless", "has min_mass 0.0; it must be a number above 0"),
        (
            "--sampler.preconditioner wrong:Fails",
            "your mass matrix wrong:Fails fails: KeyError: 'seen' (wrong.py",
        ),
        ("--prune.post-hoc wrong:Short", "must give a number for each of the 7840 groups of 'linear.weight'"),
        ("--prune.post-hoc wrong:Nothing", "it must give the scores of each parameter by name"),
        ("--prune.post-hoc wrong:Raises", "your criterion wrong:Raises fails: KeyError: 'w'"),
        ("--prune.in-chain wrong:Raises", "your criterion wrong:Raises fails: KeyError: 'w'"),
        ("--prune.decisions wrong:none", "your decision wrong:none fails"),
        ("--data.name wrong:unlike --data.validation 10", "give both alike, scaled alike"),
        ("--data.name wrong:from_one --data.validation 10", "no training example has label 0"),
        ("--data.name wrong:flat --data.validation 10", "give real numbers of shape (n, ...)"),
        ("--sampler.preconditioner wrong:rises", "rises"),
        ("--data.name own_decision:above_average", "fails"),
    ],
)
def test_what_is_no_such_part_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(short_run(options.split()))
    assert stop.value.code == 2
    complaint = capsys.readouterr().err.strip().splitlines()
    assert message in complaint[-1]
    assert not Path("out").exists()


def test_from_another_folder_a_run_says_where_its_module_was(folder: Path) -> None:
    options = ["--model.name", "own_network:net", "--keep-weight-draws"]
    cli.main(["run", "demo", *SHORT, *options, "--out", "out"])
    for command in (["export", str(folder / "out"), "net.safetensors"], ["resume", str(folder / "out")]):
        done = subprocess.run(
            [sys.executable, "-m", "sgmcmc_prune", *command], cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"own_network:net was in {folder / 'own_network.py'}" in done.stderr


def test_every_name_of_ours_can_be_loaded() -> None:
    for kind, names in choices.OURS.items():
        for name in names:
            assert choices.load(kind, name) is not None


def test_a_run_does_not_go_on_with_another_file_or_other_examples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model.name", "own_network:net", "--keep-weight-draws"]
    cli.main(["run", "demo", *SHORT, *options, "--out", "out"])
    sys.modules.pop("own_network")
    (folder / "own_network.py").write_text(OWN["network"].replace("Tanh", "ReLU"))
    with pytest.raises(SystemExit):
        cli.main(["resume", "out"])
    assert "own_network:net is not what this run was started with" in capsys.readouterr().err


def test_examples_that_differ_from_call_to_call_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a directory is made, where a second call tells; in a chain's process, where only another import does."""
    small = ["--data.validation", "10", "--data.batch-size", "10", "--prior.spike-variance", "1e-2", "--probes", "4"]
    run = [
        "run",
        "demo",
        *SHORT,
        *small,
        "--chains",
        "2",
        "--execution",
        "processes",
        "--out",
        "changing",
        "--data.name",
    ]
    for command in (run, ["sample", "--likelihood", "categorical", "--out", "changing"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*command, "wrong:other"])
        again = "gives other examples when it is called again, as every process of a run does"
        assert f"your data set wrong:other {again}: {SAME_AGAIN}" in capsys.readouterr().err
        assert not Path("changing").exists()
    with pytest.raises(SystemExit, match="1"):
        cli.main([*run, "wrong:imported"])
    assert (
        f"wrong:imported gives other examples than when changing was started: {SAME_AGAIN}" in capsys.readouterr().err
    )
    cli.main([*run, "wrong:fixed", "--overwrite"])  # what is overwritten had other examples, and that is no matter
    assert open_run(Path("changing")).config.data.name == "wrong:fixed"


def test_a_criterion_gets_a_copy_of_the_weights_and_decides_by_its_own_odds(folder: Path) -> None:
    (folder / "slips.py").write_text(
        "from sgmcmc_prune.criteria.base import Criterion\n"
        "class Slips(Criterion):\n"
        "    probabilities = True\n"
        "    def observe(self, prior, name, w, temperature):\n"
        "        return {'size': w.abs_().double()}\n"
        "    def scores(self, averages, groups, seed):\n"
        "        return {name: averages['size'][name].flatten() - 0.05 for name in groups}\n"
    )
    cli.main(["run", "demo", *SHORT, "--prune.post-hoc", "magnitude", "slips:Slips", "--out", "out"])
    cli.main(["run", "demo", *SHORT, "--prune.post-hoc", "magnitude", "--out", "without"])
    with_it, without = (json.loads(Path(out, "metrics.json").read_text()) for out in ("out", "without"))
    assert with_it["dense"] == without["dense"]
    (median,) = [row for row in with_it["pruned"] if row["decision"] == "median"]
    assert 0 < median["sparsity"] < 1


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_under_a_prior_that_pulls_at_masked_weights_they_stay_exactly_zero(folder: Path, implementation: str) -> None:
    (folder / "off.py").write_text(
        "from sgmcmc_prune.priors import Prior\n"
        "class Off(Prior):\n"
        "    def __init__(self, params):\n"
        "        pass\n"
        "    def potential_gradient(self, name, w):\n"
        "        return 100 * (w - 1)\n"
        "    def log_density(self, params):\n"
        "        return sum(-50 * (w.double() - 1).square().sum() for w in params.values())\n"
    )
    options = ["--prior.family", "off:Off", "--sampler.implementation", implementation, "--keep-weight-draws"]
    cli.main(short_run(options))
    places = open_run(Path("out")).places.stage("magnitude")
    mask = masks.load(places.mask(0, 0.5))["linear.weight"]
    drawn = [draw["linear.weight"] for draw in WeightStore(places.draws).draws(0)]
    assert len(drawn) == 2
    for weights in drawn:
        assert torch.equal(weights != 0, mask)


def test_a_sampler_of_ones_own_needs_no_name(folder: Path) -> None:
    (folder / "plain.py").write_text(
        "from sgmcmc_prune.samplers import Sampler\n"
        "class Plain(Sampler):\n"
        "    def _update(self, p, force, noise, state, group):\n"
        "        p.add_(force, alpha=-group['lr'])\n"
        "        if noise is not None:\n"
        "            p.add_(noise, alpha=(2 * group['lr'] * group['temperature'] / group['num_data']) ** 0.5)\n"
        "        p.mul_(state.get('mask', 1))\n"
    )
    cli.main(["run", "demo", *SHORT, "--sampler.name", "plain:Plain", "--out", "out"])
    before = json.loads(Path("out/metrics.json").read_text())
    cli.main(["resume", "out"])
    assert json.loads(Path("out/metrics.json").read_text()) == before
    assert before["dense"]["accuracy"] > 0.3
