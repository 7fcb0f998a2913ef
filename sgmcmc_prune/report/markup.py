"""Pieces of a self-contained HTML page: its frame, tables that sort, pictures, folded sections. Nothing is fetched."""

import base64
import re
from collections.abc import Collection, Sequence
from html import escape

from sgmcmc_prune.report.style import Mark, Picture

CSS = """
:root { color-scheme: light dark; --text: #222; --quiet: #555; --page: #fff; --rule: #ddd; --card: #f6f6f6;
  --note: #fff6e0; --shade: #0004; --best: #e3f3ea; --accent: #0b6b4b; --link: #0059a3; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --quiet: #aaa; --page: #16181b; --rule: #3a3e44;
  --card: #22252a; --shade: #fff5; --note: #3a3118; --best: #17382a; --accent: #7fd6b0; --link: #8cc4ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 70rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
p, li, h1, figcaption { max-width: 54rem; }
h1 { font-size: 1.6rem; line-height: 1.3; margin: .3rem 0 .6rem; text-wrap: pretty; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.about { color: var(--quiet); margin: 0; } .verdict { font-size: 1.1rem; margin: .3rem 0; }
.small { font-size: .85rem; color: var(--quiet); }
/* What is wider than its box has a shadow where it goes on (a cover of the page's colour scrolls away from it), and a
   scroll bar that stays: a picture hides the shadow. */
.wide { overflow-x: auto; max-width: 100%; background:
  linear-gradient(to right, var(--page) 1.2rem, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--page) 1.2rem, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / 1rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat scroll; }
.wide::-webkit-scrollbar { height: 8px; }
.wide::-webkit-scrollbar-track { background: var(--card); border-radius: 4px; }
.wide::-webkit-scrollbar-thumb { background: var(--quiet); border-radius: 4px; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--rule); vertical-align: bottom; white-space: pre; }
th.text, td.text { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
th button::after { content: "\\2195"; opacity: .35; display: inline-block; width: 1em; text-align: center; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
tbody tr:hover { background: var(--card); }
td.best { background: var(--best); color: var(--accent); font-weight: 600; }
td.best::before { content: "\\2713\\00a0"; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts th { text-align: left; vertical-align: top; }
.note { background: var(--note); border-left: 4px solid #E69F00; padding: .5rem 1rem; }
details { border-top: 1px solid var(--rule); } details:last-of-type { border-bottom: 1px solid var(--rule); }
summary { cursor: pointer; padding: .6rem 0; } summary h2 { display: inline; font-size: 1.05rem; }
details > :last-child { margin-bottom: 1.2rem; }
figure { margin: 0; } figcaption { font-size: .9rem; color: var(--quiet); margin-top: .4rem; }
img { max-width: 100%; height: auto; display: block; background: #fff; border-radius: 6px; }
.plot { position: relative; width: fit-content; max-width: 100%; }
.mark { position: absolute; width: 14px; height: 14px; margin: -7px; border-radius: 50%; }
.mark:hover, .mark:focus { outline: 2px solid currentColor; z-index: 1; color: #222; }
.mark:hover::after, .mark:focus::after { content: attr(aria-label); position: absolute; top: 18px; left: 0;
  width: 13rem; padding: .3rem .5rem; border-radius: 4px; background: #222; color: #fff; font-size: .8rem;
  pointer-events: none; }
.mark.rightmost::after { left: auto !important; right: 0; }
@media (max-width: 40rem) { body { padding: .75rem; } h1 { font-size: 1.3rem; } .verdict { font-size: 1rem; }
  table { font-size: .8rem; } th, td { padding: .25rem .22rem; } td.text { white-space: normal; }
  th button::after { width: .7em; } }
pre { overflow-x: auto; font-size: .8rem; background: var(--card); padding: .5rem; }
"""

#: Numbers are compared as numbers, whatever else as text after them, and what is missing comes last both ways.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], headers = [...table.tHead.rows[0].cells];
  const numeric = /^[+-]?[\\d,]*\\.?\\d+ ?%?( ± [\\d.,]+)?$/;
  const number = text => numeric.test(text) ? parseFloat(text.replaceAll(",", "")) : NaN;
  const missing = text => text === "" || text === "-";
  const compare = (a, b, sign) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const x = number(a), y = number(b);
    if (isNaN(x) !== isNaN(y)) return isNaN(x) - isNaN(y);
    return sign * (isNaN(x) ? a.localeCompare(b) : x - y);
  };
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const text = row => row.cells[column].textContent.trim();
    body.append(...[...body.rows].sort((a, b) => compare(text(a), text(b), sign)));
  }));
}
"""
#: CSS pixels for an inch of a figure under which its labels, of eight points, cannot be read.
READABLE = 72
NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+ ?%?( ± [\d.,]+)?|-|")


def document(title: str, parts: Sequence[str]) -> str:
    """Write a page of parts; empty ones are left out."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{CSS}</style>'
    body = "\n".join(part for part in parts if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n<main>\n{body}\n</main>\n'
        f"<script>{SCRIPT}</script>\n</body></html>\n"
    )


