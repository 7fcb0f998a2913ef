"""`sgmcmc-prune reproduce`: settings against the papers', pages and figures against results, and its one command."""

import ast
import importlib
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from experiments import figures, gallery, papers, reproduce
from experiments.papers import Claim, Results, Script, ahead, every, number, settings
from experiments.reproduce import PAPERS, committed, find
from experiments.shared import ROOT
from sgmcmc_prune.cli import Reproduce, main
from sgmcmc_prune.store.files import read_json

#: What selects a row of a file of results, rather than being a result.
SELECTORS = {"seed", "target", "split", "design", "relevant", "must_fail", "epochs"}


@pytest.mark.parametrize("name", PAPERS)
def test_every_difference_from_a_papers_settings_has_its_reason(name: str) -> None:
    """Field by field; `settings` refuses a difference without a reason, and a reason without a difference."""
    found = settings(name, find(name))
    assert all(row.reason for rows in found.values() for row in rows if row.departs)
    assert {claim.about for claim in (*find(name).claims, *find(name).numbers) if claim.about} <= found.keys()


@pytest.mark.parametrize(("field", "value"), [("batch", 512), ("momentum", 0.8)])
def test_a_setting_that_comes_to_differ_is_refused(
    field: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new difference lacks its reason (batch); one that goes away (momentum of example 2) leaves one behind."""
    table = json.loads(papers.SETTINGS.read_text())
    for places in table["ke-fan"]["example 2"].values():
        if field in places and "epochs" not in places.get("departures", {}):
            places[field] = value if not isinstance(places[field], str) else places[field]
    monkeypatch.setattr(papers, "SETTINGS", tmp_path / "settings.json")
    papers.SETTINGS.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=f"ke-fan, example 2: reasons and departures do not agree on {field}"):
        settings("ke-fan", find("ke-fan"))


def test_the_committed_pages_are_those_of_the_committed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are equal, and every figure that is listed is there as PNG and PDF, drawn from these very results."""
    stems: dict[str, str] = {}
    monkeypatch.setattr(reproduce, "save", lambda figure, stem, source: stems.update({stem.name: source}))
    monkeypatch.setattr(
        reproduce, "find", lambda name, find=find: replace(find(name), figures=list(map(_undrawn, find(name).figures)))
    )
    monkeypatch.setattr(gallery, "find", reproduce.find)
    gallery.write(tmp_path)
    pages = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.md"))
    assert pages == sorted(path.relative_to(gallery.GALLERY) for path in gallery.GALLERY.rglob("*.md"))
    for page in pages:
        made, kept = ((folder / page).read_text() for folder in (tmp_path, gallery.GALLERY))
        assert made == kept, "run python -m experiments.gallery"
    pictures = {path.name: path for path in gallery.GALLERY.rglob("*.p*")}
    assert pictures.keys() == {f"{stem}{ending}" for stem in stems for ending in (".png", ".pdf")}
    for name, path in pictures.items():
        assert stems[path.stem].encode() in path.read_bytes(), f"{name} was drawn from other results"
    shown = (gallery.GALLERY / "index.md").read_text()
    assert sorted(re.findall(r'src="[^"]*/(\w+)\.png"', shown)) == sorted(stems)


def _undrawn(figure: papers.Figure) -> papers.Figure:
    return replace(figure, draw=lambda content: None)


def _changed(value: Any, key: str = "") -> Any:
    """The same results with other numbers."""
    if isinstance(value, dict):
        kept = {"sparsity"} if isinstance(value.get("score"), str) else set()  # of a mask, which it selects
        return {k: v if k in kept else _changed(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_changed(each, key) for each in value]
    if key in SELECTORS or isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else 0.9 * value + 0.01


def _exact(content: Any) -> Any:
    """The same results, had every run found the relevant inputs and no others."""
    for run in content.get("runs", ()):
        run |= {"true_positives": run.get("relevant", 5), "false_positives": 0}
    return content


def test_no_number_of_ours_stands_without_its_results() -> None:
    read = 0
    for name in PAPERS:
        results = Results(committed(find(name)))
        for claim in (*find(name).claims, *find(name).numbers):
            path = results.path(claim.results) if claim.results else None
            ours = results.read(claim)
            if path is None or ours is None:
                assert claim.owed, claim.text
                continue
            read += 1
            others = [claim.read(make(read_json(path))) for make in (_changed, _exact)]
            assert any(other is not None and other.text != ours.text for other in others), claim.text
    assert read > 50


def test_a_verdict_takes_two_seeds_and_an_interval_that_excludes_no_difference() -> None:
    low, high = {0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.5, 1: 0.61, 2: 0.7}
    for better, worse, lower in ((high, low, False), (low, high, True)):
        found = (ahead(better, worse, 2, lower), ahead(worse, better, 2, lower))
        assert [each and each.holds for each in found] == [True, False]
    one, open_ = ahead({0: 0.5}, {0: 0.1}, 2), ahead({0: 0.1, 1: 0.3}, {0: 0.2, 1: 0.1}, 2)
    assert one is not None
    assert open_ is not None
    assert (one.holds, open_.holds) == (None, None)
    assert (one.text, one.difference) == ("0.50 against 0.10 (1 seed)", "+0.40")
    behind = ahead(low, high, 2)
    assert behind is not None
    assert behind.text == "0.20 ± 0.25 against 0.60 ± 0.25 (3 seeds)"
    assert behind.difference == "-0.40 ± 0.01"
    assert ahead({0: 1.0}, {1: 1.0}, 2) is number({}, 2) is every([], "x") is None
    assert [every(found, "x").holds for found in ([True] * 3, [True, False], [True])] == [True, False, None]  # type: ignore[union-attr]


def test_the_distance_from_the_authors_is_ours_minus_theirs() -> None:
    ours = number({0: 0.5, 1: 0.7}, 3)
    assert ours is not None
    assert ours.text == "0.600 ± 1.271 (2 seeds)"
    assert reproduce.from_authors(Claim("x", figure=0.8), ours) == "-0.2000 ± 1.2706"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nonsense"], "there is no paper 'nonsense'; choose one of ke-fan, markovic, dhahri, jantre, saha, deng, sun"),
        (["ke-fan", "--jobs", "0"], "jobs is 0; it must be at least 1"),
        (["ke-fan", "--budget", "paper"], "ke-fan at --budget paper needs CIFAR-10, CIFAR-100, ImageNet; give"),
        (["deng"], "deng at --budget desk needs CIFAR-10; give the folder that holds it as --data-dir"),
        (["dhahri", "--data-dir", "."], "no script of dhahri takes --data-dir; leave it out"),
        (["saha", "--device", "cuda"], "no script of saha takes --device; leave it out"),
        (["deng", "--data-dir", "/nowhere"], "--data-dir is /nowhere, which is no folder"),
        (["saha", "--figures-only", "--seeds", "1"], "nothing is run with --figures-only; leave --seeds out"),
        (["saha", "--figures-only", "--jobs", "2"], "nothing is run with --figures-only; leave --jobs out"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", *options, "--out", str(tmp_path)])
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith(f"sgmcmc-prune: {said}")
    assert not list(tmp_path.iterdir())


def test_outside_a_clone_the_command_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", "ke-fan"])
    assert capsys.readouterr().err == (
        "sgmcmc-prune: the papers' scripts are in a clone of the repository; change into its folder and try again\n"
    )


def test_a_paper_from_cells_to_page_and_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tiny cell of one script: computed once, drawn, on the page, and judged by it alone."""
    examples, example1 = (importlib.import_module(f"experiments.ke_fan.{name}") for name in ("examples", "example1"))
    run = partial(examples.main, example1.SETTINGS)
    tiny = Script("ke_fan.example1", run, "--tiny --control-seeds --out {out}", None)
    listing = replace(find("ke-fan"), scripts=[tiny], figures=find("ke-fan").figures[:1])
    monkeypatch.setattr(reproduce, "find", lambda name: listing)
    monkeypatch.chdir(ROOT)
    call = ["reproduce", "ke-fan", "--seeds", "3", "--out", str(tmp_path)]
    main(call)
    page = tmp_path / "ke-fan-desk" / "index.md"
    results = page.parent / "results" / "ke_fan_example1.json"
    (score,) = [run["score"] for run in read_json(results)["runs"]]
    assert f"| {score:.4f} (1 seed) | {score - 1.1079:+.4f} |" in page.read_text()
    assert "- `results/ke_fan_example1.json` (this run)" in page.read_text()
    assert "- `experiments/ke_fan/results/ke_fan_example2.json` (committed)" in page.read_text()
    assert f"[1 of 1] python -m experiments.ke_fan.example1 --tiny --control-seeds --out {results.parent}" in (
        capsys.readouterr().out
    )
    for ending, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        assert (page.parent / f"ke_fan_example1{ending}").read_bytes().startswith(start)
    written = results.stat().st_mtime_ns
    main(call)
    assert results.stat().st_mtime_ns == written


def test_the_help_names_every_paper() -> None:
    assert all(re.search(rf"\b{name}\b", inspect.getsource(Reproduce)) for name in PAPERS)


def test_a_method_has_one_colour_and_none_of_its_neighbours() -> None:
    for folder, listed in (
        ("ke_fan", ("ours", "no EM", "no noise", "true inputs")),
        ("markovic", ("flat-map", "flat-ff", "tiered-ff", "bmr-spike-slab", "bmr-horseshoe")),
        ("dhahri", ("MAP", "scalar", "layerwise", "unitwise", "parameterwise")),
        ("dhahri", ("OPD", "OBD", "magnitude", "random")),
        ("jantre", ("mean_field", "ss_ig", "ss_gl", "ss_ghs", "svbnn")),
        ("saha", importlib.import_module("experiments.saha.features").METHODS),
    ):
        assert len({figures.COLOURS[method] for method in listed}) == len(listed), folder


def test_seeds_and_splits_are_lists_in_every_script() -> None:
    """Every option of that name takes one integer or more: `--seeds 5` is seed 5 everywhere."""
    found = 0
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            if name in ("--seeds", "--splits", "--control-seeds"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given["type"] == "int", path
                assert given["nargs"] in ("'+'", "'*'"), path
                found += 1
    assert found >= 5


def _run(seed: int, accuracy: float, targets: Sequence[float], official: bool) -> dict[str, Any]:
    """What a run leaves, as far as a listing reads it."""
    scores = {"accuracy": accuracy + 0.001 * seed, "nll": 0.3}
    pruned = [{"when": "in_chain", "target": target, **scores} for target in targets]
    return {"seed": seed, "data": {"official": official}, "dense": scores, "pruned": pruned}


@pytest.mark.parametrize("name", ["deng", "sun", "csgmcmc", "wenzel", "izmailov"])
def test_what_a_script_after_the_literature_leaves_is_read_and_drawn(name: str) -> None:
    """The first variant is the best here; of images that are not the official ones no number is read."""
    listing = find(name)
    experiment = importlib.import_module(f"experiments.{listing.scripts[0].module}").EXPERIMENT
    targets = experiment.paper.get("prune.targets", ())
    for official in (True, False):
        content = {
            variant: [_run(seed, 0.95 - 0.01 * place, targets, official) for seed in (0, 1)]
            for place, variant in enumerate(experiment.variants)
        }
        found = [claim.read(content) for claim in (*listing.claims, *listing.numbers) if claim.results]
        assert (None in found) == (not official or name == "wenzel")  # that T = 1 is worse than SGD has no reader yet
        assert any(found) == official
        for figure in listing.figures:
            assert all(axes.get_xlabel() for axes in figure.draw(content).axes)
