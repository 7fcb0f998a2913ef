"""Zhang et al., beside ours: cyclical SG-MCMC with ResNet-18 on CIFAR-10, which is owed."""

from experiments import literature
from experiments.papers import Claim, Paper
from experiments.zhang import csgmcmc_resnet18

FILE, OWED, ABOUT = "csgmcmc_resnet18_{budget}", "`zhang.csgmcmc_resnet18`", "resnet-18"
CYCLICAL, PLAIN = csgmcmc_resnet18.CLAIM

PAPER = Paper(
    title="Zhang et al.: cyclical stochastic gradient MCMC for Bayesian deep learning",
    arxiv="1902.03932",
    known="The released code and its README could be read, with test errors.",
    folder="zhang",
    scripts=[literature.script(csgmcmc_resnet18, "CIFAR-10")],
    claims=[
        Claim(
            f"{first} beats {second}",
            "README",
            authors,
            results=FILE,
            read=literature.better(first, second),
            owed=OWED,
            about=ABOUT,
        )
        for first, second, authors in (
            (CYCLICAL, PLAIN, "95.73 ± .03 against 95.07 ± .10 %"),
            ("cyclical SGLD", "SGLD", "95.71 ± .06 against 94.80 ± .06 %"),
        )
    ],
    numbers=[
        Claim(
            f"{variant}: accuracy, %",
            authors="README",
            figure=float(accuracy.split()[0]),
            results=FILE,
            read=literature.accuracy(variant),
            owed=OWED,
            about=ABOUT,
        )
        for variant, _, accuracy in csgmcmc_resnet18.PUBLISHED
    ],
    figures=[literature.figure(csgmcmc_resnet18)],
    ours={ABOUT: lambda: literature.described(csgmcmc_resnet18.EXPERIMENT, CYCLICAL)},
)
