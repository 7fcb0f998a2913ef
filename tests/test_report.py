"""The report and the analysis scripts: every picture, one self-contained page, unfinished runs, wrong directories."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sgmcmc_prune import checkpoint
from sgmcmc_prune.config import DataConfig, ModelConfig, PriorConfig, PruneConfig, RunConfig, ScheduleConfig
from sgmcmc_prune.priors import GroupMap
from sgmcmc_prune.report import write_report
from sgmcmc_prune.report.calibration import wilson_interval
from sgmcmc_prune.report.inclusion import false_discovery_threshold, inclusion_histograms, quantity
from sgmcmc_prune.report.page import page
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.sparsity import interval
from sgmcmc_prune.report.training import hyperparameter_trace
from sgmcmc_prune.run import run
from sgmcmc_prune.store import DrawStore

ANALYSIS = Path(__file__).parents[1] / "analysis"
PNG = b"\x89PNG\r\n"
PICTURES = (
    "convergence",
    "hyperparameters",
    "inclusion",
    "probes",
    "reliability",
    "sparsity",
    "temperature",
    "training",
    "weight_norms",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps: a linear model, two chains, one fork."""
    out = tmp_path_factory.mktemp("report") / "run"
    config = RunConfig(
        data=DataConfig(validation=6000, batch_size=125),
        model=ModelConfig("linear"),
        prior=PriorConfig(spike_variance=1e-3),
        schedule=ScheduleConfig(burn_in=1.0, cycles=2, explore=0.5, sample=0.5, relax=0.25, draws=2),
        prune=PruneConfig(
            targets=(0.5, 0.9),
            post_hoc=("inclusion_probability", "magnitude"),
            in_chain=("inclusion_probability",),
            explore=0.5,
            sample=0.5,
            relax=0.25,
            draws=1,
        ),
        probes=4,
    )
    run(config, out, progress=False)
    return out


@pytest.fixture(scope="module")
def index(finished: Path) -> Path:
    """The report of that run."""
    return write_report(finished)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def _change_config(path: Path, section: str | None, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (config[section] if section else config).update(changes)
    (path / "config.json").write_text(json.dumps(config))


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ANALYSIS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_and_a_self_contained_page(finished: Path, index: Path) -> None:
    assert index == finished / "report" / "index.html"
    for name in PICTURES:
        content = (finished / "report" / f"{name}.png").read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 5000
    text = index.read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]{0,40})', text))
    assert text.count("<img") == text.count('alt="') == len(PICTURES)
    assert 'name="viewport"' in text
    assert "not finished" not in text


def test_page_says_what_was_run_and_what_it_departs_from(finished: Path, index: Path) -> None:
    text = index.read_text()
    departures = checkpoint.read_json(finished / "run.json")["departures"]
    assert departures
    assert all(line in text for line in departures)
    metrics = checkpoint.read_json(finished / "metrics.json")
    assert f"{metrics['dense']['accuracy']:.4f}" in text
    assert text.count("<tr>") >= 2 + len(metrics["pruned"])
    assert "(no interval)" in text
    assert "batch-means intervals, which take eight batches" in text


def test_text_from_the_run_is_escaped(copy: Path) -> None:
    info = checkpoint.read_json(copy / "run.json")
    checkpoint.write_json(copy / "run.json", {**info, "departures": ["<script>"]})
    text = page(RunData.open(copy), [])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_unfinished_run_shows_what_there_is(copy: Path) -> None:
    shutil.rmtree(copy / "report", ignore_errors=True)
    for name in ("metrics.json", "reliability.json", "checkpoints/chain1.safetensors"):
        (copy / name).unlink()
    shutil.rmtree(copy / "forks")
    store = DrawStore.open(copy / "posterior.zarr")
    for group in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive"):
        store.truncate(group, 0, 3)
        store.truncate(group, 1, 0)
    store.truncate("training", 1, 0)
    info = checkpoint.read_json(copy / "run.json")
    checkpoint.write_json(copy / "run.json", {**info, "status": "interrupted"})
    text = write_report(copy).read_text()
    assert "This run is not finished: its status is interrupted" in text
    assert "Not every chain has saved a draw yet" in text
    written = {path.stem for path in (copy / "report").glob("*.png")}
    assert written == {"training", "hyperparameters", "inclusion", "temperature", "weight_norms"}


