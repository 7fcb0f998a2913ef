"""One shot on the full Fashion-MNIST with LeNet: how far does a network go that is pruned once and never trained again?

    python -m experiments.ours.one_shot --out runs/one-shot --jobs 2

A method starts from the network, or the chain, of its seed, which has spent 12 epochs on 55,000 images. Settings were
looked at on held-out training images of another training (seed 0, 8 epochs); these rows are on the test set, once. An
interrupted call goes on where it was; `--seeds` and `--methods` take a part.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments import shared
from sgmcmc_prune.cells import interruption_in_words
from sgmcmc_prune.compare.comparison import compare
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.methods import TRACKS
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import results, write_csv
from sgmcmc_prune.run.config import DataConfig, ModelConfig
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.files import atomic_path

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
    lines, found = [], results(rows, kind)
    for method in dict.fromkeys(row["method"] for row in found):
        own = [row for row in found if row["method"] == method]
        by_target = [[row for row in own if row["sparsity"] == s] for s in COMPARISON.sparsities]
        cells = [f"{mean(each, 'accuracy'):.4f} / {mean(each, 'nll'):.3f}" for each in by_target]
        control = " ".join(f"{mean(each, 'shuffled_accuracy'):.2f}" for each in by_target)
        lines.append([method, str(len({row["seed"] for row in own})), *cells, control])
    header = ("method", "seeds", *(f"{s:.0%}" for s in COMPARISON.sparsities), "shuffled")
    return shared.markdown(header, lines)


def mean(rows: Sequence[Row], score: str) -> float:
    """Over seeds."""
    return sum(row[score] for row in rows) / len(rows)


def write(rows: Sequence[Row]) -> None:
    """The table of all rows as CSV, and for readers."""
    write_csv(RESULTS / "one_shot_lenet.csv", rows)
    text = [f"# One shot: LeNet on Fashion-MNIST\n\n{(__doc__ or '').strip()}\n"]
    text += ["Accuracy / NLL on the test set, means over seeds. `shuffled`: accuracy of the control.\n"]
    text += [f"## {kind}\n\n{table(rows, kind)}\n" for kind in ("single", "ensemble")]
    with atomic_path(RESULTS / "one_shot_lenet.md") as partial:
        partial.write_text("\n".join(text), encoding="utf-8")


def main() -> None:
    """Compute what is missing, and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/one-shot"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(COMPARISON.seeds))
    parser.add_argument("--methods", nargs="+", default=list(TRACKS["one-shot"]))
    chosen = parser.parse_args()
    comparison = replace(COMPARISON, seeds=tuple(chosen.seeds), methods=tuple(chosen.methods))
    with interruption_in_words():
        write(compare(comparison, chosen.out, chosen.jobs))


if __name__ == "__main__":
    main()
