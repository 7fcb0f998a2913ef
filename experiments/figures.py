"""What figure scripts share: one colour for each method, PNG and PDF, and results found by their names."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from sgmcmc_prune.report.style import INK, PALETTE
from sgmcmc_prune.store.files import read_json

_BLUE, _RED, _GREEN, _PINK, _ORANGE, _SKY, _BROWN = PALETTE
#: Inches across both columns of a page.
WIDTH = 7.2
#: One colour for each method of the papers, wherever it is drawn.
COLOURS = {
    **{"ours": _BLUE, "no EM": _RED, "no noise": _GREEN, "true inputs": INK},  # Ke and Fan
    **{"flat-map": INK, "flat-ff": _BLUE, "tiered-ff": _RED, "bmr-spike-slab": _GREEN, "bmr-horseshoe": _PINK},
    **{"MAP": INK, "scalar": _BLUE, "layerwise": _RED, "unitwise": _GREEN, "parameterwise": _PINK},  # Dhahri et al.
    **{"OPD": _SKY, "OBD": _ORANGE, "magnitude": _BROWN, "random": "0.6"},
    **{"mean_field": _BLUE, "ss_ig": _RED, "ss_gl": _GREEN, "ss_ghs": _PINK, "svbnn": _ORANGE},  # Jantre et al.
    **{"input gates": _BLUE, "warm input gates": _SKY, "R1 group": _RED, "warm R1 group": _ORANGE},  # Saha et al.
    **{"R1 weight": _GREEN, "R2": _PINK},
}


#: The families of Jantre et al. as they write them.
FAMILY_NAMES = {"mean_field": "mean field", "ss_ig": "SS-IG", "ss_gl": "SS-GL", "ss_ghs": "SS-GHS", "svbnn": "SVBNN"}


def of_one_setting(runs: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The runs whose values of these settings are the commonest: a file may hold others beside them."""
    settings = [tuple(run.get(name) for name in names) for run in runs]
    (commonest, _), *_ = Counter(settings).most_common(1)
    return [run for run, setting in zip(runs, settings, strict=True) if setting == commonest]


def save(figure: Any, stem: Path, source: str = "") -> list[Path]:
    """Write a figure as PNG and as PDF; `source`, what it was drawn from, goes into both files.

    Two drawings of the same results are the same bytes: no date is written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.parent / f"{stem.name}{ending}" for ending in (".png", ".pdf")]
    figure.savefig(paths[0], dpi=130, metadata={"Source": source})
    figure.savefig(paths[1], metadata={"Keywords": source, "CreationDate": None})
    plt.close(figure)
    return paths


def main(description: str | None, pattern: str, made_by: Path, draw: Callable[[Any], Any]) -> None:
    """Draw every result that is there.

    Parameters
    ----------
    description : str or None
        For --help.
    pattern : str
        Name of the result files, with wildcards.
    made_by : Path
        The script that writes them, beside its folder `results`.
    draw : callable
        From the content of a file to a figure.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--results", type=Path, default=made_by.parent / "results")
    parser.add_argument("--out", type=Path, default=Path("runs/figures"))
    args = parser.parse_args()
    paths = sorted(args.results.glob(pattern))
    if not paths:
        raise SystemExit(f"{args.results} holds no {pattern}; run {made_by} first")
    for path in paths:
        print(*save(draw(read_json(path)), args.out / path.stem), sep="\n")
