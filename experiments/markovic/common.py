"""What the experiments after Markovic, Friston and Kiebel (arXiv 2309.12095) share: networks, data, a cell, the table.

A cell is (recipe, network, method) with a seed. Recipes `A` and `B` are the authors' two sets of settings; `short` is B
with ten rounds and thirty networks in the last prediction. The scripts that they come from differ in more than the
schedule: in A the transformer has a normalisation after its embedding and drops whole paths under flat-map, and the
mixer normalises at its end over tokens and channels together. Here every network is that of B.

As in the authors' scripts, images are normalised per channel and not augmented, those of 28x28 pixels padded to 32x32
but for the MLP, and dropout .2 is for flat-map alone. Different: minibatches pass through shuffled epochs and not
through independent draws; a pruned weight is exactly zero and not 1e-12 (it counts in the inclusion
rate, with delta F = 0, as there); curves average `CURVE_DRAWS` networks, and only the last row as many as the recipe
says.
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import shared
from sgmcmc_prune import data as datasets
from sgmcmc_prune import models
from sgmcmc_prune.baselines.bmr import Recipe, fit, paper_recipe
from sgmcmc_prune.baselines.bmr.posterior import NetworkPosterior
from sgmcmc_prune.baselines.fit import Fit
from sgmcmc_prune.data import hold_out, normalise
from sgmcmc_prune.predictive.metrics import expected_calibration_error, summarise
from sgmcmc_prune.predictive.predict import posterior_predictive
from sgmcmc_prune.pruning import masks

NETWORKS = ("mlp", "lenet", "vit", "mixer")
#: In the paper's figures; `bmr-horseshoe` exists and is in none of them.
METHODS = ("flat-map", "flat-ff", "tiered-ff", "bmr-spike-slab")
RECIPES = ("A", "B", "short")
CURVE_DRAWS = 3
DROPOUT = 0.2
#: Where the distribution of |E w| is read: e^-16 ... e^-1.
GRID = tuple(range(-16, 0))
#: Skip connections pass an empty layer in these.
RESIDUAL = ("vit", "mixer")


class WideLeNet(nn.Module):
    """LeNet for 32x32 colour images: 5x5 convolutions with 18, 48 and 360 channels, then 256 units; tanh throughout."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        sizes = (input_shape[0], 18, 48, 360)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 5) for i, o in itertools.pairwise(sizes))
        self.fc1 = nn.Linear(360, 256)
        self.fc2 = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, 32, 32) to logits (n, classes)."""
        first, second, third = self.convs
        x = F.avg_pool2d(first(x).tanh(), 2)
        x = F.avg_pool2d(second(x).tanh(), 2)
        return self.fc2(self.fc1(third(x).tanh().flatten(1)).tanh())


@dataclass(frozen=True)
class Cell:
    """One fit: its recipe by name, network and method."""

    recipe: str
    network: str
    method: str

    def __str__(self) -> str:
        """The name of the variant, and of its directory."""
        return f"{self.recipe} {self.network} {self.method}"

    def settings(self) -> Recipe:
        """The numbers."""
        if self.recipe != "short":
            return dataclasses.replace(paper_recipe(self.recipe, self.method), count_pruned=True)
        return dataclasses.replace(paper_recipe("B", self.method), rounds=10, draws=30, count_pruned=True)


def build_network(name: str, input_shape: tuple[int, ...], num_classes: int, dropout: float) -> nn.Module:
    """One of the paper's networks; its initial weights are not used by any method."""
    if name == "vit":
        return models.build("vit", input_shape, num_classes, seed=0, dropout=dropout)
    if name == "mixer":
        return models.build("mlp-mixer", input_shape, num_classes, seed=0)
    if name == "mlp":
        model = models.build("mlp", input_shape, num_classes, seed=0, widths=(500,) * 4, activation="silu")
    elif input_shape[1:] == (28, 28):
        model = models.build("lenet", input_shape, num_classes, seed=0)
    else:
        model = WideLeNet(input_shape, num_classes)
    drop_hidden_units(model, dropout)
    return model


def drop_hidden_units(model: nn.Module, rate: float) -> None:
    """Dropout on the input of every linear layer but the first, while training."""
    for layer in [m for m in model.modules() if isinstance(m, nn.Linear)][1:]:
        layer.register_forward_pre_hook(lambda module, x: (F.dropout(x[0], rate, module.training),))


