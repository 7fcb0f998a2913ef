"""The HTML page: the verdict, the trade-off, the tables; folded, the details. Nothing is fetched."""

import json
import sys
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from sgmcmc_prune.predictive.metrics import SHARES
from sgmcmc_prune.report import markup
from sgmcmc_prune.report.facts import facts
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.style import Picture
from sgmcmc_prune.run.headline import best_rows, headline, noise_line
from sgmcmc_prune.run.tables import (
    CLASSES,
    NAMED,
    control_lines,
    diagnostics_lines,
    in_chain_lines,
    metrics_rows,
    ood_lines,
    size_rows,
    starved_lines,
    tied_lines,
    unit_lines,
)
from sgmcmc_prune.settings import to_json
from sgmcmc_prune.text_table import counted

#: The picture that is not folded: what pruning costs.
FIRST = "sparsity"
SHRUNK = (
    "What is left of a network when nodes that are constant or that nobody reads are cut out (pruning.shrink), which "
    "changes none of its outputs: parameters, and multiply-adds for one input, the average over chains. Weights that "
    "are masked inside nodes that stay still count."
)
NOT_SHRUNK = (
    "No mask has emptied a whole node, so that no network can be made physically smaller: masked weights are zeros "
    "that a dense matrix product multiplies all the same. prior.group node, filter or head masks whole ones."
)


def page(run: RunData, pictures: Sequence[tuple[Picture, bytes | None]]) -> str:
    """Write the whole page; a picture without PNG bytes is a sentence."""
    title = f"sgmcmc_prune: {run.config.preset}, seed {run.config.seed}"
    config = json.dumps(to_json(run.config), indent=2)
    departures = run.info.get("departures")
    count = f" ({len(departures)})" if departures else ""
    first = [drawn for drawn in pictures if drawn[0].name == FIRST]
    others = [drawn for drawn in pictures if drawn[0].name != FIRST]
    parts = [
        _opening(title, run),
        _unfinished(run),
        *map(_picture_section, first),
        _tried("Results", _table, run),
        _tried("Physically smaller networks", _sizes, run),
        '<h2 class="details">Details</h2>',
        _tried(f"Departures from the posterior{count}", _departures, run, folded=True),
        _tried("Diagnostics", _diagnostics, run, folded=True),
        _tried("What was run", _facts, run, folded=True),
        *[_picture_section(drawn, folded=True) for drawn in others],
        markup.section("Configuration", f"<pre>{escape(config)}</pre>", folded=True),
    ]
    return markup.document(title, parts)


def failed(error: Exception) -> str:
    """What stands where a part of the page could not be made."""
    return f"This part could not be made ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})."


def _opening(title: str, run: RunData) -> str:
    """The verdict as headline; before there is one, the run's name."""
    about = f"{title}, {run.config.model.name} on {run.config.data.name}"
    if run.metrics is None:
        return f"<header><h1>{escape(about)}</h1></header>"
    try:
        return markup.opening(about, headline(run.metrics), noise_line(run.metrics))
    except Exception as error:
        print(f"Headline: {failed(error)}", file=sys.stderr)
        return f"<header><h1>{escape(about)}</h1>{markup.note(failed(error))}</header>"


def _tried(title: str, make: Callable[[RunData], str], run: RunData, folded: bool = False) -> str:
    """A section; where it cannot be made, as from files of another release, it says so and the page goes on."""
    try:
        return markup.section(title, make(run), folded)
    except Exception as error:
        print(f"{title}: {failed(error)}", file=sys.stderr)
        return markup.section(title, markup.note(failed(error)))


def _picture_section(drawn: tuple[Picture, bytes | None], folded: bool = False) -> str:
    """A picture under its title; one that there is not is a sentence, and not worth folding."""
    picture, png = drawn
    return markup.section(picture.title, markup.figure(picture, png), folded and png is not None)


def _unfinished(run: RunData) -> str:
    if run.finished:
        return ""
    status = run.info.get("status", "not started")
    error = f" ({run.info['error']})" if run.info.get("error") else ""
    return markup.note(
        f"This run is not finished: its status is {status}{error}. The page shows what has been written so far."
    )


def _facts(run: RunData) -> str:
    return markup.facts_table("What was run", facts(run))


def _departures(run: RunData) -> str:
    lines = run.info.get("departures")
    if lines is None:
        return "<p>Not recorded yet.</p>"
    unread = run.info.get("unread")
    told = "<p>Settings that were given and that nothing reads:</p>" + markup.items(unread) if unread else ""
    if not lines:
        return "<p>None recorded.</p>" + told
    because = "<p>The draws are not exact draws from the stated posterior, for these reasons:</p>"
    return because + markup.items(lines) + told


def _table(run: RunData) -> str:
    """The table, and under it what its marks and warnings mean."""
    if run.metrics is None:
        return "<p>Not evaluated yet.</p>"
    metrics = run.metrics
    best = {(1 + place, len(NAMED)) for place in best_rows(metrics)}
    lines = [
        *_interval_lines(metrics),
        *_mark_lines(metrics, bool(best)),
        *unit_lines(metrics),
        *control_lines(metrics),
        *in_chain_lines(metrics),
        *ood_lines(metrics),
    ]
    lines += [*starved_lines(metrics), *tied_lines(metrics)]
    header, *rows = metrics_rows(metrics)
    return (
        markup.paragraphs([f"On the {metrics['split']} split; one seed, so no interval over seeds."])
        + markup.table("Results", header, *rows, best=best)
        + markup.paragraphs(lines, "small")
    )


def _mark_lines(metrics: dict[str, Any], marked: bool) -> list[str]:
    """What the mark in the first score's column means."""
    if not marked:
        return []
    first = next(iter(metrics.get("scores", CLASSES).values()))
    return [
        f"✓: the best {first} among the networks pruned to the same sparsity, and every other one that the noise "
        f"of {counted(metrics['examples'], 'example')} does not tell from it (half of the 95 % interval of the best "
        "one). Starved networks are not compared."
    ]


def _interval_lines(metrics: dict[str, Any]) -> list[str]:
    """What stands after ±, where something does."""
    half = metrics["dense"].get("half_width", {})
    if not half:
        return []
    shares = bool(half.keys() & set(SHARES))
    ways = [
        *(["of a share (accuracy, coverage) the larger side of Wilson's"] if shares else []),
        *(["of an RMSE by the delta method"] if "rmse" in half else []),
        "of a mean Student's",
        f"of a difference from the dense network Student's, paired by example{' (of a share normal)' * shares}",
    ]
    where = counted(metrics["examples"], f"{metrics['split']} example")
    return [
        f"± in the table: half of the 95 % interval over {where}, {'; '.join(ways)}. It says nothing of other seeds."
    ]


def _sizes(run: RunData) -> str:
    """How much smaller the pruned networks are when nodes without a purpose are cut out."""
    if run.metrics is None:
        return "<p>Not evaluated yet.</p>"
    rows = size_rows(run.metrics)
    if rows:
        return markup.paragraphs([SHRUNK]) + markup.table("Physically smaller networks", *rows)
    if "not_shrinkable" not in run.metrics:
        return "<p>Not measured when this run was evaluated; sgmcmc-prune resume evaluates it again.</p>"
    reason = run.metrics["not_shrinkable"]
    return markup.paragraphs([f"This network cannot be cut: {reason}" if reason else NOT_SHRUNK])


def _diagnostics(run: RunData) -> str:
    return "<p>Not evaluated yet.</p>" if run.metrics is None else markup.items(diagnostics_lines(run.metrics))
