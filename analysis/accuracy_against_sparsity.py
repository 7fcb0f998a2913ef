"""Accuracy and NLL against sparsity, pruned post hoc and in the chain: mean and 95 % Student-t interval over seeds.

    python analysis/accuracy_against_sparsity.py runs/demo-seed0 runs/demo-seed1 runs/demo-seed2 --out accuracy.png

The runs must be finished and share a configuration except for the seed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.sparsity import draw
from sgmcmc_prune.report.style import png
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.settings import to_json

#: What may differ between runs that are averaged: it changes no result, or it is the seed.
FREE = ("seed", "device", "checkpoint_seconds")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure; return 0, or 2 after one line about what is wrong with the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--out", required=True, type=Path, help="the picture (PNG)")
    options = parser.parse_args(argv)
    try:
        metrics = read(options.runs)
        options.out.write_bytes(png(draw(metrics, ("accuracy", "nll"))))
    except (ValueError, OSError) as error:
        print(f"accuracy_against_sparsity: {error}", file=sys.stderr)
        return 2
    spread = "bars: 95 % Student-t intervals" if len(metrics) > 1 else "one seed, so no interval"
    print(f"{options.out}: {len(metrics)} run(s), {spread}")
    return 0


def read(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the metrics of comparable runs.

    Raises
    ------
    ValueError
        If a directory is no finished run, two runs have one seed, or the configurations differ otherwise.
    """
    runs = [RunData.open(path) for path in paths]
    seeds: dict[int, Path] = {}
    for run in runs:
        if run.metrics is None:
            raise ValueError(f"{run.path} has no metrics.json; finish it with `sgmcmc-prune resume {run.path}`")
        if not run.metrics["pruned"]:
            raise ValueError(f"{run.path} pruned nothing, so there is no sparsity to draw against")
        if _comparable(run.config) != _comparable(runs[0].config):
            raise ValueError(f"{run.path} and {runs[0].path} differ in more than their seed; average like with like")
        if run.config.seed in seeds:
            raise ValueError(f"{run.path} and {seeds[run.config.seed]} have the same seed {run.config.seed}")
        seeds[run.config.seed] = run.path
    return [run.metrics for run in runs if run.metrics is not None]


def _comparable(config: RunConfig) -> dict[str, Any]:
    plain = {name: value for name, value in to_json(config).items() if name not in FREE}
    return {**plain, "data": {**plain["data"], "data_dir": None}}


if __name__ == "__main__":
    sys.exit(main())
