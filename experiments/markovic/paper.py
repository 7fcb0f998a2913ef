"""Markovic, Friston and Kiebel, beside ours: one cell of their study, and which are owed."""

import dataclasses
from functools import partial
from typing import Any

from experiments import shared
from experiments.markovic import cifar10, cifar100, common, fashion_mnist, figure_curves, figure_weights
from experiments.papers import Claim, Figure, Ours, Paper, Script, ahead, number
from sgmcmc_prune import models
from sgmcmc_prune.baselines.bmr import paper_recipe

BMR, TIERED, MAP = "bmr-spike-slab", "tiered-ff", "flat-map"
FILE, OWED = "markovic_fashion_mnist", "`markovic.fashion_mnist`, the other methods"
READ_OFF = "their plots, second recipe, one seed"
HORSESHOE = "abstract: advantages over horseshoe priors"
#: What is said, where, the other method, the score, the network, and the authors' two numbers.
CLAIMS = [
    ("Reduction is ahead of the hierarchical horseshoe", HORSESHOE, TIERED, "accuracy", "lenet", ".902 against .889"),
    ("Reduction is ahead of the hierarchical horseshoe", HORSESHOE, TIERED, "nll", "lenet", ".28 against .31"),
    ("Reduction is calibrated better than a point estimate", "not read", MAP, "ece", "lenet", ".014 against .064"),
    ("It carries over to a Vision Transformer", "abstract", TIERED, "accuracy", "vit", ".855 against .832"),
    ("It carries over to an MLP-Mixer", "abstract", TIERED, "accuracy", "mixer", ".868 against .864"),
]
#: LeNet on Fashion-MNIST by BMR, after 50 rounds.
THEIRS = {"accuracy": 0.902, "ece": 0.014, "nll": 0.28, "pruned_fraction": 0.81}


def recipe_of(content: Any) -> str:
    """Their second recipe, or the desk's where a file has no cell of it."""
    return "B" if any(name.startswith("B ") for name in content) else "short"


def final(content: Any, method: str, key: str, network: str = "lenet") -> dict[int, float]:
    """A last score by seed."""
    runs = content.get(f"{recipe_of(content)} {network} {method}", ())
    return {run["seed"]: run["final"][key] for run in runs}


def told(content: Any, ours: Ours | None) -> Ours | None:
    """Ours, with the recipe where that is the desk's."""
    if ours is None or recipe_of(content) == "B":
        return ours
    return dataclasses.replace(ours, text=f"{ours.text}, recipe short")


def against(other: str, key: str, network: str) -> Any:
    """A reader: BMR against another method."""

    def read(content: Any) -> Ours | None:
        scores = [final(content, method, key, network) for method in (BMR, other)]
        return told(content, ahead(*scores, 4, lower=key != "accuracy"))

    return read


def last(key: str) -> Any:
    """A reader: a last score of BMR."""
    return lambda content: told(content, number(final(content, BMR, key), 4))


def recipe(name: str) -> dict[str, Any]:
    """Our settings of BMR."""
    return {
        **dataclasses.asdict(common.Cell(name, "lenet", BMR).settings()),
        "augmentation": "none",
        "validation split": "none",
        "optimiser": "AdaBelief",
        "minibatches": "shuffled epochs",
        "seeds": len(shared.sweep_parser("BMR", FILE, [], __file__).get_default("seeds")),
        "a pruned weight": "zero",
        "last layer": "never pruned",
        "KL": "closed form",
    }


def others() -> dict[str, Any]:
    """Our settings of the other methods."""
    rates = {f"{method}, lr": paper_recipe("B", method).lr for method in common.METHODS}
    return rates | {"dropout of flat-map": common.DROPOUT, "dropout of the others": 0.0}


def networks() -> dict[str, int]:
    """Sizes of our networks for Fashion-MNIST."""
    shape = {name: (1, 32, 32) if name in common.RESIDUAL else (1, 28, 28) for name in common.NETWORKS}
    built = {name: common.build_network(name, shape[name], 10, 0.0) for name in common.NETWORKS}
    return {f"{name}, parameters": models.num_parameters(network) for name, network in built.items()}


def script(module: Any, dataset: str, data: str = "", at_the_desk: bool = False) -> Script:
    """All networks and methods: the authors' second recipe, or ten rounds of it at the desk."""
    main = partial(common.main, dataset, module.__file__, module.__doc__ or "")
    cells = [f"{n} {m}" for n in common.NETWORKS for m in common.METHODS]
    lines = [
        f"--out {{out}}/markovic_{module.__name__.rpartition('.')[2]} --variants "
        + " ".join(f"'{recipe} {cell}'" for cell in cells)
        for recipe in ("short", "B")
    ]
    return Script(module.__name__.removeprefix("experiments."), main, lines[0] if at_the_desk else None, lines[1], data)


def of_lenet(content: Any) -> list[dict[str, Any]]:
    """The cells of LeNet."""
    return [cell for cell in figure_curves.of_recipe(content) if cell["cell"]["network"] == "lenet"]


PAPER = Paper(
    title="Markovic, Friston and Kiebel: Bayesian sparsification with Bayesian model reduction",
    arxiv="2309.12095",
    known="Title, abstract and the first lines could be read, and all of the released code. None of the paper's tables "
    "could be read; numbers of the authors are digitised from the pictures in their notebook (accuracy ± 0.002, ECE ± "
    "0.002, NLL ± 0.01, pruned share ± 0.004), which exist in two generations that differ.",
    folder="markovic",
    scripts=[
        script(fashion_mnist, "fashion-mnist", at_the_desk=True),
        script(cifar10, "cifar10", "CIFAR-10"),
        script(cifar100, "cifar100", "CIFAR-100"),
    ],
    claims=[
        *(
            Claim(
                f"{text}: {key} ({network}, Fashion-MNIST)",
                paper,
                f"{theirs} ({READ_OFF})",
                results=FILE,
                read=against(other, key, network),
                owed=OWED,
                about="bmr",
            )
            for text, paper, other, key, network, theirs in CLAIMS
        ),
        Claim("Reduction is cheaper than the hierarchical model", "abstract", owed="seconds of both", about="bmr"),
        Claim(
            "The same on CIFAR-10 and CIFAR-100: accuracy (LeNet)",
            authors=".632 against .596 and .297 against .271 (their plots, second recipe, one seed)",
            owed="`markovic.cifar10`, `markovic.cifar100`",
            about="the other methods",
        ),
    ],
    numbers=[
        Claim(
            f"BMR, LeNet on Fashion-MNIST: {key.replace('_', ' ')}",
            authors=READ_OFF,
            figure=figure,
            results=FILE,
            read=last(key),
            about="bmr",
        )
        for key, figure in THEIRS.items()
    ],
    figures=[
        Figure(
            "markovic_curves",
            "Accuracy, calibration error, NLL and pruned share by round (after figures 1 and 2 of the notebook).",
            FILE,
            lambda content: figure_curves.draw(figure_curves.of_recipe(content)),
        ),
        Figure(
            "markovic_weights",
            "The posterior means of LeNet's weights by layer, and six filters (after figures 3 and 4 of the notebook).",
            FILE,
            lambda content: figure_weights.draw(of_lenet(content)),
        ),
    ],
    ours={
        "bmr": partial(recipe, "B"),
        "short": partial(recipe, "short"),
        "the other methods": others,
        "networks": networks,
    },
)
