"""A public ResNet-20, pruned once by each criterion and not trained again: rows of ours in a table that others publish.

    python -m experiments.ours.public_checkpoint --checkpoint resnet20_cifar10.pth.tar --data-dir DIR

The checkpoint is that of CHITA (Benbaki et al., ICML 2023; their public repository has it), which they and the papers
that they compare with start from. It is not ours to ship. Its inputs are normalised as theirs are, and the examples of
curvatures and of batch normalisation are cropped and flipped as in training. Seeds differ in these examples. Our images
are re-encoded as JPEG, which the network never saw: dense it has 0.8300 on them, and 0.9196 by the checkpoint's record
on the original ones. So rows compare with each other alone. Every network's batch normalisation is estimated again.

The row `CHITA, their code` is of their released code in one stage, run beside ours on the same images and not kept
here (`results/public_checkpoint_chita.json`); ours in stages sees twelve times 2,000 examples where theirs sees 8,000.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments import shared, tracks
from sgmcmc_prune.compare.config import Comparison
from sgmcmc_prune.compare.score import Row
from sgmcmc_prune.compare.table import results
from sgmcmc_prune.data.cifar import VERSIONS
from sgmcmc_prune.models.resnet import ResNet
from sgmcmc_prune.models.state import network_state
from sgmcmc_prune.run.config import DataConfig, ModelConfig
from sgmcmc_prune.store.given_weights import read_given_weights

RESULTS = Path(__file__).parent / "results"
METHODS = (
    *("sgd-magnitude-one-shot", "sgd-lamp-one-shot", "obc", "sgd-conditional-fisher", "sgd-conditional-kfac"),
    *("sgd-conditional-ggn", "sgd-conditional-fisher-staged", "sgd-conditional-kfac-staged"),
    "sgd-conditional-ggn-staged",
)
COMPARISON = Comparison(
    track="one-shot",
    methods=METHODS,
    sparsities=(0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    data=DataConfig(name="cifar10", validation=5000, batch_size=128, augmentation="crop_flip"),
    model=ModelConfig(name="experiments.ours.public_checkpoint:network"),
    evaluate="test",
)


class AsTheirs(nn.Module):
    """Takes pixels as this library normalises them, and gives them as the checkpoint was trained on them."""

    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)

    def __init__(self) -> None:
        super().__init__()
        own = VERSIONS["cifar10"]
        for name, values in {"mean": self.mean, "std": self.std, "own_mean": own.mean, "own_std": own.std}.items():
            self.register_buffer(f"_{name}", torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Change the units of images (n, 3, height, width)."""
        return (x * self._own_std + self._own_mean - self._mean) / self._std


def network(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Their ResNet-20: shortcuts are 1x1 convolutions."""
    return nn.Sequential(AsTheirs(), ResNet(input_shape, num_classes, blocks=(3, 3, 3), width=16))


def renamed(checkpoint: Path, out: Path) -> Path:
    """Their weights by our names: both architectures list the same layers in the same order."""
    theirs, ours = read_given_weights(checkpoint), network_state(network((3, 32, 32), 10))
    start = out / "start.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    save_file(dict(zip(ours, theirs.values(), strict=True)), start)
    return start


def table(rows: Sequence[Row]) -> str:
    """Accuracy / NLL by method and sparsity, means over seeds."""
    lines = tracks.lines(results(rows, "single"), COMPARISON.sparsities)
    theirs = json.loads((RESULTS / "public_checkpoint_chita.json").read_text())["rows"]
    cells = ["{:.4f} / {:.3f}".format(*row["estimated_again"]) for row in theirs]
    lines.append(["CHITA, their code", str(len({row["seed"] for row in theirs})), *cells])
    return shared.markdown(("method", "seeds", *(f"{s:.0%}" for s in COMPARISON.sparsities)), lines)


def write(rows: Sequence[Row]) -> None:
    """The table of all rows as CSV, and for readers."""
    text = f"Accuracy / NLL on the test set, means over seeds.\n\n{table(rows)}"
    tracks.write(rows, RESULTS / "public_checkpoint", "One shot: a public ResNet-20 on CIFAR-10", __doc__, text)


def main() -> None:
    """Compute what is missing, and write both tables."""
    p = tracks.parser(__doc__, COMPARISON, "runs/public-checkpoint")
    p.add_argument("--checkpoint", type=Path, required=True)
    p.add_argument("--data-dir", type=Path, required=True)
    chosen = p.parse_args()
    start = renamed(chosen.checkpoint, chosen.out)
    write(tracks.compared(COMPARISON, chosen, start=start, **{"data.data_dir": chosen.data_dir}))


if __name__ == "__main__":
    main()
