"""The report and the analysis scripts: every picture, one self-contained page, unfinished runs, wrong directories."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from html import escape
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from browser import look, needs_chromium
from matplotlib.figure import Figure

from sgmcmc_prune import cli
from sgmcmc_prune.diagnostics.inference_data import load, summary
from sgmcmc_prune.predictive.intervals import mean_and_half_width, wilson_interval
from sgmcmc_prune.priors import GroupMap
from sgmcmc_prune.report import convergence, write, write_comparison, write_report
from sgmcmc_prune.report.comparison import names_apart
from sgmcmc_prune.report.inclusion import false_discovery_threshold, inclusion_histograms, quantity
from sgmcmc_prune.report.overlay import overlay
from sgmcmc_prune.report.page import page
from sgmcmc_prune.report.run_data import RunData, shortened
from sgmcmc_prune.report.sparsity import draw, marks_of, quality_against_sparsity
from sgmcmc_prune.report.style import Picture, colours, legend_below, line, new_figure
from sgmcmc_prune.report.temperature import temperatures
from sgmcmc_prune.report.training import hyperparameter_trace, running_mean, training_trace
from sgmcmc_prune.run.config import DataConfig, ModelConfig, PriorConfig, PruneConfig, RunConfig, ScheduleConfig
from sgmcmc_prune.run.headline import best_rows, headline, noise_line
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.tables import diagnostics_lines
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.draws import DrawStore
from sgmcmc_prune.store.files import read_json, write_json

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
    """As if the run and its draws had been made so."""
    config = json.loads((path / "config.json").read_text())
    (config[section] if section else config).update(changes)
    (path / "config.json").write_text(json.dumps(config))
    store = json.loads((path / "posterior.zarr" / "zarr.json").read_text())
    store["attributes"]["config"] = config
    (path / "posterior.zarr" / "zarr.json").write_text(json.dumps(store))


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
    departures = read_json(finished / "run.json")["departures"]
    assert departures
    assert all(line in text for line in departures)
    metrics = read_json(finished / "metrics.json")
    assert f"{metrics['dense']['accuracy']:.4f}" in text
    assert text.count("<tr>") >= 2 + len(metrics["pruned"])
    assert "(no interval)" in text
    assert "intervals, which of a single chain take eight batches" in text


def test_text_from_the_run_is_escaped(copy: Path) -> None:
    info = read_json(copy / "run.json", checksum=True)
    write_json(copy / "run.json", {**info, "departures": ["<script>alert(1)"]}, checksum=True)
    text = page(RunData.open(copy), [])
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_unfinished_run_shows_what_there_is(copy: Path) -> None:
    shutil.rmtree(copy / "report", ignore_errors=True)
    for name in ("metrics.json", "reliability.json", "averages/chain1.safetensors"):
        (copy / name).unlink()
    shutil.rmtree(copy / "forks")
    store = DrawStore.open(copy / "posterior.zarr")
    for group in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive"):
        store.truncate(group, 0, 3)
        store.truncate(group, 1, 0)
    store.truncate("training", 1, 0)
    info = read_json(copy / "run.json", checksum=True)
    write_json(copy / "run.json", {**info, "status": "interrupted"}, checksum=True)
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


def test_a_caption_names_what_is_drawn_alone(copy: Path) -> None:
    run = RunData.open(copy)
    assert run.metrics is not None
    told = quality_against_sparsity(run).caption
    assert "Hollow" in told
    assert "control" not in told
    run.metrics["pruned"] = [row for row in run.metrics["pruned"] if row["decision"] == "target"]
    assert "Hollow" not in quality_against_sparsity(run).caption


def test_gaussian_prior_has_no_inclusion(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunData, "inclusion", lambda self: {})
    _change_config(copy, "prior", family="gaussian")
    _change_config(copy, "prune", post_hoc=["magnitude"], in_chain=["magnitude"])
    picture = inclusion_histograms(RunData.open(copy))
    assert picture.figure is None
    assert "the prior (gaussian) has no indicators" in picture.caption


def test_scales_that_a_run_learns_are_kept_everywhere(tmp_path: Path) -> None:
    config = replace(
        RunConfig(model=ModelConfig("linear"), chains=1, probes=4),
        **{
            "prior.family": "student_t",
            "data.validation": 6000,
            "data.batch_size": 125,
            "prune.post_hoc": ("magnitude",),
            "prune.in_chain": (),
        },
        **{"schedule.burn_in": 2.0, "schedule.cycles": 1, "prune.targets": (0.5,), "em.every": 2},
    )
    metrics = run(config, tmp_path / "run", progress=False)
    tree = load(tmp_path / "run")
    (scale,) = {float(v) for v in tree["posterior"]["scale"].values.ravel()}
    assert scale != pytest.approx(0.05**0.5 / 2**0.5, rel=1e-3), "EM moved it from its start"
    assert tree["training"]["scale"].values[0, -1, 0] == scale
    learned = metrics["diagnostics"]["hyperparameters"]
    assert learned == {"scale": {"linear.weight": pytest.approx(scale)}, "degrees_of_freedom": {"linear.weight": 4.0}}
    assert f"scale: linear.weight {scale:.3g}" in diagnostics_lines(metrics)
    assert summary(tmp_path / "run").loc["scale[linear.weight]", "mean"] == pytest.approx(scale)
    figure = hyperparameter_trace(RunData.open(tmp_path / "run")).figure
    assert figure is not None
    assert {ax.get_ylabel() for ax in figure.axes} == {"scale", "degrees of freedom"}


def test_convergence_draws_what_there_is(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four draws of two chains: an R-hat, but no ESS; no empty panel stands for what is missing."""
    run_data = RunData.open(finished)
    picture = convergence.convergence(run_data)
    assert picture.figure is not None
    assert [ax.get_xlabel() for ax in picture.figure.axes] == ["R-hat (rank-normalised, split)"]
    assert "There is no effective sample size: it takes 10 draws a chain, not 4" in picture.caption
    monkeypatch.setattr(convergence, "MIN_DRAWS_ESS", 4)
    picture = convergence.convergence(run_data)
    assert picture.figure is not None
    assert [ax.get_xlabel()[:5] for ax in picture.figure.axes] == ["R-hat", "bulk "]
    assert run_data.dense is not None
    run_data.dense.chains = 1
    picture = convergence.convergence(run_data)
    assert picture.figure is not None
    assert [ax.get_xlabel()[:5] for ax in picture.figure.axes] == ["bulk "]
    assert "There is no R-hat" in picture.caption
    monkeypatch.undo()
    assert convergence.convergence(run_data).figure is None


