"""Whole filters and nodes of LeNet on Fashion-MNIST: what a network that is smaller in fact loses.

    python -m experiments.ours.structured --out runs/structured --jobs 2
    python analysis/compare_pareto.py experiments/ours/results/structured_lenet.csv --cut --out pareto.png

Every layer loses the same share of its units (methods with gates choose the shares themselves); 12 epochs on 50,000
images under the mask for each target and seed. Nothing was chosen for this table: settings are those of the trained
track, and the test set is read once. An interrupted call goes on where it was; `--seeds` and `--methods` take a part.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sgmcmc_prune.cells import interruption_in_words
from sgmcmc_prune.compare.comparison import compare
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.methods import TRACKS
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import summary, write_csv
from sgmcmc_prune.run.config import DataConfig, ModelConfig
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.files import atomic_path

RESULTS = Path(__file__).parent / "results"
COMPARISON = Comparison(
    track="structured",
    sparsities=(0.3, 0.5, 0.7),
    epochs=12,
    members=12,
    data=DataConfig(name="fashion-mnist", validation=10_000, batch_size=128),
    model=ModelConfig(name="lenet"),
    evaluate="test",
)


def write(rows: Sequence[Row]) -> None:
    """The table of all rows as CSV, and for readers."""
    write_csv(RESULTS / "structured_lenet.csv", rows)
    title = f"# Structured: LeNet on Fashion-MNIST\n\n{(__doc__ or '').strip()}\n"
    with atomic_path(RESULTS / "structured_lenet.md") as partial:
        partial.write_text(f"{title}\n```\n{summary(rows, 'filter-norm')}\n```\n", encoding="utf-8")


def main() -> None:
    """Compute what is missing, and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/structured"))
    parser.add_argument("--data-dir", type=Path, help="as of `sgmcmc-prune run`")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(COMPARISON.seeds))
    parser.add_argument("--methods", nargs="+", default=list(TRACKS["structured"]))
    chosen = parser.parse_args()
    changes = {"seeds": tuple(chosen.seeds), "methods": tuple(chosen.methods), "data.data_dir": chosen.data_dir}
    with interruption_in_words():
        write(compare(replace(COMPARISON, **changes), chosen.out, chosen.jobs))


if __name__ == "__main__":
    main()
