"""What the command line's parser shows and complains of, as this library says it."""

import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import get_type_hints

#: How Python says that a text is no number, and how a person does.
NO_NUMBER = (
    (r"invalid literal for int\(\) with base 10: ('.*?')", r"\1 is no whole number"),
    (r"could not convert string to float: ('.*?')", r"\1 is no number"),
)


def in_one_line(kind: type) -> None:
    """Join what a docstring says of each setting: tyro begins a new line of help where one begins with a quote."""
    for base in filter(is_dataclass, kind.__mro__):
        base.__doc__ = re.sub(r"(?<=\S)\n {8}(?=\S)", _joined, base.__doc__ or "")
    for part in get_type_hints(kind).values():
        if is_dataclass(part):
            in_one_line(part)  # type: ignore[arg-type]


def _joined(found: "re.Match[str]") -> str:
    """A space, where the line before is one of a description, too."""
    before = found.string[: found.start()].rpartition("\n")[2]
    return " " if before.startswith(" " * 8) else found.group()


def unbox(box: str, typed: Sequence[str] = ()) -> str:
    """What tyro's box says, in one line: the complaint, the best suggestion, and where the help is.

    Parameters
    ----------
    box : str
    typed : sequence of str
        The words after `sgmcmc-prune`.
    """
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    lines = lines or [line.strip() for line in box.splitlines()[1:]]  # in plain ASCII there is a title, and no frame
    blocks = " ".join("\0" if set(line) in ({"─"}, {"-"}) else line for line in lines).split("\0")
    blocks = [" ".join(block.split()).rstrip(".") for block in blocks if "helptext:" not in block]
    meant = re.compile(r"(Perhaps you meant: \S+).*")
    inner = re.compile(r"Error parsing [^-\s]\S*: ")  # a check of our own: tyro names a class
    text = ". ".join(inner.sub("", meant.sub(r"\1", block)) for block in blocks if block)
    for theirs, ours in NO_NUMBER:
        text = re.sub(theirs, ours, text)
    command = [] if "Available subcommands" in text else typed[: 2 if typed[:1] in (["run"], ["audit"]) else 1]
    return re.sub(r"For full helptext, \w+:? .*", f"All options: {' '.join(['sgmcmc-prune', *command])} --help", text)