def load(
    name: str, network: str, evaluate: str, seed: int, data_dir: str | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """Training and evaluation split, as the network takes them, and the number of classes."""
    dataset = datasets.load(name, data_dir)
    train, held_out = hold_out(dataset.train, 5000 if evaluate == "validation" else 0, seed)
    pad = 2 if network in RESIDUAL and dataset.train.images.shape[-1] == 28 else 0
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def tensors(part: datasets.Images) -> tuple[Tensor, Tensor]:
        images = F.pad(normalise(part.images, dataset.mean, dataset.std), (pad,) * 4)
        # Channels last makes convolutions faster on a CPU, and changes no value's meaning.
        return images.to(device, memory_format=torch.channels_last), part.labels.to(device)

    return tensors(train), tensors(held_out if evaluate == "validation" else dataset.test), dataset.num_classes


def run_variant(
    dataset: str, variant: str, seed: int, split: str, data_dir: str | None = None, **_: Any
) -> dict[str, Any]:
    """Fit the cell of a variant."""
    cell = Cell(*variant.split())
    return run_cell(dataset, cell, cell.settings(), seed, split, data_dir)


def run_cell(
    dataset: str, cell: Cell, recipe: Recipe, seed: int, split: str, data_dir: str | None = None
) -> dict[str, Any]:
    """Fit one cell: what is measured, JSON-ready."""
    started = time.perf_counter()
    train, test, num_classes = load(dataset, cell.network, split, seed, data_dir)
    dropout = DROPOUT if cell.method == "flat-map" else 0.0
    model = build_network(cell.network, tuple(train[0].shape[1:]), num_classes, dropout).to(train[0].device)
    curve: list[dict[str, Any]] = []

    def evaluate_round(round_: dict[str, Any], posterior: NetworkPosterior) -> None:
        count = 1 if posterior.point else min(CURVE_DRAWS, recipe.draws)
        curve.append(
            {
                **round_,
                **scores(posterior_predictive(model, posterior.draws(count, seed), test[0]).probabilities, test[1]),
            }
        )

    fitted = fit(
        model,
        train,
        cell.method,
        recipe,
        seed=seed,
        allow_empty=cell.network in RESIDUAL,
        after_round=evaluate_round,
    )
    single = summarise(fitted.single(test[0]), test[1])
    return {
        "dataset": dataset,
        "cell": dataclasses.asdict(cell),
        "recipe": dataclasses.asdict(recipe),
        "split": split,
        "seed": seed,
        "parameters": models.num_parameters(model),
        "rounds": curve,
        "final": {
            **scores(fitted.predict(test[0]), test[1]),
            "single_accuracy": single["accuracy"],
            "single_nll": single["nll"],
            "pruned_fraction": fitted.history[-1]["pruned_fraction"],
            "sparsity": masks.sparsity(fitted.mask) if fitted.mask else 0.0,
            "members": fitted.members,
        },
        "weights": weight_summary(fitted),
        "gradient_evaluations": fitted.cost.gradient_evaluations,
        "seconds": time.perf_counter() - started,
    }


def scores(p: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, NLL, and the paper's calibration error (20 bins of equal mass)."""
    summary = summarise(p, labels)
    ece = expected_calibration_error(p, labels, bins=20, binning="mass")
    return {"accuracy": summary["accuracy"], "nll": summary["nll"], "ece": ece}


def weight_summary(fitted: Fit) -> dict[str, Any]:
    """What the figures of weights need: the distribution of |E w| per layer, and the first six units' input weights."""
    mean, mask = {n: p.detach() for n, p in fitted.model.named_parameters()}, fitted.mask or {}
    layers = {}
    for name, w in masks.prunable(fitted.model).items():
        size = mean[name].abs().flatten()
        layers[name] = {
            "below": [float((size < torch.tensor(x).exp()).double().mean()) for x in map(float, GRID)],
            "kept": float(mask[name].double().mean()) if name in mask else 1.0,
            "shape": list(w.shape),
        }
    first = next(iter(layers))
    return {"layers": layers, "first": mean[first][:6].reshape(min(6, len(mean[first])), -1).tolist()}


def table(cells: shared.Cells) -> str:
    """The last row of every cell."""
    columns = ("accuracy", "ece", "nll", "single_accuracy", "single_nll", "pruned_fraction")
    rows = []
    for name, runs in cells.items():
        values = shared.scores([r["final"] for r in runs], columns)
        cost = [f"{runs[0]['gradient_evaluations']:.3g}", shared.interval([r["seconds"] for r in runs], 0)]
        rows.append([*name.split(), str(len(runs)), *values, *cost])
    header = ("recipe", "network", "method", "seeds", "accuracy", "ECE", "NLL", "single acc.", "single NLL", "pruned")
    return shared.markdown((*header, "grad. evals", "seconds"), rows)


def main(dataset: str, script: str, description: str, argv: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, then write the table."""
    cells = [str(Cell(r, n, m)) for r in RECIPES for n in NETWORKS for m in METHODS]
    parser = shared.sweep_parser(description, f"markovic_{Path(script).stem}", cells, script)
    parser.add_argument("--data-dir", type=Path, help="folder of the images; by default they are looked for")
    a = parser.parse_args(argv)
    places = {"dataset": dataset, "data_dir": a.data_dir and str(a.data_dir)}
    finished = shared.sweep(a, run_variant, lambda variant, seed: places)
    shared.write(a, finished, f"Bayesian model reduction: {dataset}", f"{description}\n{table(finished)}")
