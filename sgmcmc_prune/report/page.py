"""The HTML page: what was run, what it departs from, the table, the diagnostics, the pictures. Nothing is fetched."""

import base64
import json
import sys
from collections.abc import Callable, Sequence
from html import escape

from sgmcmc_prune.report.facts import facts
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.style import Picture
from sgmcmc_prune.run.tables import diagnostics_lines, metrics_rows, ood_lines, size_rows, starved_lines, tied_lines
from sgmcmc_prune.settings import to_json

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 54rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.facts td { text-align: left; white-space: normal; } .facts th { text-align: left; vertical-align: top; }
.note { background: #fff6e0; border-left: 4px solid #E69F00; padding: .5rem 1rem; }
figure { margin: 0; } img { max-width: 100%; height: auto; } figcaption { font-size: .9rem; color: #444; }
pre { overflow-x: auto; font-size: .8rem; background: #f6f6f6; padding: .5rem; }
"""

SHRUNK = (
    "What is left of a network when nodes that are constant or that nobody reads are cut out (pruning.shrink), which "
    "changes none of its outputs: parameters, and multiply-adds for one input, the average over chains. Weights that "
    "are masked inside nodes that stay still count."
)
NOT_SHRUNK = (
    "No mask has emptied a whole node, so that no network can be made physically smaller: masked weights are zeros "
    "that a dense matrix product multiplies all the same. prior.group node or filter masks whole nodes."
)


def page(run: RunData, pictures: Sequence[tuple[Picture, bytes | None]]) -> str:
    """Write the whole page; a picture without PNG bytes is a sentence."""
    title = f"sgmcmc_prune: {run.config.preset}, seed {run.config.seed}"
    config = json.dumps(to_json(run.config), indent=2)
    parts = [
        f"<h1>{escape(title)}</h1>",
        _unfinished(run),
        _tried("What was run", _facts, run),
        _tried("Departures from the posterior", _departures, run),
        _tried("Results", _table, run),
        _tried("Physically smaller networks", _sizes, run),
        _tried("Diagnostics", _diagnostics, run),
        *[_section(picture.title, _figure(picture, png)) for picture, png in pictures],
        f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(part for part in parts if part)
    head += f"<title>{escape(title)}</title><style>{CSS}</style>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def failed(error: Exception) -> str:
    """What stands where a part of the page could not be made."""
    return f"This part could not be made ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})."


def _tried(title: str, make: Callable[[RunData], str], run: RunData) -> str:
    """A section; where it cannot be made, as from files of another release, it says so and the page goes on."""
    try:
        body = make(run)
    except Exception as error:
        body = f'<p class="note">{escape(failed(error))}</p>'
        print(f"{title}: {failed(error)}", file=sys.stderr)
    return _section(title, body)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def _unfinished(run: RunData) -> str:
    if run.finished:
        return ""
    status = run.info.get("status", "not started")
    error = f" ({run.info['error']})" if run.info.get("error") else ""
    text = f"This run is not finished: its status is {status}{error}. The page shows what has been written so far."
    return f'<p class="note">{escape(text)}</p>'


def _facts(run: RunData) -> str:
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in facts(run).items())
    return f'<div class="wide"><table class="facts">{rows}</table></div>'


def _departures(run: RunData) -> str:
    lines = run.info.get("departures")
    if lines is None:
        return "<p>Not recorded yet.</p>"
    if not lines:
        return "<p>None recorded.</p>"
    items = "".join(f"<li>{escape(text)}</li>" for text in lines)
    return f"<p>The draws are not exact draws from the stated posterior, for these reasons:</p><ul>{items}</ul>"


def _table(run: RunData) -> str:
    if run.metrics is None:
        return "<p>Not evaluated yet.</p>"
    lines = [f"On the {run.metrics['split']} split; one seed, so no interval over seeds."]
    lines += [*ood_lines(run.metrics), *starved_lines(run.metrics), *tied_lines(run.metrics)]
    return "".join(f"<p>{escape(text)}</p>" for text in lines) + _html_table(*metrics_rows(run.metrics))


def _sizes(run: RunData) -> str:
    """How much smaller the pruned networks are when nodes without a purpose are cut out."""
    if run.metrics is None:
        return "<p>Not evaluated yet.</p>"
    rows = size_rows(run.metrics)
    if rows:
        return f"<p>{escape(SHRUNK)}</p>" + _html_table(*rows)
    if "not_shrinkable" not in run.metrics:
        return "<p>Not measured when this run was evaluated; sgmcmc-prune resume evaluates it again.</p>"
    reason = run.metrics["not_shrinkable"]
    return f"<p>{escape(f'This network cannot be cut: {reason}' if reason else NOT_SHRUNK)}</p>"


def _html_table(header: Sequence[str], *rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _diagnostics(run: RunData) -> str:
    if run.metrics is None:
        return "<p>Not evaluated yet.</p>"
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in diagnostics_lines(run.metrics)) + "</ul>"


def _figure(picture: Picture, png: bytes | None) -> str:
    if png is None:
        return f"<p>{escape(picture.caption)}</p>"
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}">'
    return f"<figure>{image}<figcaption>{escape(picture.caption)}</figcaption></figure>"
