"""Dhahri et al.'s LeNet on Fashion-MNIST: their network and schedule, with the defects of the released code mended.

    python -m experiments.dhahri.lenet --seeds 0 1 2 3 --device cuda

SGD with momentum, batches of 128, learning rate 0.1 on a cosine, 100 epochs, the prior updated every fifth epoch by 100
steps of Adam; then masked once without any further training, single weights and whole units. Where the released code
keeps the last minibatch's curvature only, here it is that of all the data; the baseline is theirs, a weight decay of
1 / N. Exact curvature costs ten backward passes, so a run takes 300 epochs' worth: use a GPU, or shorten it with
--epochs and --data fashion-mnist-subset.
"""

import dataclasses
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from experiments import shared
from experiments.dhahri import common
from sgmcmc_prune import models
from sgmcmc_prune.baselines.laplace import OnlinePruning, Recipe
from sgmcmc_prune.cells import product
from sgmcmc_prune.run.checks import check_device
from sgmcmc_prune.run.data import load_data
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace

SPARSITIES = (0.2, 0.4, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
#: Steps of an epoch: 60,000 images in batches of 128.
EPOCH, EPOCHS = 469, 100
COMMON = Recipe(steps=EPOCHS * EPOCH, batch_size=128, optimizer="sgd", lr=0.1, lr_min=1e-6, every=5 * EPOCH)


def variant(**changes: object) -> Recipe:
    """The common recipe with changes."""
    return dataclasses.replace(COMMON, **changes)  # type: ignore[arg-type]


TRAININGS = {
    "MAP": variant(prior="scalar", burn_in=10**6),
    "scalar, diagonal": variant(prior="scalar"),
    "layerwise, diagonal": variant(prior="layerwise"),
    "unitwise, diagonal": variant(prior="unitwise"),
    "parameterwise, diagonal": variant(),
    "layerwise, KFAC": variant(prior="layerwise", structure="kfac"),
    "unitwise, KFAC": variant(prior="unitwise", structure="kfac"),
    "parameterwise, KFAC": variant(structure="kfac"),
    "parameterwise, diagonal, online 99 % hard": variant(online=OnlinePruning(every=10 * EPOCH)),
    "parameterwise, diagonal, online 99 % regrow": variant(online=OnlinePruning(every=10 * EPOCH, mode="regrow")),
}


class LeNet(nn.Module):
    """The authors' variant: ReLU, max pooling, a 3x3 second convolution; 60,170 parameters."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(input_shape[0], 6, 5), nn.Conv2d(6, 16, 3)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1, self.fc2 = nn.Linear(120, 84), nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, 1, 28, 28) to logits."""
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        x = F.max_pool2d(self.conv2(x).relu(), 2)
        return self.fc2(self.fc1(self.conv3(x).relu().flatten(1)).relu())


def run(training: str, seed: int, data: str, epochs: int, device: str) -> dict[str, Any]:
    """One cell."""
    changes = {"data.name": data, "data.validation": 0, "device": device}
    loaded = load_data(replace(PRESETS["fashion-mnist"](), **changes))

    def network(seed: int) -> nn.Module:
        return models.build("experiments.dhahri.lenet:LeNet", (1, 28, 28), 10, seed=seed).to(device)

    experiment = common.Experiment(network, loaded.train, loaded.test, SPARSITIES, "fc2.weight")
    return common.run_cell(experiment, dataclasses.replace(TRAININGS[training], steps=epochs * EPOCH), seed)


def main(argv: list[str] | None = None) -> None:
    """Run the cells that are missing, then write the tables."""
    text = __doc__ or ""
    p = common.parser(text, "dhahri_lenet", list(TRAININGS))
    p.add_argument("--data", choices=("fashion-mnist", "fashion-mnist-subset"), default="fashion-mnist")
    p.add_argument("--epochs", type=int, default=EPOCHS)
    p.add_argument("--device", default="cpu")
    a = p.parse_args(argv)
    check_device(a.device)
    if (a.data, a.epochs) != ("fashion-mnist", EPOCHS) and a.out.parent == shared.results(__file__):
        p.error("a shortened run is no benchmark: give --out")
    axes, settings = {"training": a.trainings, "seed": a.seeds}, {"data": a.data, "epochs": a.epochs}
    cells = product(run, axes, settings, {"device": a.device})
    common.run(a, cells, "SpaM and OPD: LeNet on Fashion-MNIST", text, 1 if a.device == "cpu" else None)


if __name__ == "__main__":
    main()
