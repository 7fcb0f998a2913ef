"""Reproduce a paper: run its cells, draw its figures, write one page. `sgmcmc-prune reproduce PAPER` calls this.

The listing of a paper is `experiments/FOLDER/paper.py`. What is finished is not computed again, so the same command
goes on where it was stopped. Results of one's own lie beside the page; where there are none, the committed ones stand.
"""

import math
import pkgutil
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.figures import save
from experiments.literature import DESK_EPOCHS
from experiments.papers import Claim, Figure, Ours, Paper, Results, Script, Setting, digest, settings
from experiments.shared import ROOT, plus_minus
from sgmcmc_prune.settings import require
from sgmcmc_prune.store.files import read_json

PAPERS = {
    "ke-fan": "ke_fan.paper:PAPER",
    "markovic": "markovic.paper:PAPER",
    "dhahri": "dhahri.paper:PAPER",
    "jantre": "jantre.paper:PAPER",
    "saha": "saha.paper:PAPER",
    "deng": "sun_deng.paper:DENG",
    "sun": "sun_deng.paper:SUN",
    "csgmcmc": "zhang.paper:PAPER",
    "wenzel": "wenzel_izmailov.paper:WENZEL",
    "izmailov": "wenzel_izmailov.paper:IZMAILOV",
}
#: Of each experiment of a paper.
Settings = Mapping[str, Sequence[Setting]]
VERDICTS = {True: "holds", False: "does not hold", None: "not decidable here"}


def find(name: str) -> Paper:
    """The listing of a paper; ValueError with all names if there is none."""
    require(name in PAPERS, f"there is no paper {name!r}; choose one of {', '.join(PAPERS)}")
    listing: Paper = pkgutil.resolve_name(f"experiments.{PAPERS[name]}")
    return listing


def reproduce(
    paper: str,
    budget: str = "desk",
    figures_only: bool = False,
    jobs: int = 1,
    seeds: Sequence[int] = (),
    data_dir: Path | None = None,
    device: str = "cpu",
    out: Path = Path("runs/reproduce"),
) -> Path:
    """Compute the cells that are missing, draw the figures, write the page; return where it is.

    Parameters
    ----------
    paper : str
        One of `PAPERS`.
    budget : {"desk", "paper"}
    figures_only : bool
        Only read what is stored.
    jobs : int
        Processes at once.
    seeds : sequence of int
        Of all scripts; by default each script's own.
    data_dir : Path, optional
        Data sets that do not come with the library; without it the desk leaves their scripts out, and says so.
    device : str
    out : Path
        The page goes to PAPER-BUDGET there, with its figures and results.

    Raises
    ------
    ValueError
        If the paper is unknown, `jobs` is not positive, a script lacks its data, or an option would be ignored; before
        anything is computed.
    """
    listing, folder = find(paper), out.expanduser().absolute() / f"{paper}-{budget}"
    require(jobs >= 1, f"jobs is {jobs}; it must be at least 1")
    for option, given in (("--seeds", bool(seeds)), ("--jobs", jobs != 1), ("--device", device != "cpu")):
        require(not (figures_only and given), f"nothing is run with --figures-only; leave {option} out")
    require(data_dir is None or data_dir.is_dir(), f"--data-dir is {data_dir}, which is no folder")
    for option, given, used in (
        ("--data-dir", data_dir is not None, any(script.data for script in listing.scripts)),
        ("--device", device != "cpu", any(script.device for script in listing.scripts)),
    ):
        require(used or not given, f"no script of {paper} takes {option}; leave it out")
    if not figures_only:
        chosen = runnable(paper, listing, budget, data_dir)
        for place, script in enumerate(chosen, 1):
            words = [*arguments(script, budget, folder / "results"), "--jobs", str(jobs)]
            words += [script.seeds, *map(str, seeds)] if seeds else []
            words += ["--data-dir", str(data_dir)] if script.data else []
            words += ["--device", device] if script.device else []
            print(f"[{place} of {len(chosen)}] python -m experiments.{script.module} {shlex.join(words)}", flush=True)
            script.main(words)
    page, said = write_page(paper, listing, Results([folder / "results", *committed(listing)], budget), folder)
    print(f"{said}\npage: {page}")
    return page


def committed(listing: Paper) -> list[Path]:
    """Folders of results that a clone has."""
    return [ROOT / "experiments" / listing.folder / "results", ROOT / "benchmarks"]


def runnable(name: str, listing: Paper, budget: str, data_dir: Path | None) -> list[Script]:
    """The scripts of a budget; without their data they are refused, or, at the desk, left out where others remain."""
    chosen = [script for script in listing.scripts if getattr(script, budget) is not None]
    lacking = [script for script in chosen if script.data and data_dir is None]
    sets = ", ".join(dict.fromkeys(script.data for script in lacking))
    if lacking and (budget == "paper" or lacking == chosen):
        raise ValueError(f"{name} at --budget {budget} needs {sets}; give the folder that holds it as --data-dir")
    if lacking:
        left = ", ".join(f"experiments.{script.module}" for script in lacking)
        print(f"left out without --data-dir: {left}, which need {sets}", flush=True)
    return [script for script in chosen if script not in lacking]