def opening(about: str, sentences: Sequence[str], small: str = "") -> str:
    """The top of a page: what it is about, the sentence to remember, and those that belong to it."""
    first, *others = sentences
    rest = f'<p class="verdict">{escape(" ".join(others))}</p>' if others else ""
    below = f'<p class="small">{escape(small)}</p>' if small else ""
    return f'<header><p class="about">{escape(about)}</p>\n<h1>{escape(first)}</h1>\n{rest}{below}</header>'


def section(title: str, body: str, folded: bool = False) -> str:
    """A section under its heading, or one that opens when its heading is clicked."""
    if folded:
        return f"<details><summary><h2>{escape(title)}</h2></summary>\n{body}</details>"
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def paragraphs(texts: Sequence[str], kind: str = "") -> str:
    """One paragraph for each text."""
    return "".join(f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>" for text in texts)


def note(text: str) -> str:
    """A paragraph that stands out."""
    return f'<p class="note">{escape(text)}</p>'


def items(texts: Sequence[str]) -> str:
    """A list of sentences."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def table(
    title: str, header: Sequence[str], *rows: Sequence[str], best: Collection[tuple[int, int]] = frozenset()
) -> str:
    """A table that sorts by the column whose heading is pressed, in a box of its own that scrolls sideways.

    Parameters
    ----------
    title : str
        What the box is called where it is read aloud.
    header, *rows : sequence of str
        Columns in which every cell is a number stand to the right. A heading may have several lines.
    best : collection of (int, int)
        Row and column of the cells that are marked.
    """
    kinds = [' class="text"' if any(not NUMBER.fullmatch(row[i]) for row in rows) else "" for i in range(len(header))]
    kinds = [kind if name not in ("decision", "sparsity") else "" for kind, name in zip(kinds, header, strict=True)]
    head = "".join(
        f'<th scope="col"{kind}><button type="button">{escape(name)}</button></th>'
        for kind, name in zip(kinds, header, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(_cell(cell, ' class="best"' if (r, c) in best else kinds[c]) for c, cell in enumerate(row))
        + "</tr>\n"
        for r, row in enumerate(rows)
    )
    inner = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return _wide(title, inner)


def facts_table(title: str, facts: dict[str, str]) -> str:
    """A table of two columns: names and what they are."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in facts.items()
    )
    return _wide(title, f'<table class="facts"><tbody>{rows}</tbody></table>')


def figure(picture: Picture, png: bytes | None) -> str:
    """A picture and its caption; without PNG bytes the caption alone."""
    if png is None:
        return f"<p>{escape(picture.caption)}</p>"
    data = base64.b64encode(png).decode()
    # On a phone it scrolls in its box before its words become too small to read.
    least = f' style="min-width: {READABLE * picture.figure.get_figwidth():.0f}px"' if picture.figure else ""
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(picture.alt)}">{"".join(map(_mark, picture.marks))}'
    image = f'<div class="plot"{least}>{image}</div>'
    return f"<figure>{_wide(picture.title, image)}<figcaption>{escape(picture.caption)}</figcaption></figure>"


def _mark(mark: Mark) -> str:
    """A point that says what it is where the pointer or the keyboard is on it, on the side where there is room."""
    place = f"left: {mark.left:.2%}; top: {mark.top:.2%}"
    side = " rightmost" if mark.left > 0.5 else ""
    return f'<span class="mark{side}" style="{place}" tabindex="0" role="img" aria-label="{escape(mark.text)}"></span>'


def _cell(text: str, kind: str) -> str:
    return f"<td{kind}>{escape(text)}</td>"


def _wide(title: str, inner: str) -> str:
    """A box that scrolls sideways, also by keyboard."""
    return f'<div class="wide" role="region" aria-label="{escape(title)}" tabindex="0">{inner}</div>'
