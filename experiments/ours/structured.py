"""Whole filters and nodes of LeNet on Fashion-MNIST: what a network that is smaller in fact loses.

    python -m experiments.ours.structured --out runs/structured --jobs 2
    python analysis/compare_pareto.py experiments/ours/results/structured_lenet.csv --cut --out pareto.png

Every layer loses the same share of its units (methods with gates choose the shares themselves); 12 epochs on 50,000
images for each target and seed. Settings are those of the trained track, but for how `filter-conditional` takes joint
evidence: that was chosen on held-out training images of another seed. The test set is read once. An interrupted call
goes on where it was; `--seeds` and `--methods` take a part.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments import tracks
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import summary
from sgmcmc_prune.run.config import DataConfig, ModelConfig

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
    table = f"```\n{summary(rows, 'filter-norm')}\n```"
    tracks.write(rows, RESULTS / "structured_lenet", "Structured: LeNet on Fashion-MNIST", __doc__, table)


def main() -> None:
    """Compute what is missing, and write both tables."""
    parser = tracks.parser(__doc__, COMPARISON, "runs/structured")
    parser.add_argument("--data-dir", type=Path, help="as of `sgmcmc-prune run`")
    chosen = parser.parse_args()
    write(tracks.compared(COMPARISON, chosen, **{"data.data_dir": chosen.data_dir}))


if __name__ == "__main__":
    main()
