"""One shot on the full Fashion-MNIST with LeNet: how far does a network go that is pruned once and never trained again?

    python -m experiments.ours.one_shot --out runs/one-shot --jobs 2

A method starts from the network, or the chain, of its seed, which has spent 12 epochs on 55,000 images. Settings were
looked at on held-out training images of another training (seed 0, 8 epochs); these rows are on the test set, once. An
interrupted call goes on where it was; `--seeds` and `--methods` take a part.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments import shared, tracks
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import results
from sgmcmc_prune.run.config import DataConfig, ModelConfig

RESULTS = Path(__file__).parent / "results"
COMPARISON = Comparison(
    track="one-shot",
    sparsities=(0.8, 0.9, 0.95, 0.98),
    epochs=12,
    members=10,
    data=DataConfig(name="fashion-mnist", validation=5000, batch_size=128),
    model=ModelConfig(name="lenet"),
    evaluate="test",
)


def table(rows: Sequence[Row], kind: str) -> str:
    """Accuracy / NLL by method and sparsity, means over seeds; below each method its masks shuffled within layers."""
    found = results(rows, kind)
    lines = tracks.lines(found, COMPARISON.sparsities)
    for line in lines:
        at = [[row for row in found if (row["method"], row["sparsity"]) == (line[0], s)] for s in COMPARISON.sparsities]
        line.append(" ".join(f"{tracks.mean(each, 'shuffled_accuracy'):.2f}" for each in at))
    header = ("method", "seeds", *(f"{s:.0%}" for s in COMPARISON.sparsities), "shuffled")
    return shared.markdown(header, lines)


def write(rows: Sequence[Row]) -> None:
    """The table of all rows as CSV, and for readers."""
    text = ["Accuracy / NLL on the test set, means over seeds. `shuffled`: accuracy of the control."]
    text += [f"## {kind}\n\n{table(rows, kind)}" for kind in ("single", "ensemble")]
    tracks.write(rows, RESULTS / "one_shot_lenet", "One shot: LeNet on Fashion-MNIST", __doc__, "\n\n".join(text))


def main() -> None:
    """Compute what is missing, and write both tables."""
    chosen = tracks.parser(__doc__, COMPARISON, "runs/one-shot").parse_args()
    write(tracks.compared(COMPARISON, chosen))


if __name__ == "__main__":
    main()
