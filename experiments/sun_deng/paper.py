"""Deng et al. and Sun et al., beside ours: ResNets on CIFAR-10, all of which are owed."""

from experiments import literature
from experiments.papers import Claim, Paper
from experiments.sun_deng import deng_resnet20, sun_resnet

DENG_FILE, SUN_FILE = "deng_resnet20_{budget}", "sun_resnet_{budget}"
SA, EM, FIXED = deng_resnet20.CLAIM

DENG = Paper(
    title="Deng, Zhang, Liang and Lin: an adaptive empirical Bayesian method for sparse deep learning",
    arxiv="1910.10791",
    known="The released code, logs, poster and slides could be read; figures are of these.",
    folder="sun_deng",
    scripts=[literature.script(deng_resnet20, "CIFAR-10")],
    claims=[
        Claim(
            f"{first} beats {second} at {target:.0%}",
            "poster, NeurIPS 2019",
            authors,
            results=DENG_FILE,
            read=literature.better(first, second, target),
            owed="`sun_deng.deng_resnet20`",
            about="resnet-20",
        )
        for first, second, target, authors in (
            (SA, EM, 0.9, "91.68 against 91.12 %, both annealed; released logs 91.56 against 89.88 %"),
            (EM, FIXED, 0.9, "91.12 against 90.59 %, both annealed"),
            (SA, EM, 0.7, "93.74 against 93.41 %, both annealed"),
            (SA, EM, 0.5, "94.27 against 94.19 %, both annealed"),
        )
    ],
    numbers=[
        Claim(
            f"ResNet-20, {SA}, {target:.0%}: accuracy, %",
            authors="SGHMC-SA, poster",
            figure=figure,
            results=DENG_FILE,
            read=literature.accuracy(SA, target),
            owed="`sun_deng.deng_resnet20`",
            about="resnet-20",
        )
        for target, figure in ((0.5, 94.11), (0.7, 93.52), (0.9, 91.45))
    ],
    figures=[literature.figure(deng_resnet20)],
    ours={
        "resnet-20": lambda: literature.described(
            deng_resnet20.EXPERIMENT, SA, **{"starts from": "300 epochs of the chain itself"}
        )
    },
)

SUN = Paper(
    title="Sun, Song and Liang: consistent sparse deep learning",
    arxiv="2102.13229",
    known="The released code and a README could be read; figures are those of the sibling paper's README.",
    folder="sun_deng",
    scripts=[literature.script(sun_resnet, "CIFAR-10")],
    claims=[
        Claim(
            "A tenth of the weights is enough for ResNet-20 and ResNet-32",
            "not read",
            "91.26 (.02) % and 92.74 (.10) % (README)",
            owed="`sun_deng.sun_resnet`",
            about="resnet-20",
        )
    ],
    numbers=[
        Claim(
            f"{variant}, in the chain at {target:.0%}: accuracy, %",
            authors=f"README, {kept} % of the weights left",
            figure=figure,
            results=SUN_FILE,
            read=literature.accuracy(variant, target),
            owed="`sun_deng.sun_resnet`",
            about="resnet-20",
        )
        for variant, target, kept, figure in (
            ("resnet20 T=1e-4", 0.9, 9.88, 91.26),
            ("resnet32 T=1e-4", 0.9, 8.77, 92.74),
            ("resnet32 95% T=1e-4", 0.95, 4.99, 91.39),
        )
    ],
    figures=[literature.figure(sun_resnet)],
    ours={
        "resnet-20": lambda: literature.described(
            sun_resnet.EXPERIMENT, "resnet20 T=1e-4", **{"spike from epoch": 0, "fine-tuning": "none"}
        )
    },
)
