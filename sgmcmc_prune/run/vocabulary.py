"""Every name that a run's choices know, what it stands for, and its options: what `sgmcmc-prune list` prints.

Nothing is written down here: a line is the first sentence of a docstring, and options are a signature's.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, get_args, get_origin

from sgmcmc_prune import choices
from sgmcmc_prune.run.config import OTHERS, RunConfig

#: By kind of choice: the setting that names it, and the one that has its options, if there is one.
SETTINGS = {
    "network": ("--model.name", "--model.options"),
    "data set": ("--data.name", "--data.options"),
    "likelihood": ("--likelihood", "--likelihood-options"),
    "prior": ("--prior.family", "--prior.options"),
    "sampler": ("--sampler.name", "--sampler.options"),
    "mass matrix": ("--sampler.preconditioner", None),
    "criterion": ("--prune.post-hoc and --prune.in-chain", None),
    "decision": ("--prune.decisions", None),
    "curvature": ("--prune.curvature", "--prune.curvature-options"),
    "growth": ("--prune.growth-schedule", None),
    "control": ("--control", None),
}
#: What else a person may call a kind.
ALSO = {
    "model": "network",
    "architecture": "network",
    "dataset": "data-set",
    "data": "data-set",
    "loss": "likelihood",
    "optimizer": "sampler",
    "optimiser": "sampler",
    "preconditioner": "mass-matrix",
    "mass": "mass-matrix",
    "mass-matrices": "mass-matrix",
    "criteria": "criterion",
    "baseline": "method",
}
_WIDTH = 110


def kind_called(word: str, kinds: Iterable[str]) -> str:
    """The kind of choice that a person means: its name, its plural, or another word for it (`ALSO`).

    Parameters
    ----------
    word : str
    kinds : iterable of str
        The names that there are, with hyphens.

    Raises
    ------
    ValueError
        If it is none; near words are offered.
    """
    known = {**{kind: kind for kind in kinds}, **ALSO}
    typed = "-".join(word.lower().replace("_", " ").replace("-", " ").split())
    for form in (typed, typed.removesuffix("s")):
        if form in known:
            return known[form]
    near = dict.fromkeys(known[found] for found in get_close_matches(typed, known, n=3))
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise ValueError(f"there is no kind of choice {word!r}{meant}; choose one of {', '.join(kinds)}")


def vocabulary(kind: str) -> str:
    """The names of one kind, as a person reads them.

    Parameters
    ----------
    kind : str
        A key of `SETTINGS`.
    """
    setting, options = SETTINGS[kind]
    names = [*choices.OURS[kind], *(f"{head}:..." for head in choices.WITH_ARGUMENT.get(kind, {}))]
    width = max(map(len, names))
    lines = [f"{kind}: {setting}" + (f"; options by {options} NAME=VALUE" if options else "")]
    for name in names:
        found = choices.load(kind, name)
        told = [first_sentence(found), *_options(kind, found)] if options else [first_sentence(found)]
        read = ", ".join(getattr(found, "settings", ())) if kind == "prior" else ""
        told += [f"reads {read} of the run's prior"] if read else []
        for label, text in zip([name, *[""] * len(told)], told, strict=False):
            start = f"  {label:{width}}  "
            lines += textwrap.wrap(
                text, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
            )
    return "\n".join(lines)


def first_sentence(found: Any) -> str:
    """Of the docstring of a class, a function, or a partial of either."""
    paragraph = (inspect.getdoc(_underneath(found)) or "").split("\n\n")[0].replace("\n", " ")
    return paragraph.split(". ")[0].rstrip(".,:")


def _options(kind: str, found: Any) -> Iterator[str]:
    """One line, if there are any: what has a default that can be typed, and is no setting of the run itself."""
    part = {"network": "model", "data set": "data"}.get(kind, kind)
    taken = {f.name for f in fields(getattr(RunConfig(), part))} if part in OTHERS else set()
    taken.update(OTHERS.get(part, ()))
    if isinstance(found, type | partial) or inspect.isfunction(found):
        parameters = inspect.signature(found).parameters.values()
        typed = [p for p in parameters if p.default is not p.empty and not isinstance(p.default, type)]
        if texts := [_typed(p) for p in typed if p.name not in taken]:
            yield f"options: {', '.join(texts)}"


def _typed(parameter: inspect.Parameter) -> str:
    """NAME=DEFAULT as it is typed, and the other words that the annotation knows."""
    others = [word for word in _words(parameter.annotation) if word != parameter.default]
    text = f"{parameter.name}={parameter.default}".replace(", ", ",")
    return text + (f" (or {', '.join(others)})" if others else "")


def _words(annotation: Any) -> list[str]:
    """The words of an annotation, and "a number" where one would do beside them."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    words = [word for part in get_args(annotation) for word in _words(part)]
    return [*words, "a number"] if words and float in get_args(annotation) else words


def _underneath(found: Any) -> Callable[..., Any]:
    return _underneath(found.func) if isinstance(found, partial) else found
