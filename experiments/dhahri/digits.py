"""Dhahri et al. on a small network: what does the marginal likelihood add to pruning, and by which prior and curvature?

    python -m experiments.dhahri.digits --seeds 0 1 2 3

An MLP 64-256-10 on scikit-learn's handwritten digits (1,437 training and 360 test images, standardised), trained with
Adam for 50 epochs under each prior, then masked once without any further training. As in the authors' code biases are
pruned too and the sparsity of single weights counts all 19,210 parameters. Nothing is chosen on the test images.
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from experiments.dhahri import common
from sgmcmc_prune import models
from sgmcmc_prune.baselines.laplace import OnlinePruning, Recipe
from sgmcmc_prune.cells import product

#: Steps of an epoch: 1,437 images in batches of 64.
EPOCH = 23


def variant(**changes: object) -> Recipe:
    """The common recipe with changes: 50 epochs, the prior updated after each."""
    return dataclasses.replace(Recipe(steps=50 * EPOCH, every=EPOCH), **changes)  # type: ignore[arg-type]


def online(**changes: object) -> OnlinePruning:
    """Masks every tenth epoch, up to 95 %."""
    return OnlinePruning(final=0.95, every=10 * EPOCH, **changes)  # type: ignore[arg-type]


#: The trainings: plain weight decay with delta = 1 (the prior is never updated), then SpaM.
TRAININGS: dict[str, Recipe] = {
    "MAP": variant(prior="scalar", burn_in=51 * EPOCH),
    "scalar, diagonal": variant(prior="scalar"),
    "layerwise, diagonal": variant(prior="layerwise"),
    "unitwise, diagonal": variant(prior="unitwise"),
    "parameterwise, diagonal": variant(),
    "parameterwise, diagonal, closed form": variant(update="closed_form"),
    "parameterwise, diagonal, Monte-Carlo GGN": variant(estimator="monte_carlo"),
    "parameterwise, diagonal, empirical Fisher": variant(estimator="empirical"),
    "layerwise, KFAC": variant(prior="layerwise", structure="kfac"),
    "unitwise, KFAC": variant(prior="unitwise", structure="kfac"),
    "parameterwise, KFAC": variant(structure="kfac"),
    "parameterwise, diagonal, online 95 % hard": variant(online=online()),
    "parameterwise, diagonal, online 95 % regrow": variant(online=online(mode="regrow")),
}


def load_digits() -> tuple[common.Split, common.Split]:
    """Training and test images, standardised by the training images; the split is always the same."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise SystemExit("the digits come with scikit-learn, which is missing here: pip install scikit-learn") from None
    inputs, labels = (torch.from_numpy(array) for array in load(return_X_y=True))
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    train, test = order[:1437], order[1437:]
    std = inputs[train].std(0)
    inputs = ((inputs - inputs[train].mean(0)) / torch.where(std > 0, std, torch.ones_like(std))).float()
    return (inputs[train], labels[train]), (inputs[test], labels[test])


def build(seed: int) -> nn.Module:
    """The network at its own random start."""
    return models.build("mlp", (64,), 10, seed=seed, widths=(256,), activation="relu")


def run(training: str, seed: int) -> dict[str, Any]:
    """One cell."""
    experiment = common.Experiment(build, *load_digits(), (0.8, 0.9, 0.95, 0.99), "layers.1.weight")
    return common.run_cell(experiment, TRAININGS[training], seed)


def main(argv: list[str] | None = None) -> None:
    """Run the cells that are missing, then write the tables."""
    text = __doc__ or ""
    a = common.parser(text, "dhahri_digits", list(TRAININGS)).parse_args(argv)
    load_digits()  # says what is missing before anything starts
    common.run(a, product(run, {"training": a.trainings, "seed": a.seeds}), "SpaM and OPD on the digits", text)


if __name__ == "__main__":
    main()