def test_the_page_opens_with_the_verdict_then_the_trade_off_then_the_tables(finished: Path, index: Path) -> None:
    text, metrics = index.read_text(), read_json(finished / "metrics.json")
    first, *others = headline(metrics)
    assert f"<h1>{escape(first)}</h1>" in text
    places = [text.index(part) for part in (escape(first), escape(others[0]), "Quality against sparsity", ">Results<")]
    assert places == sorted(places)
    assert text.index(">Results<") < text.index("<details>")
    assert text.count("<details>") == 3 + len(PICTURES)  # all pictures but the first, and four sections of words
    over = f"over {metrics['examples']:,} test examples"
    assert f"± in the headline: half of the 95 % interval of the difference, paired by example, {over}" in text
    assert f"± in the table: half of the 95 % interval {over}, of a share (accuracy, coverage) the larger side" in text
    assert metrics["departures"] == len(read_json(finished / "run.json")["departures"])


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_overflow_or_errors(index: Path, tmp_path: Path, width: int) -> None:
    found, console = look(Path(shutil.copy(index, tmp_path)), width)
    assert (found["window"], console) == (width, [])
    assert found["page"] <= width


def test_a_run_prints_the_verdict_first(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = read_json(finished / "metrics.json", checksum=True)
    cli._show(finished, lambda: metrics)
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed[: len(headline(metrics))] == headline(metrics)
    for place in ("headline", "table"):
        assert sum(line.startswith(f"± in the {place}: half of the 95 % interval") for line in printed) == 1


def test_the_best_of_each_sparsity_are_marked(finished: Path) -> None:
    run_data = RunData.open(finished)
    assert run_data.metrics is not None
    best = best_rows(run_data.metrics)
    assert best
    text = page(run_data, [])
    assert text.count('<td class="best">') == len(best)
    for place in best:
        row = run_data.metrics["pruned"][place]
        assert f'<td class="best">{row["accuracy"]:.4f} ± {row["half_width"]["accuracy"]:.4f}</td>' in text
        gap = row["accuracy"] - run_data.metrics["dense"]["accuracy"]
        assert f"<td>{gap:+.4f} ± {row['paired']['accuracy']:.4f}</td>" in text
    assert "✓: the best accuracy among the networks pruned to the same sparsity" in text


def test_metrics_of_an_earlier_release_get_their_noise_from_run_json(copy: Path) -> None:
    whole = read_json(copy / "metrics.json", checksum=True)
    earlier = {key: value for key, value in whole.items() if key not in ("examples", "departures")}
    for row in (earlier["dense"], *earlier["pruned"]):
        row.pop("half_width")
        row.pop("paired", None)
    write_json(copy / "metrics.json", earlier, checksum=True)
    metrics = RunData.open(copy).metrics
    assert metrics is not None
    assert headline(metrics) == headline({**earlier, **{key: whole[key] for key in ("examples", "departures")}})
    assert "±" in headline(metrics)[0]
    assert "one accuracy (binomial)" in noise_line(metrics)
    assert len(headline(earlier)) == 2, "nothing is said of departures"
    assert "±" not in headline(earlier)[0]


def test_accuracy_has_bars_where_the_number_of_examples_is_known() -> None:
    dense = {"accuracy": 0.9, "nll": 0.3}
    metrics = {"dense": dense, "pruned": [_row("magnitude", 0.89, 0.31)]}

    def bars(metrics: dict[str, object]) -> list[int]:
        return [len(ax.collections) for ax in draw([metrics], ("accuracy", "nll")).axes]

    assert bars(metrics) == [0, 0]
    assert bars({**metrics, "examples": 1000}) == [1, 0]


def test_an_rmse_has_the_bars_that_its_run_knows() -> None:
    metrics = _regression((0.5, 1.2, False))
    for row, half in ((metrics["dense"], 0.1), *((row, 0.2) for row in metrics["pruned"])):
        row["half_width"] = {"rmse": half}
    metrics["examples"] = 300
    panels = draw([metrics], ("rmse", "nll")).axes
    (bar,) = panels[0].collections[0].get_segments()
    np.testing.assert_allclose(bar[:, 1], [1.0, 1.4])
    assert not panels[1].collections
    figure = overlay({"one": metrics}).figure
    assert figure is not None
    assert len(figure.axes[0].collections) == 1


def test_a_running_mean_keeps_what_is_level_and_smooths_what_is_not() -> None:
    np.testing.assert_allclose(running_mean(np.full(50, 2.0)), 2.0)
    np.testing.assert_allclose(running_mean(np.arange(6.0)), [1, 1.5, 2, 3, 3.5, 4])
    rough = np.random.default_rng(0).normal(size=4000)
    assert running_mean(rough).std() < 0.15
    assert running_mean(np.ones(1)) == 1


def test_every_column_of_histograms_is_labelled(finished: Path) -> None:
    figure = inclusion_histograms(RunData.open(finished)).figure
    assert figure is not None
    drawn = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_xlabel() for ax in drawn[-2:]] == ["posterior inclusion probability"] * len(drawn[-2:])


