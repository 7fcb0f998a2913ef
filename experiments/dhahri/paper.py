"""Dhahri et al., beside ours: a small network on the digits, and LeNet, which is owed."""

import dataclasses
from typing import Any

from experiments.dhahri import digits, figure, lenet
from experiments.papers import Claim, Figure, Ours, Paper, Script, ahead, number
from sgmcmc_prune import models

DIGITS, LENET = "dhahri_digits", "dhahri_lenet"
BEST, BASE = "parameterwise, diagonal", "MAP"
KFAC = "caption of figure 1: KFAC or a diagonal"
CHEAP = "abstract: a cheap criterion; how good it is was not read"
MANY = "abstract: many networks and data sets"
#: First and second training and score, sparsity, what the first is said to be ahead in, and where.
CLAIMS = [
    *(
        (BEST, "OPD", BASE, "OPD", s, "SpaM makes networks prunable: ahead of MAP", "abstract")
        for s in (0.9, 0.95, 0.99)
    ),
    ("layerwise, KFAC", "OPD", BASE, "OPD", 0.95, "The same with KFAC and a layerwise prior", KFAC),
    ("parameterwise, KFAC", "OPD", BASE, "OPD", 0.95, "The same with KFAC and a parameterwise prior", KFAC),
    *((BEST, "OPD, units", BASE, "OPD, units", s, "The same with whole units", "abstract") for s in (0.75, 0.9)),
    *((BEST, "OPD", BEST, "magnitude", s, "OPD is ahead of magnitude under SpaM", CHEAP) for s in (0.95, 0.99)),
    (BEST, "OPD", BEST, "random", 0.95, "OPD is ahead of random masks under SpaM", CHEAP),
]
#: The authors' notebook, LeNet on Fashion-MNIST, single weights; which variant it is, it does not say.
NOTEBOOK = {0.8: 0.8923, 0.9: 0.8909, 0.95: 0.8798, 0.99: 0.266}


def pruned(content: Any, training: str, score: str, sparsity: float) -> dict[int, float]:
    """Accuracy of the masked networks by seed."""
    rows = [(run["seed"], row) for run in content.get(training, ()) for row in run["pruned"]]
    return {seed: r["accuracy"] for seed, r in rows if (r["score"], r["sparsity"]) == (score, sparsity)}


def better(first: str, score: str, second: str, other: str, sparsity: float) -> Any:
    """A reader: one training and score against another, at a sparsity."""

    def read(content: Any) -> Ours | None:
        return ahead(pruned(content, first, score, sparsity), pruned(content, second, other, sparsity), 3)

    return read


def accuracy(training: str, sparsity: float) -> Any:
    """A reader: accuracy of a training when masked by OPD."""
    return lambda content: number(pruned(content, training, "OPD", sparsity), 4)


def settings(module: Any, recipe: Any, online: str) -> dict[str, Any]:
    """Our settings, in epochs."""
    masks, steps = module.TRAININGS[online].online, module.EPOCH
    return {
        **dataclasses.asdict(recipe),
        "epochs": recipe.steps // steps,
        "epochs between updates": recipe.every // steps,
        "online, final": masks.final,
        "online, every so many epochs": masks.every // steps,
        "curvature over": "all training examples",
        "weight decay of MAP": "1 / N",
        "network": "64-256-10 on scikit-learn's digits",
        "parameters": models.num_parameters(lenet.LeNet((1, 28, 28), 10)),
        "sparsities": lenet.SPARSITIES,
        "parameters that are pruned": "all, biases included",
        "fine-tuning of structured networks": "none",
    }


PAPER = Paper(
    title="Dhahri et al.: shaving weights with Occam's razor (SpaM and OPD)",
    arxiv="2402.15978",
    known="The abstract, the start of the introduction and one caption could be read, and all of the released code "
    "with its notebooks. None of the paper's tables or curves could be read.",
    folder="dhahri",
    scripts=[
        Script("dhahri.digits", digits.main, f"--out {{out}}/{DIGITS}", f"--out {{out}}/{DIGITS}"),
        Script("dhahri.lenet", lenet.main, f"--epochs 10 --out {{out}}/{LENET}", f"--out {{out}}/{LENET}", device=True),
    ],
    claims=[
        *(
            Claim(
                f"{text}, {s:.0%} (digits, a network of ours)",
                paper,
                "none",
                None,
                DIGITS,
                better(a, x, b, y, s),
                "",
                "digits",
            )
            for a, x, b, y, s, text, paper in CLAIMS
        ),
        Claim(
            "SpaM is ahead of MAP, 95% (LeNet, Fashion-MNIST)",
            MANY,
            results=LENET,
            read=better(BEST, "OPD", BASE, "OPD", 0.95),
            owed="`dhahri.lenet`",
            about="lenet",
        ),
        Claim("The same for ResNets, MLP-Mixer and transformers", MANY, owed="there is no script"),
        Claim("OPD is cheap: the precision is there already", "abstract", owed="its time beside SNIP's and GraSP's"),
    ],
    numbers=[
        *(
            Claim(
                f"LeNet on Fashion-MNIST, single weights, {s:.0%}",
                authors="a notebook, variant not stated",
                figure=figure_,
                results=LENET,
                read=accuracy(BEST, s),
                owed="`dhahri.lenet`",
                about="lenet",
            )
            for s, figure_ in NOTEBOOK.items()
        ),
        *(
            Claim(f"Digits, {name}, masked by OPD to 95%", results=DIGITS, read=accuracy(name, 0.95), about="digits")
            for name in (BASE, "scalar, diagonal", "unitwise, diagonal", BEST, "parameterwise, KFAC")
        ),
    ],
    figures=[
        Figure(
            DIGITS,
            "Accuracy against sparsity on the digits, single weights and whole units, by prior, curvature and score.",
            DIGITS,
            figure.draw,
        )
    ],
    ours={
        "digits": lambda: settings(digits, digits.TRAININGS[BEST], "parameterwise, diagonal, online 95 % hard"),
        "lenet": lambda: settings(lenet, lenet.COMMON, "parameterwise, diagonal, online 99 % hard"),
    },
)
