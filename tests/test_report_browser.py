"""The pages of `report` in a browser: no error on the console, no page wider than its window, tables that sort."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from browser import look, needs_chromium

from sgmcmc_prune.report import markup
from sgmcmc_prune.report.style import Picture, new_figure, png

pytestmark = needs_chromium


def write(path: Path, parts: Sequence[str]) -> Path:
    """A page of our own."""
    path.write_text(markup.document("a page", parts))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that may be wide: a table, a figure, one long word, a configuration."""
    figure = new_figure(8, 3)
    figure.subplots(1, 2)
    picture = Picture("wide", "A wide picture", "Its caption.", "Two empty panels.", figure)
    header = ["method", "when", "decision", "sparsity", "accuracy", *(f"a long heading {n}" for n in range(8))]
    numbers = [("97.5%", "0.9"), ("median", "1,000"), ("80%", "-"), ("fdr 0.1", "-0.05")]
    rows = [["magnitude", "post hoc", decided, "9%", score, *["0.1"] * 8] for decided, score in numbers]
    parts = [
        markup.opening("x" * 200, ["A verdict.", "Another sentence."], "small"),
        markup.section("A picture", markup.figure(picture, png(figure))),
        markup.section("Results", markup.table("Results", header, *rows, best={(0, 4)})),
        markup.section("Facts", markup.facts_table("Facts", {"machine": "y" * 300}), folded=True),
        markup.section("Configuration", f"<pre>{'z' * 300}</pre>", folded=True),
        markup.items(["w" * 300]),
    ]
    return write(tmp_path_factory.mktemp("page") / "page.html", parts)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window_and_nothing_fails(path: Path, width: int, dark: bool) -> None:
    found, console = look(path, width, dark)
    assert found["window"] == width
    assert found["page"] <= width
    assert found["bars"][:2] == ([8, 8] if width == 390 else [0, 8]), "what is wider than the window has a bar"
    assert console == []
    assert found["background"] == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")


def test_tables_sort_both_ways_numbers_as_numbers_and_what_is_missing_last(path: Path) -> None:
    found, _ = look(path)
    assert {marked for marked, *_ in found["sorted"]} == {1}, "one heading says that it sorts, whichever was pressed"
    assert found["sorted"][4][1:] == [
        ["ascending", ["-0.05", "0.9", "1,000", "-"]],
        ["descending", ["1,000", "0.9", "-0.05", "-"]],
    ]
    assert found["sorted"][2][1] == ["ascending", ["80%", "97.5%", "fdr 0.1", "median"]]


def test_the_probe_sees_what_is_wrong(tmp_path: Path) -> None:
    """An error and an overflow that were put there."""
    wide = write(tmp_path / "wide.html", ['<div style="width: 900px">wide</div><script>nothing.there</script>'])
    found, console = look(wide, 390)
    assert found["page"] >= 900
    assert len(console) == 1
    assert "nothing is not defined" in console[0]