def arguments(script: Script, budget: str, results: Path | str = "OUT") -> list[str]:
    """The arguments of a script at a budget; those of every script come after them."""
    return [word.format(out=results) for word in shlex.split(getattr(script, budget))]


def write_page(name: str, listing: Paper, results: Results, folder: Path) -> tuple[Path, str]:
    """Draw the figures, write `index.md` beside them; return it, and the verdicts in one line."""
    claims, rows = [results.read(claim) for claim in listing.claims], settings(name, listing)
    text = [
        f"# {listing.title}",
        f"arXiv {listing.arxiv}. {listing.known}",
        f"Written by `sgmcmc-prune reproduce {name} --budget {results.budget} --figures-only`. Every number of ours is "
        "read from the files at the end; `±` is half of the 95 % Student-t interval. *Owed*: there is no result yet. "
        "If a claim compares two methods, the difference is between them; otherwise it is ours minus the authors'.",
        "## Claims",
        table(listing.claims, claims, rows, judged=True),
    ]
    if listing.numbers:
        numbers = [results.read(claim) for claim in listing.numbers]
        text += ["## Figures and numbers", table(listing.numbers, numbers, rows, judged=False)]
    for figure in draw(listing.figures, results, folder):
        text.append(f"![{figure.caption}]({figure.name}.png)\n\n{figure.caption} [PDF]({figure.name}.pdf)")
    text += [
        "## Departures",
        *departures(rows),
        "## Scripts and results",
        files(listing, results, folder),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    verdicts = [ours and ours.holds for ours in claims]
    held, failed, undecided = (verdicts.count(verdict) for verdict in VERDICTS)
    return folder / "index.md", f"{held} hold, {failed} do not, {undecided} cannot be decided here"


def draw(figures: Sequence[Figure], results: Results, folder: Path) -> list[Figure]:
    """Draw the figures whose results are there, as PNG and PDF; return these."""
    found = [(figure, path) for figure in figures if (path := results.path(figure.results)) is not None]
    for figure, path in found:
        save(figure.draw(read_json(path)), folder / figure.name, digest(path))
    return [figure for figure, _ in found]


def table(claims: Sequence[Claim], ours: Sequence[Ours | None], rows: Settings, judged: bool) -> str:
    """A row for each claim: the paper's, the authors', ours, their difference, the verdict, how many departures."""
    several = {experiment: sum(row.departs for row in each) for experiment, each in rows.items()}
    head = ["claim" if judged else "figure or number", "paper", "authors' logs or notebooks", "ours", "difference"]
    lines = [[*head, *["verdict"] * judged, "departures"]]
    for claim, found in zip(claims, ours, strict=True):
        authors = claim.authors if claim.figure is None else f"{claim.figure:g} ({claim.authors})"
        difference = "" if found is None else found.difference or from_authors(claim, found)
        row = [
            claim.text,
            claim.paper,
            authors,
            f"*owed*: {claim.owed or 'its results'}" if found is None else found.text,
            difference,
        ]
        link = f"[{several[claim.about]}](#{anchor(claim.about)})" if claim.about else ""
        lines.append([*row, *[VERDICTS[found and found.holds]] * judged, link])
    return markdown(lines)


def from_authors(claim: Claim, ours: Ours) -> str:
    """Ours minus the authors' figure, with the interval of ours."""
    if claim.figure is None or math.isnan(ours.mean):
        return ""
    return plus_minus(ours.mean - claim.figure, ours.half, 4, "+")


def anchor(experiment: str) -> str:
    """Where the heading of an experiment leads."""
    return experiment.lower().replace(",", "").replace(" ", "-")


def departures(of_paper: Settings) -> list[str]:
    """For each experiment what departs and why, what agrees, and what of the paper is not known."""
    text = []
    for experiment, rows in of_paper.items():
        lines = [[row.name, shown(row.paper), row.source, shown(row.ours), row.reason] for row in rows if row.departs]
        same = [row.name for row in rows if row.paper is not None and not row.departs]
        unknown = [row.name for row in rows if row.paper is None]
        text.append(f"### {experiment}")
        text += [markdown([["setting", "theirs", "read in", "ours", "reason"], *lines])] if lines else []
        text += [f"As theirs: {'; '.join(same)}."] if same else []
        text += [f"Not known of theirs: {'; '.join(unknown)}."] if unknown else []
    return text


def shown(value: object) -> str:
    """A setting's value."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def files(listing: Paper, results: Results, folder: Path) -> str:
    """The commands of this budget, and the files of results that were read."""
    lines = [
        f"- `{shlex.join(['python', '-m', f'experiments.{script.module}', *arguments(script, results.budget)])}`"
        for script in listing.scripts
        if getattr(script, results.budget) is not None
    ]
    if results.budget == "desk" and any("--budget desk" in (script.desk or "") for script in listing.scripts):
        lines.append(f"- `--budget desk`: every length times one factor, {DESK_EPOCHS:g} epochs of a dense chain")
    for name in dict.fromkeys(each.results for each in (*listing.claims, *listing.numbers, *listing.figures)):
        if name and (path := results.path(name)) is not None:
            own = path.is_relative_to(folder)
            lines.append(f"- `{path.relative_to(folder if own else ROOT)}` ({'this run' if own else 'committed'})")
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
