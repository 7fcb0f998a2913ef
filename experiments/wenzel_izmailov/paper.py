"""Wenzel et al. and Izmailov et al., beside ours: is T = 1 the best temperature? Both are owed."""

from experiments import literature
from experiments.papers import Claim, Paper
from experiments.wenzel_izmailov import cold_posterior, resnet20_frn

WENZEL = Paper(
    title="Wenzel et al.: how good is the Bayes posterior in deep neural networks really?",
    arxiv="2002.02405",
    known="The released code could be read, and none of the paper's numbers.",
    folder="wenzel_izmailov",
    scripts=[literature.script(cold_posterior, "CIFAR-10")],
    claims=[
        Claim(
            text,
            "finding of the paper",
            results="wenzel_cold_posterior_{budget}",
            read=read,
            owed=f"`wenzel_izmailov.cold_posterior`{more}",
            about="resnet-20",
        )
        for text, read, more in (
            ("A cold posterior (T = 0.01) beats T = 1", literature.better("T=0.01", "T=1"), ""),
            ("T = 1 is worse than SGD", lambda content: None, " with `--control sgd`"),
            (
                "The same without augmentation and batch normalisation (our question)",
                literature.better("likelihood kept T=0.01", "likelihood kept T=1"),
                "",
            ),
        )
    ],
    figures=[literature.temperatures(cold_posterior)],
    ours={"resnet-20": lambda: literature.described(cold_posterior.EXPERIMENT, "T=1")},
)

IZMAILOV = Paper(
    title="Izmailov et al.: what are Bayesian neural network posteriors really like?",
    arxiv="2104.14421",
    known="The released code and the paper's opening could be read, and none of its tables.",
    folder="wenzel_izmailov",
    scripts=[literature.script(resnet20_frn, "CIFAR-10")],
    claims=[
        Claim(
            "Tempering is not needed (our test: T = 1 predicts better than T = 0.1)",
            "statement of the paper",
            results="izmailov_resnet20_frn_{budget}",
            read=literature.better("SGHMC T=1", "SGHMC T=0.1"),
            owed="`wenzel_izmailov.resnet20_frn` (the small record is far from stationary, and no evidence)",
            about="resnet-20-frn",
        )
    ],
    figures=[literature.temperatures(resnet20_frn)],
    ours={
        "resnet-20-frn": lambda: literature.described(
            resnet20_frn.EXPERIMENT, "SGHMC T=1", reference="none: SGHMC at T = 1"
        )
    },
)
