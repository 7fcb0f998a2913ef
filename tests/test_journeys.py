"""A user's own parts, each a file of ten lines or fewer outside the package, run by the command line to a table."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgmcmc_prune import choices, cli

OWN = {
    "prior": """
        import torch
        from sgmcmc_prune.priors import Prior
        class Cauchy(Prior):
            def __init__(self, params, scale=1.0):
                self.scale = scale
            def potential_gradient(self, name, w):
                return 2 * w / (self.scale**2 + w**2)
            def log_density(self, params):
                law = torch.distributions.Cauchy(0, self.scale)
                return sum(law.log_prob(w.double()).sum() for w in params.values())
    """,
    "sampler": """
        from sgmcmc_prune.samplers import SGHMC
        class Slow(SGHMC):
            name = "slow"
            def configure(self, **settings):
                super().configure(**{**settings, "lr": settings["lr"] / 2})
    """,
    "mass": """
        from sgmcmc_prune.preconditioners import RMSprop
        class Root(RMSprop):
            def __init__(self):
                super().__init__(decay=0.9)
    """,
    "criterion": """
        from sgmcmc_prune.criteria.base import Criterion
        class Wander(Criterion):
            def observe(self, prior, name, w, temperature):
                return {"cubed": w.abs() ** 3}
            def scores(self, averages, groups, seed):
                return {name: group.sum(averages["cubed"][name].double()) for name, group in groups.items()}
    """,
    "decision": """
        def above_average(scores, groups):
            return {name: score > score.mean() for name, score in scores.items()}
    """,
    "growth": """
        def early(fraction):
            return (1 - fraction) ** 5
    """,
    "data": """
        import torch
        def blobs(n=300):
            g = torch.Generator().manual_seed(0)
            y = torch.randint(3, (n,), generator=g)
            x = torch.randn(n, 8, generator=g) + 2 * torch.nn.functional.one_hot(y, 8)
            return (x[:-100], y[:-100]), (x[-100:], y[-100:])
    """,
    "likelihood": """
        import torch.nn.functional as F
        def smoothed(outputs, labels):
            return F.cross_entropy(outputs, labels, reduction="none", label_smoothing=0.1)
    """,
    "network": """
        from torch import nn
        def net(input_shape, num_classes, width=16):
            return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Tanh(), nn.Linear(width, num_classes))
    """,
    "method": """
        from sgmcmc_prune.compare.method import Cost
        from sgmcmc_prune.compare.networks import Posterior, at_sparsities
        from sgmcmc_prune.criteria.magnitude import magnitude
        from sgmcmc_prune.baselines.training import single_weights
        def untrained(problem, folder):
            model = problem.network()
            groups, cost = single_weights(model), Cost(problem.steps * problem.batch_size, 0.0)
            scores = magnitude(dict(model.named_parameters()), groups)
            yield from at_sparsities(problem, Posterior(model, model.state_dict(), [], cost), scores, groups)
    """,
}
SHORT = """
    --data.validation 6500 --data.batch-size 50 --model.name linear --prior.spike-variance 1e-3 --schedule.burn-in 2
    --schedule.cycles 1 --schedule.explore 1 --schedule.sample 2 --schedule.draws 4 --prune.targets 0.5
    --prune.post-hoc magnitude --prune.in-chain magnitude --prune.explore 1 --prune.sample 1 --prune.draws 2
    --probes 8 --execution loop --chains 1
""".split()  # noqa: SIM905


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the user's files, in which the command is typed."""
    for name, text in OWN.items():
        (tmp_path / f"own_{name}.py").write_text(textwrap.dedent(text).lstrip())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in OWN:
        sys.modules.pop(f"own_{name}", None)


@pytest.mark.parametrize("name", OWN)
def test_a_file_has_ten_lines_or_fewer(name: str) -> None:
    assert len(textwrap.dedent(OWN[name]).strip().splitlines()) <= 10


@pytest.mark.parametrize(
    ("part", "options", "seen"),
    [
        ("prior", "--prior.family own_prior:Cauchy --prior.options scale=0.3", "magnitude"),
        ("sampler", "--sampler.name own_sampler:Slow", "magnitude"),
        ("mass", "--sampler.preconditioner own_mass:Root", "magnitude"),
        ("criterion", "--prune.post-hoc own_criterion:Wander --prune.in-chain own_criterion:Wander", "own"),
        ("decision", "--prune.decisions own_decision:above_average", "own_decision:above_average"),
        ("growth", "--prune.growth-schedule own_growth:early", "magnitude"),
        ("data", "--data.name own_data:blobs --data.options n=400 --data.validation 50 --model.name mlp", "magnitude"),
        ("likelihood", "--likelihood own_likelihood:smoothed", "magnitude"),
        ("network", "--model.name own_network:net --model.options width=12", "magnitude"),
    ],
)
def test_a_run_takes_a_users_own_part(
    folder: Path, capsys: pytest.CaptureFixture[str], part: str, options: str, seen: str
) -> None:
    cli.main(["run", "demo", *SHORT, *options.split(), "--out", "out"])
    table = capsys.readouterr().out
    assert "dense" in table
    assert seen in table
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["dense"]["accuracy"] > 0.3
    own = json.loads(Path("out/run.json").read_text())["own"]
    assert list(own.values()) == [str(folder / f"own_{part}.py")]


def test_the_options_of_a_part_reach_it(folder: Path) -> None:
    cli.main(["run", "demo", *SHORT, "--model.name", "own_network:net", "--model.options", "width=5", "--out", "out"])
    dense = json.loads(Path("out/metrics.json").read_text())["dense"]
    assert dense["parameters"] == 784 * 5 + 5 + 5 * 10 + 10


def test_a_criterion_of_ones_own_survives_a_resume_and_ranks_the_same_groups(folder: Path) -> None:
    criterion = ["--prune.post-hoc", "own_criterion:Wander", "--prune.in-chain"]
    cli.main(["run", "demo", *SHORT, *criterion, "--out", "out"])
    before = Path("out/metrics.json").read_text()
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
        ("--model.options depth=3", "linear has no option 'depth'"),
        ("--data.name own_decision:above_average", "fails"),
    ],
)
def test_what_is_no_such_part_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "demo", *SHORT, *options.split(), "--out", "out"])
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
