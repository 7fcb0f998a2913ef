"""A paper's listing: scripts, figures, claims and settings, and how ours is read from a file of results.

A claim's reader is a pure function of one file's content. It gives our number with its interval, and whether the claim
holds. Without a file, or without the cells that it takes, a claim is owed: no number of ours stands on a page that no
file of results has.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import verdict
from experiments.shared import interval, plus_minus
from sgmcmc_prune.predictive.intervals import mean_and_half_width, wilson_interval
from sgmcmc_prune.settings import require
from sgmcmc_prune.store.files import read_json

#: What papers and released code set, by paper, experiment, place where it was read, and field (null: not known); and
#: under "departures" the reason for each field in which ours differs.
SETTINGS = Path(__file__).with_name("settings.json")
#: A score by seed, or by whatever else pairs two methods.
Scores = Mapping[Any, float]


@dataclass(frozen=True)
class Script:
    """The cells of one script, as `python -m experiments.MODULE ARGUMENTS`; a budget that is None it does not have.

    `data` is what --data-dir must hold, `device` whether it takes --device, `seeds` the name of its option for seeds.
    """

    module: str
    main: Callable[[list[str]], object]
    desk: str | None
    paper: str | None
    data: str = ""
    device: bool = False
    seeds: str = "--seeds"


@dataclass(frozen=True)
class Ours:
    """Our side of a claim in words, its mean and half of its 95 % interval, and whether the claim holds.

    `difference` is that of two methods, where a claim compares them.
    """

    text: str
    mean: float = math.nan
    half: float = math.nan
    holds: bool | None = None
    difference: str = ""


@dataclass(frozen=True)
class Claim:
    """What an abstract, a figure or a notebook says, and how ours is read from the file `results`; `owed` says by what.

    `authors` is what their logs say in words, `figure` the number that ours is compared with, and `about` the
    experiment in the table of settings whose departures bear on it.
    """

    text: str
    paper: str = "not read"
    authors: str = "none"
    figure: float | None = None
    results: str = ""
    read: Callable[[Any], Ours | None] = lambda content: None
    owed: str = ""
    about: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture drawn from the file `results` alone; the caption is one sentence that says what it shows."""

    name: str
    caption: str
    results: str
    draw: Callable[[Any], Any]


@dataclass(frozen=True)
class Paper:
    """All of a paper. `known` says what of it could be read; `ours` gives our settings by experiment and field."""

    title: str
    arxiv: str
    known: str
    folder: str
    scripts: Sequence[Script]
    claims: Sequence[Claim]
    numbers: Sequence[Claim] = ()
    figures: Sequence[Figure] = ()
    ours: Mapping[str, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """Files of results by name, from the first of some folders that has them; "{budget}" stands for the budget."""

    folders: Sequence[Path]
    budget: str = "desk"

    def path(self, name: str) -> Path | None:
        """Where the file is, if it is."""
        named = f"{name.format(budget=self.budget)}.json"
        return next((folder / named for folder in self.folders if (folder / named).is_file()), None)

    def read(self, claim: Claim) -> Ours | None:
        """Our side of a claim; None if it is owed."""
        path = self.path(claim.results) if claim.results else None
        return None if path is None else claim.read(read_json(path))


@dataclass(frozen=True)
class Setting:
    """One field of an experiment: the paper's or its code's value, where that was read, ours, and why it differs."""

    name: str
    paper: Any
    source: str
    ours: Any
    reason: str

    @property
    def departs(self) -> bool:
        """Whether the paper's value is known, and is not ours."""
        return self.paper is not None and self.paper != self.ours


def digest(path: Path) -> str:
    """A short hash of a file, by which a picture says what it was drawn from."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def settings(name: str, paper: Paper) -> dict[str, list[Setting]]:
    """The settings of each experiment of a paper, beside ours where the paper's is known.

    Raises
    ------
    ValueError
        If ours lacks a field of the table, or a reason stands for what does not depart, or lacks for what does.
    """
    found: dict[str, list[Setting]] = {}
    for experiment, places in read_json(SETTINGS)[name].items():
        ours, reasons = paper.ours[experiment](), places.pop("departures", {})
        rows = [(key, value, place) for place, fields in places.items() for key, value in fields.items()]
        absent = [key for key, value, _ in rows if value is not None and key not in ours]
        require(not absent, f"{name}, {experiment}: our settings lack {', '.join(absent)}")
        each = [Setting(k, v, place, _plain(ours.get(k)), reasons.get(k, "")) for k, v, place in rows]
        wrong = {row.name for row in each if row.departs} ^ reasons.keys()
        require(not wrong, f"{name}, {experiment}: reasons and departures do not agree on {', '.join(sorted(wrong))}")
        found[experiment] = each
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def count(number: int, what: str) -> str:
    """So many of them in words."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def number(scores: Scores, digits: int, what: str = "seed") -> Ours | None:
    """A mean over seeds with its interval; no verdict. None without a seed."""
    if not scores:
        return None
    mean, half = map(float, mean_and_half_width(list(scores.values())))
    return Ours(f"{plus_minus(mean, half, digits)} ({count(len(scores), what)})", mean, half)


def ahead(first: Scores, second: Scores, digits: int, lower: bool = False, what: str = "seed") -> Ours | None:
    """Whether the first method is better than the second, paired by seed and outside the 95 % interval.

    Not decided inside the interval, or with one seed; `lower` says that lower is better.
    """
    if not first.keys() & second.keys():
        return None
    sign = -1 if lower else 1
    signed = {"first": {k: sign * v for k, v in first.items()}, "second": {k: sign * v for k, v in second.items()}}
    (found,) = verdict.differences(("first", "second"), signed)
    both = [interval(list(s.values()), digits) for s in (first, second)]
    difference = plus_minus(sign * found.mean, found.half, digits, "+")
    holds = {"holds": True, "contradicted": False, "open": None}[found.answer]
    return Ours(f"{both[0]} against {both[1]} ({count(found.seeds, what)})", holds=holds, difference=difference)


def every(found: Sequence[bool], what: str) -> Ours | None:
    """Whether something is so in every data set, with the 95 % interval of its share; one alone decides nothing."""
    if not found:
        return None
    low, high = wilson_interval(sum(found) / len(found), len(found))
    share = f"95 % interval of the share {max(low, 0):.2f} to {high:.2f}"
    said = f"{what} in {sum(found)} of {count(len(found), 'data set')} ({share})"
    return Ours(said, holds=None if len(found) == 1 else all(found))
