"""Several runs on one page: what each found, one figure, and their rows side by side."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from sgmcmc_prune.report import markup
from sgmcmc_prune.report.overlay import overlay
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.sparsity import Metrics
from sgmcmc_prune.report.style import png
from sgmcmc_prune.report.write import require_page
from sgmcmc_prune.run.headline import headline, noise_line, not_worse, score_noise
from sgmcmc_prune.run.tables import CLASSES, named_rows, with_half_width
from sgmcmc_prune.store.files import atomic_path
from sgmcmc_prune.text_table import missing


def write_comparison(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one self-contained page about several runs.

    Parameters
    ----------
    run_dirs : sequence of Path
        Run directories whose evaluation is finished and gave the same scores.
    out : Path
        The HTML file; its folder is made.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    ValueError
        If one is no run directory or not evaluated, stands there twice, or has other scores than the first; if `out`
        does not end in .html.
    """
    out = require_page(out)
    runs = read(run_dirs)
    content = page(runs).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as partial:
        partial.write_bytes(content)
    return out


def read(run_dirs: Sequence[Path]) -> dict[str, Metrics]:
    """The metrics of runs that can be compared, by what tells their directories apart."""
    paths = [Path(path).resolve() for path in run_dirs]
    found: list[Metrics] = []
    for given, path in zip(run_dirs, paths, strict=True):
        metrics = RunData.open(Path(given)).metrics
        if paths.count(path) > 1:
            raise ValueError(f"{given} stands there twice; give each run once")
        if metrics is None:
            raise ValueError(f"{given} has no metrics.json; finish it with `sgmcmc-prune resume {given}`")
        if found and _scores(metrics) != _scores(found[0]):
            raise ValueError(
                f"{given} is scored by {', '.join(_scores(metrics).values())}, and {run_dirs[0]} by "
                f"{', '.join(_scores(found[0]).values())}; compare runs with the same scores"
            )
        found.append(metrics)
    return dict(zip(names_apart(paths), found, strict=True))


def names_apart(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as it takes to tell all of them apart."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def page(runs: Mapping[str, Metrics]) -> str:
    """Write the page."""
    picture = overlay(runs)
    image = png(picture.figure) if picture.figure is not None else None
    verdicts = "".join(f"<li><b>{escape(n)}</b>: {escape(' '.join(headline(m)))}</li>" for n, m in runs.items())
    notes = _notes({name: noise_line(metrics) for name, metrics in runs.items()})
    title = f"{len(runs)} runs side by side"
    parts = [
        f"<header><h1>{escape(title)}</h1>\n<ul>{verdicts}</ul></header>",
        *([markup.note(unlike)] if (unlike := _unlike(runs)) else []),
        markup.paragraphs(notes, "small"),
        markup.section(picture.title, markup.figure(picture, image)),
        markup.section("Results", _table(runs)),
    ]
    return markup.document(f"sgmcmc_prune: {title}", parts)


def _notes(each: Mapping[str, str]) -> list[str]:
    """The notes on the headlines, every one once, and of which runs it is where they differ."""
    notes = list(dict.fromkeys(note for note in each.values() if note))
    if len(set(each.values())) < 2:
        return notes
    return [f"{', '.join(name for name, mine in each.items() if mine == note)}: {note}" for note in notes]


def _unlike(runs: Mapping[str, Metrics]) -> str:
    """What makes scores of these runs no like for like."""
    judged = {(m.get("data", {}).get("name"), m["split"], m.get("examples")) for m in runs.values()}
    if len(judged) == 1:
        return ""
    each = "; ".join(
        f"{name} on {m.get('data', {}).get('name', 'unknown data')}, {m['split']} split, "
        f"{m.get('examples') or 'an unknown number of'} examples"
        for name, m in runs.items()
    )
    return f"These runs were not judged on the same examples: {each}. Nothing is marked as best."


def _table(runs: Mapping[str, Metrics]) -> str:
    """A row for the dense networks and for each way of pruning; for every score a column of each run."""
    scores = dict(list(_scores(next(iter(runs.values()))).items())[:2])
    rows = {run: {tuple(named): row for named, row in named_rows(metrics)} for run, metrics in runs.items()}
    every = list(dict.fromkeys(named for found in rows.values() for named in found))
    header = ["method", "when", "decision"]
    header += [f"{heading}\n{run}" for heading in ("sparsity", *scores.values()) for run in runs]
    cells, best = [], set()
    for place, named in enumerate(every):
        here = [rows[run].get(named) for run in runs]
        shares = ["-" if row is None else f"{row['sparsity']:.1%}" for row in here]
        numbers = [_score(row, key) for key in scores for row in here]
        cells.append([*named, *shares, *numbers])
        fed = {run: row for run, row in zip(runs, here, strict=True) if row is not None and not row.get("starved")}
        first_column = 3 + len(runs)
        marked = _best(runs, fed) if not _unlike(runs) else set()
        best |= {(place, first_column + list(runs).index(run)) for run in marked}
    text = (
        f"✓: the best run of a row in its {next(iter(scores.values()))}, and every other one that the noise does not "
        "tell from it (half of the 95 % interval of the best one, over examples). Starved networks are not compared."
    )
    return markup.table("Results", header, *cells, best=best) + (markup.paragraphs([text], "small") if best else "")


def _best(runs: Mapping[str, Metrics], rows: Mapping[str, Metrics]) -> set[str]:
    """The best run by the first score, and those within its noise; none where nothing can be compared."""
    first = next(iter(_scores(next(iter(runs.values())))))
    known = {run: row[first] for run, row in rows.items() if not missing(row[first])}
    sign = 1 if next(iter(runs.values())).get("higher_is_better", True) else -1
    return not_worse(known, sign, lambda run: score_noise(runs[run], rows[run], first))


def _score(row: Metrics | None, key: str) -> str:
    """A score of a run's row and half of its interval; a dash where the run has no such row."""
    return "-" if row is None else with_half_width(row[key], row.get("half_width", {}).get(key))


def _scores(metrics: Metrics) -> dict[str, str]:
    return dict(metrics.get("scores", CLASSES))