def test_bands_end_inside_the_frame(finished: Path) -> None:
    figure = temperatures(RunData.open(finished)).figure
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    bands = [patch.get_bbox() for patch in figure.axes[0].patches]
    assert bands
    assert low < min(band.y0 for band in bands)
    assert max(band.y1 for band in bands) < high


def _row(criterion: str, accuracy: float, nll: float) -> dict[str, object]:
    named = {"criterion": criterion, "when": "post_hoc", "decision": "target", "target": 0.8, "sparsity": 0.8}
    return {**named, "accuracy": accuracy, "nll": nll, "ece": 0.02}


def test_a_failed_network_does_not_squeeze_the_others() -> None:
    """Random pruning at chance level: an arrow at the edge of the panels that it leaves, a point where it does not."""
    dense = {"accuracy": 0.9, "nll": 0.3, "ece": 0.01}
    metrics = {"dense": dense, "pruned": [_row("magnitude", 0.89, 0.31), _row("random", 0.1, 2.4)]}
    figure = draw([metrics], ("accuracy", "nll", "ece"))
    shapes = [
        [line.get_marker() for line in ax.lines if line.get_marker() in "v^" and len(line.get_xdata())]
        for ax in figure.axes
    ]
    assert shapes == [["v"], ["^"], []]
    assert figure.axes[0].get_ylim()[0] > 0.85
    assert figure.axes[1].get_ylim()[1] < 0.4
    assert "outside the panel" in [text.get_text() for text in figure.legends[0].get_texts()]
    metrics["pruned"] = [_row("magnitude", 0.89, 0.31), _row("random", 0.5, 1.2)]  # bad, but no failure
    assert draw([metrics], ("accuracy",)).axes[0].get_ylim()[0] < 0.5