def test_run_without_a_single_step(copy: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(copy / "config.json", bare)
    text = write_report(bare).read_text()
    assert "its status is not started" in text
    assert "<img" not in text


def test_em_responsibilities_are_not_called_posterior(copy: Path) -> None:
    _change_config(copy, "prior", mode="em")
    _change_config(copy, "prune", post_hoc=["magnitude"], in_chain=["magnitude"])
    picture = inclusion_histograms(RunData.open(copy))
    assert picture.title == "EM responsibility (not a posterior probability)"
    assert picture.figure is not None
    assert "posterior inclusion probability" not in picture.caption + picture.alt
    assert quantity(RunConfig()) == "posterior inclusion probability"


def test_gaussian_prior_has_no_inclusion(copy: Path) -> None:
    _change_config(copy, "prior", family="gaussian")
    _change_config(copy, "prune", post_hoc=["magnitude"], in_chain=["magnitude"])
    run_data = RunData.open(copy)
    for draw in (inclusion_histograms, hyperparameter_trace):
        picture = draw(run_data)
        assert picture.figure is None
        assert "The prior is Gaussian" in picture.caption


def test_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run directory") as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report").exists()


def test_false_discovery_threshold_is_the_lowest_kept() -> None:
    inclusion = {"a": torch.tensor([0.99, 0.2, 0.95, 0.8]).double(), "b": torch.tensor([0.1, 0.05]).double()}
    groups = {"a": GroupMap("weight", (2, 2)), "b": GroupMap("weight", (1, 2))}
    assert false_discovery_threshold(inclusion, groups, 0.1) == pytest.approx(0.8)
    assert np.isnan(false_discovery_threshold({"b": inclusion["b"]}, {"b": groups["b"]}, 0.1))


def test_intervals() -> None:
    mean, half = interval(np.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_allclose([mean[0], half[0]], [2.0, 4.302653 / np.sqrt(3)], rtol=1e-6)
    assert np.isnan(interval(np.array([[1.0]]))[1]).all()
    low, high = wilson_interval(np.array([0.0, 0.5]), np.array([10, 10]))
    np.testing.assert_allclose(low, [0.0, 0.2366], atol=1e-4)
    np.testing.assert_allclose(high, [0.2775, 0.7634], atol=1e-4)


def test_accuracy_against_sparsity_over_seeds(finished: Path, copy: Path, tmp_path: Path) -> None:
    _change_config(copy, None, seed=1)
    picture = tmp_path / "accuracy.png"
    main = _script("accuracy_against_sparsity").main
    assert main([str(finished), str(copy), "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(PNG)


def test_accuracy_against_sparsity_refuses(
    finished: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = _script("accuracy_against_sparsity").main
    arguments = [str(finished), str(copy), "--out", str(tmp_path / "no.png")]
    for reason in ("same seed 0", "differ in more than their seed", "no metrics.json"):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
        if reason == "same seed 0":
            _change_config(copy, None, seed=1, chains=1)
        else:
            (copy / "metrics.json").unlink(missing_ok=True)
    assert main([str(tmp_path), "--out", str(tmp_path / "no.png")]) == 2


def test_inclusion_probabilities(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "inclusion.png"
    script = _script("inclusion_probabilities")
    assert script.main([str(finished), "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(PNG)
    assert script.main([str(tmp_path), "--out", str(picture)]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_first_layer_images() -> None:
    first_layer = _script("inclusion_probabilities").first_layer
    filters = first_layer(torch.rand(6, 3, 5, 4), (3, 28, 28))
    assert [f.shape for f in filters] == [(5, 4)] * 6
    assert [f.shape for f in first_layer(torch.rand(7, 12), (1, 4, 3))] == [(4, 3)]
    assert [f.shape for f in first_layer(torch.rand(7, 12), (12,))] == [(1, 12)]
