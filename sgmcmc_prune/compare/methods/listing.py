"""What `sgmcmc-prune methods` prints: the methods of each track, and what each applies to."""

import string

from sgmcmc_prune.compare.methods import TRACKS

#: What the methods of a track have in common.
ABOUT = {
    "trained": "each trains as it likes, within the budget (the default track)",
    "one-shot": "all start from the same trained network, or chain, of a seed, and train no more",
    "structured": "whole filters and nodes",
    "ensembles": "one network against several that have as many weights together",
}


def listing() -> str:
    """A block for each track; the letter in the last column stands for a line at the end."""
    scopes = dict.fromkeys(method.scope for methods in TRACKS.values() for method in methods.values())
    letters = dict(zip(scopes, string.ascii_lowercase, strict=False))
    header = ("name", "family", "paper", "for")
    blocks = {
        track: [(m.name, m.family, m.paper, letters[m.scope]) for m in methods.values()]
        for track, methods in TRACKS.items()
    }
    columns = zip(header, *(line for lines in blocks.values() for line in lines), strict=True)
    widths = [max(map(len, column)) for column in columns]

    def row(cells: tuple[str, ...]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    head = [row(header), row(tuple("-" * width for width in widths))]
    parts = [
        "\n".join([f"--track {track}: {ABOUT[track]}", *head, *map(row, lines)]) for track, lines in blocks.items()
    ]
    return "\n\n".join([*parts, "\n".join(["for:", *(f"  {letter}  {scope}" for scope, letter in letters.items())])])