def _regression(*pruned: tuple[float, float, bool]) -> dict[str, object]:
    """Metrics of a run of numbers, the dense RMSE 1; of each network the sparsity, the RMSE, and whether it starves."""
    named = {"criterion": "magnitude", "when": "post_hoc", "decision": "target"}
    rows = [
        {**named, "target": s, "sparsity": s, "rmse": rmse, "nll": rmse - 2, "starved": ["fc.weight"] * starved}
        for s, rmse, starved in pruned
    ]
    scores = {"scores": {"rmse": "RMSE", "nll": "NLL"}, "higher_is_better": False}
    return {**scores, "split": "test", "dense": {"rmse": 1.0, "nll": -1.0}, "pruned": rows}


def _crosses(figure: Figure, panel: int) -> list[tuple[float, float]]:
    crosses = [line for line in figure.axes[panel].lines if line.get_marker() == "x"]
    return [(round(float(x), 3), float(y)) for line in crosses for x, y in line.get_xydata()]


def test_every_mark_of_the_trade_off_says_what_it_is() -> None:
    """Where it is drawn; one that leaves the panel where its arrow is."""
    metrics = _regression((0.5, 1.2, False), (0.9, 9.0, True))
    metrics["pruned"][0]["half_width"] = {"rmse": 0.1}
    figure = draw([metrics], ("rmse", "nll"))
    marks = marks_of(figure, metrics, ("rmse", "nll"))
    assert [mark.text for mark in marks] == [
        "magnitude, post hoc, 50% (50.0% pruned): RMSE 1.2000 ± 0.1000",
        "magnitude, post hoc, 90% (90.0% pruned, starved): RMSE 9.0000",
        "magnitude, post hoc, 50% (50.0% pruned): NLL -0.8000",
        "magnitude, post hoc, 90% (90.0% pruned, starved): NLL 7.0000",
    ]
    panel = figure.axes[0]
    point = panel.transData.transform((0.5, 1.2)) / figure.bbox.size
    np.testing.assert_allclose([marks[0].left, 1 - marks[0].top], point)
    (arrow,) = [line for line in panel.lines if line.get_marker() == "^"]
    edge = panel.get_xaxis_transform().transform(arrow.get_xydata()[0]) / figure.bbox.size
    np.testing.assert_allclose([marks[1].left, 1 - marks[1].top], edge)


