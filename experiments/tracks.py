"""What the experiments share that are one comparison of methods: their options, what is computed, and both tables."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgmcmc_prune.cells import interruption_in_words
from sgmcmc_prune.compare.comparison import compare
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.methods import TRACKS
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import write_csv
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.files import atomic_path


def parser(description: str | None, comparison: Comparison, out: str) -> argparse.ArgumentParser:
    """The options that all of them have; `out` is the folder of the cells."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path(out))
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--seeds", type=int, nargs="+", default=list(comparison.seeds))
    p.add_argument("--methods", nargs="+", default=list(comparison.methods or TRACKS[comparison.track]))
    return p


def compared(comparison: Comparison, chosen: argparse.Namespace, **changes: Any) -> list[Row]:
    """All rows of the chosen seeds and methods; what is missing is computed."""
    changes |= {"seeds": tuple(chosen.seeds), "methods": tuple(chosen.methods)}
    with interruption_in_words():
        return compare(replace(comparison, **changes), chosen.out, chosen.jobs)


def lines(rows: Sequence[Row], sparsities: Sequence[float]) -> list[list[str]]:
    """Method, number of seeds, and accuracy / NLL at each sparsity, means over seeds."""
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        at = [[row for row in own if row["sparsity"] == s] for s in sparsities]
        cells = [f"{mean(each, 'accuracy'):.4f} / {mean(each, 'nll'):.3f}" for each in at]
        found.append([method, str(len({row["seed"] for row in own})), *cells])
    return found


def mean(rows: Sequence[Row], score: str) -> float:
    """Over seeds."""
    return sum(row[score] for row in rows) / len(rows)


def write(rows: Sequence[Row], path: Path, heading: str, about: str | None, text: str) -> None:
    """The table of all rows as CSV, and a page for readers; `path` is that of both without an ending."""
    write_csv(path.with_suffix(".csv"), rows)
    with atomic_path(path.with_suffix(".md")) as partial:
        partial.write_text(f"# {heading}\n\n{(about or '').strip()}\n\n{text}\n", encoding="utf-8")
