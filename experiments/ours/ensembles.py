"""One perceptron or four of as many weights together, on 10,000 images of Fashion-MNIST.

    python -m experiments.ours.ensembles --out runs/ensembles --foreign-dir CIFAR

The track `ensembles` of the comparison: a target sparsity 1 - d leaves one network the density d, or four networks
d / 4 each, and all of a method's networks together spend 16 passes. Foreign images are the test images of CIFAR-10 in
grey, their middle 28 x 28 pixels. Nothing was chosen for this table: settings are those of the trained track, and the
test set is read once. An interrupted call goes on where it was; `--seeds` and `--methods` take a part.
"""

from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path

from experiments import tracks
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import summary
from sgmcmc_prune.data import cifar
from sgmcmc_prune.data.image_data import Dataset, Images
from sgmcmc_prune.run.config import DataConfig, ModelConfig

RESULTS = Path(__file__).parent / "results"
COMPARISON = Comparison(
    track="ensembles",
    sparsities=(0.9, 0.98),
    epochs=16,
    members=4,
    data=DataConfig(name="fashion-mnist", validation=50_000, batch_size=128),
    model=ModelConfig(name="mlp"),
    evaluate="test",
    ood="experiments.ours.ensembles:grey_cifar10",
)


def grey_cifar10(data_dir: Path) -> Dataset:
    """Test images of CIFAR-10 in the format of Fashion-MNIST: the mean of the channels, 28 x 28 pixels."""
    found = cifar.load("cifar10", data_dir)
    assert isinstance(found.test, Images)
    pixels = found.test.images[:, :, 2:30, 2:30].float().mean(1, keepdim=True).round().byte()
    grey = Images(pixels, found.test.labels)
    return changed(found, name="grey-cifar10", train=grey, test=grey, mean=(0.5,), std=(0.25,))


def write(rows: Sequence[Row]) -> None:
    """The table of all rows as CSV, and for readers."""
    table = f"```\n{summary(rows, 'gradual-magnitude', COMPARISON.track)}\n```"
    tracks.write(rows, RESULTS / "ensembles_mlp", "Ensembles: perceptrons on Fashion-MNIST", __doc__, table)


def main() -> None:
    """Compute what is missing, and write both tables."""
    parser = tracks.parser(__doc__, COMPARISON, "runs/ensembles")
    parser.add_argument("--data-dir", type=Path, help="as of `sgmcmc-prune run`")
    parser.add_argument("--foreign-dir", type=Path, required=True, help="CIFAR-10, as of `sgmcmc-prune run cifar10`")
    chosen = parser.parse_args()
    write(tracks.compared(COMPARISON, chosen, ood_dir=chosen.foreign_dir, **{"data.data_dir": chosen.data_dir}))


if __name__ == "__main__":
    main()
