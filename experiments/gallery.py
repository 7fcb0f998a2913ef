"""Write `docs/gallery`: the pages of the first five papers from committed results, and all of their figures small.

python -m experiments.gallery
"""

import argparse
from pathlib import Path

from experiments.papers import Results
from experiments.reproduce import committed, find, write_page
from experiments.shared import ROOT

#: The papers that this library began with.
FIRST = ("ke-fan", "markovic", "dhahri", "jantre", "saha")
GALLERY = ROOT / "docs" / "gallery"
TITLE = """# Gallery

Each page compares the claims of one paper with our committed results, and lists the settings that depart from the
paper's. Below are all figures, each with the command that draws it. Written by `python -m experiments.gallery`."""


def write(folder: Path) -> None:
    """Write all pages, and the index."""
    text = [TITLE]
    for name in FIRST:
        listing = find(name)
        results = Results(committed(listing))
        _, said = write_page(name, listing, results, folder / name)
        text.append(f"## [{listing.title}]({name}/index.md)\n\nClaims: {said}.")
        for figure in listing.figures:
            if results.path(figure.results) is not None:
                picture = f'<img src="{name}/{figure.name}.png" alt="{figure.caption}" width="360">'
                command = f"`sgmcmc-prune reproduce {name} --figures-only`"
                text.append(f"{picture}\n\n{command}\n\n{figure.caption} [PDF]({name}/{figure.name}.pdf)")
    (folder / "index.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    write(GALLERY)
    print(GALLERY / "index.md")