def test_starved_networks_are_crosses_that_set_no_axis() -> None:
    """Those that are not starved stay inside, at twice the dense error, too, and where all have failed."""
    metrics = _regression((0.5, 1.6, False), (0.7, 2.9, False), (0.8, 2.0, True), (0.9, 9.0, True))
    for figure in (draw([metrics], ("rmse", "nll")), overlay({"one": metrics}).figure):
        assert figure is not None
        for panel, shift in ((0, 0.0), (1, -2.0)):
            low, high = figure.axes[panel].get_ylim()
            assert low < 1.0 + shift < 2.9 + shift < high < 3.5 + shift
            assert _crosses(figure, panel) == [(0.2, 2.0 + shift), (0.1, 9.0 + shift)]
        assert "starved" in [text.get_text() for text in figure.legends[0].get_texts()]
    both = overlay({"one": metrics, "two": metrics})
    assert both.figure is not None
    crosses = [line for line in both.figure.axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    shades = dict(zip(("one", "two"), colours(2), strict=True))
    assert [line.get_color() for line in crosses] == [*shades.values()]
    named = {line.get_label(): line.get_color() for line in both.figure.legends[0].get_lines()}
    assert shades.items() <= named.items()
    assert "Crosses, in the colour of their run" in both.caption
    figure = draw([_regression((0.5, 5.0, False), (0.9, 50.0, True))], ("rmse",))
    assert 5.0 < figure.axes[0].get_ylim()[1] < 6.0
    figure = draw([_regression((0.5, 1.2, False), (0.7, 5.0, False))], ("rmse",))
    assert figure.axes[0].get_ylim()[1] < 1.5, "a factor that would hide all else"
    assert "starved" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_starved_row_is_marked_nowhere(finished: Path, copy: Path) -> None:
    metrics = read_json(copy / "metrics.json", checksum=True)
    marked = page(RunData.open(copy), []).count('<td class="best">')
    beside = write_comparison([finished, copy], copy / "page.html").read_text().count('<td class="best">')
    assert (marked > 0, beside) == (True, 2 * (1 + len(metrics["pruned"])))
    for row in metrics["pruned"]:
        row["starved"] = ["linear.weight"]
    write_json(copy / "metrics.json", metrics, checksum=True)
    assert '<td class="best">' not in page(RunData.open(copy), [])
    assert write_comparison([finished, copy], copy / "page.html").read_text().count('<td class="best">') == 2


def test_a_negative_loss_is_drawn_without_a_logarithm(copy: Path) -> None:
    """That of numbers may be: no warning, and the whole line."""
    run_data = RunData.open(copy)
    assert run_data.dense is not None
    assert (picture := training_trace(run_data)).figure is not None
    assert picture.figure.axes[0].get_yscale() == "log"
    for stage in run_data.stages:
        stage.tree["training"]["loss"] = stage.tree["training"]["loss"] - 100.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = training_trace(run_data)
    assert picture.figure is not None
    assert [ax.get_yscale() for ax in picture.figure.axes] == ["linear", "log", "linear"]
    assert picture.figure.axes[0].get_ylim()[1] < 0


def test_sizes_of_shrunk_networks(finished: Path) -> None:
    run_data = RunData.open(finished)
    assert "No mask has emptied a whole node" in page(run_data, [])  # a linear model has no inner nodes
    assert run_data.metrics is not None
    run_data.metrics["pruned"][0]["parameters"] = 785.0
    text = page(run_data, [])
    assert "<td>785</td><td>10.0%</td>" in text
    assert "<td>7,850</td><td>100.0%</td>" in text
    run_data.metrics["pruned"][0]["parameters"] = 7850.0
    run_data.metrics["not_shrinkable"] = "it cannot be traced"
    assert "This network cannot be cut: it cannot be traced" in page(run_data, [])


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
    mean, half = mean_and_half_width(np.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_allclose([mean[0], half[0]], [2.0, 4.302653 / np.sqrt(3)], rtol=1e-6)
    assert np.isnan(mean_and_half_width(np.array([[1.0]]))[1]).all()
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


def test_a_picture_that_fails_does_not_end_the_page(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(run: RunData) -> Picture:
        raise KeyError("<b>\\nsecond line")

    monkeypatch.setattr(write, "PICTURES", (broken, *write.PICTURES))
    text = write_report(copy).read_text()
    assert "This part could not be made (KeyError: " in text
    assert "<b>" not in text
    assert text.count("<img") == len(PICTURES)
    assert capsys.readouterr().err.startswith("broken: This part could not be made (KeyError")


def test_a_table_that_cannot_be_read_does_not_end_the_page(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = read_json(copy / "metrics.json")
    del metrics["diagnostics"]["hyperparameters"]  # as of a release before
    write_json(copy / "metrics.json", metrics)
    text = write_report(copy).read_text()
    assert "This part could not be made (KeyError: &#x27;hyperparameters&#x27;)" in text
    assert text.count("<img") == len(PICTURES)
    assert "Diagnostics: This part" in capsys.readouterr().err


def test_long_names_are_shown_short() -> None:
    assert shortened("fc1") == "fc1"
    assert shortened("x" * 300 + "end") == "x" * 18 + " ... " + "x" * 14 + "end"


def _other(copy: Path, **scores: float) -> Path:
    """That run as if its dense network had other scores."""
    metrics = read_json(copy / "metrics.json", checksum=True)
    write_json(copy / "metrics.json", {**metrics, "dense": {**metrics["dense"], **scores}}, checksum=True)
    return copy


def test_several_runs_stand_side_by_side(
    finished: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = read_json(finished / "metrics.json")
    cli.main(["report", str(finished), str(_other(copy, accuracy=0.1)), "--out", str(tmp_path / "new" / "page.html")])
    assert capsys.readouterr().out == f"comparison: {tmp_path / 'new' / 'page.html'}\n"
    text = (tmp_path / "new" / "page.html").read_text()
    assert "2 runs side by side" in text
    assert text.count("<img") == 1
    assert all(f"<li><b>{name}</b>: " in text for name in (finished.name, "copy"))
    assert escape(headline(metrics)[0]) in text
    half = f"{metrics['dense']['half_width']['accuracy']:.4f}"
    first = f"{metrics['dense']['accuracy']:.4f}"
    assert f'<td class="best">{first} ± {half}</td><td>0.1000 ± {half}</td>' in text
    assert text.count("<tr>") == 2 + len(metrics["pruned"]), "heading, dense, and every way of pruning once"
    assert "not judged on the same examples" not in text


def test_runs_on_other_examples_are_not_ranked(finished: Path, copy: Path, tmp_path: Path) -> None:
    metrics = read_json(copy / "metrics.json", checksum=True)
    write_json(copy / "metrics.json", {**metrics, "examples": 7}, checksum=True)
    text = write_comparison([finished, copy], tmp_path / "page.html").read_text()
    assert "These runs were not judged on the same examples" in text
    assert '<td class="best">' not in text


def test_runs_that_cannot_be_compared_are_refused_in_one_line(
    finished: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"

    def refusal(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(["report", *map(str, arguments)])
        error = capsys.readouterr().err
        assert (stop.value.code, error.count("\n")) == (2, 1)
        assert not out.exists()
        return error

    assert "report needs a run directory" in refusal()
    assert "--out is for several runs" in refusal(finished, "--out", out)
    assert "stands there twice" in refusal(finished, finished, "--out", out)
    assert "rep: a report is a page; name it rep.html" in refusal(finished, copy, "--out", "rep")
    assert "is not a run directory" in refusal(finished, tmp_path, "--out", out)
    metrics = read_json(copy / "metrics.json", checksum=True)
    write_json(copy / "metrics.json", {**metrics, "scores": {"accuracy": "accuracy"}}, checksum=True)
    assert "compare runs with the same scores" in refusal(finished, copy, "--out", out)
    (copy / "metrics.json").unlink()
    assert "has no metrics.json; finish it with `sgmcmc-prune resume" in refusal(finished, copy, "--out", out)


def test_names_of_runs_are_as_long_as_it_takes() -> None:
    assert names_apart([Path("/a/one"), Path("/a/two")]) == ["one", "two"]
    assert names_apart([Path("/a/x/run"), Path("/b/x/run"), Path("/b/y/run")]) == ["a/x/run", "b/x/run", "b/y/run"]


@pytest.mark.slow
def test_a_matplotlib_backend_that_does_not_exist_is_not_asked_for(copy: Path) -> None:
    command = [sys.executable, "-m", "sgmcmc_prune", "report", str(copy)]
    env = os.environ | {"MPLBACKEND": "nonsense"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert (copy / "report" / "index.html").read_text().count("<img") == len(PICTURES)


def test_a_legend_has_as_many_columns_as_its_figure_is_wide_enough_for() -> None:
    for width, expected in ((4.0, 2), (12.0, 3), (1.0, 1)):
        figure = new_figure(width, 3.0)
        legend_below(figure, [line(f"a name of some length {i}") for i in range(6)], 3)
        (legend,) = figure.legends
        assert legend._ncols == expected
        assert legend.get_window_extent().width <= figure.bbox.width or expected == 1
