"""Jantre, Bhattacharya and Maiti, beside ours: LeNet at the desk, a teacher, UCI sets; their own networks are owed."""

from typing import Any

from experiments.figures import FAMILY_NAMES
from experiments.jantre import figure_images, figure_teacher, figure_uci, images, teacher, uci
from experiments.papers import Claim, Figure, Ours, Paper, Script, ahead, every, number
from sgmcmc_prune import models

LENET, MLP, CAFFE = (f"jantre_{name}_fashion-mnist" for name in ("lenet", "mlp", "lenet-caffe"))
DESK = "--network lenet --epochs 20 --batch 256 --lr 3e-3 --gate-lr 3e-2 --std-lr 1e-2 --warm-up 0.5 --test"
RESNET = "--network resnet20 --data cifar10 --epochs 300 --batch 128 --test"
LOG, ABSTRACT, NOWHERE = "their log, one seed", "abstract: competitive", "in no released code"
LACKS = "`jantre.images` with augmentation, SGD, fine-tuning and gates of the residual stream, which it lacks"
#: First and second family, and the score; fewer parameters are better.
PAIRS = [
    ("ss_ghs", "ss_ig", "accuracy"),
    ("ss_gl", "ss_ig", "accuracy"),
    ("ss_ghs", "svbnn", "accuracy"),
    ("ss_ghs", "ss_ig", "parameters"),
    ("ss_gl", "ss_ig", "parameters"),
]
#: Their logs on CIFAR-10, three seeds, last epoch, %.
RESNETS = {
    "ResNet-20": "SS-IG 92.89 ± .12, SS-GL 93.07 ± .06, SS-GHS 92.98 ± .20",
    "ResNet-32": "SS-IG 92.87 ± .40, SS-GL 93.20 ± .27, SS-GHS 93.31 ± .28",
}
#: Their logs on Fashion-MNIST: the file of ours, family, accuracy.
LOGS = [(MLP, "ss_ig", 0.8452), (MLP, "svbnn", 0.8477), (CAFFE, "ss_ig", 0.8766), (CAFFE, "svbnn", 0.8790)]


def of(content: Any, family: str, key: str) -> dict[int, float]:
    """A score of the pruned network by seed, or of its Monte Carlo predictive ("monte_carlo"), or a field."""
    runs = [run for run in content["runs"] if run["family"] == family]
    how = {"accuracy": "median_mean", "monte_carlo": "monte_carlo"}.get(key)
    return {run["seed"]: run["predictors"][how]["accuracy"] if how else run[key] for run in runs}


def between(first: str, second: str, key: str) -> Any:
    """A reader: one family against another."""
    return lambda content: ahead(of(content, first, key), of(content, second, key), 4, lower=key != "accuracy")


def faster(content: Any) -> Ours | None:
    """Whether the network pruned by SS-GHS is faster than the dense one, at 128 images."""
    runs = [run for run in content["runs"] if run["family"] == "ss_ghs" and "latency" in run]
    ratios = {run["seed"]: run["latency"]["128"]["ratio"]["median"] for run in runs}
    return ahead(ratios, dict.fromkeys(ratios, 1.0), 3, lower=True)


def found_two(content: Any) -> Ours | None:
    """Whether two nodes stay of 20, after elimination, from either start."""
    return every([run["kept_after_elimination"] == 2 for run in content["runs"]], "two nodes stay, after elimination,")


def rmse(name: str) -> Any:
    """A reader: the horseshoe against the plain slab on a UCI set, paired by split."""

    def read(content: Any) -> Ours | None:
        runs = [run for run in content["runs"] if run["set"] == name]
        pair = [{r["split"]: r["rmse"]["median_mean"] for r in runs if r["family"] == f} for f in ("ss_ghs", "ss_ig")]
        return ahead(*pair, 3, lower=True, what="split")

    return read


def ours(command: str, activation: str) -> dict[str, Any]:
    """Our settings of a command line of `images`."""
    built = {name: images.build_network(name, (1, 28, 28), 10, 0) for name in ("mlp", "lenet-caffe")}
    return {
        **vars(images.options(command.split())),
        **{f"{name}, parameters": models.num_parameters(network) for name, network in built.items()},
        "activation": activation,
        "schedule": "cosine",
        "optimiser": "Adam on a cosine",
        "augmentation": "none",
        "regulariser c": "learned",
        "inclusion": 1e-4,
        "gated": "filters inside the blocks",
        "fine-tuning": "none",
        "checkpoint": "the last",
    }


def desk(text: str, read: Any, paper: str = "not read", authors: str = "none", owed: str = "") -> Claim:
    """A row that is read from our LeNet."""
    return Claim(f"{text} (our LeNet, Fashion-MNIST)", paper, authors, None, LENET, read, owed, "lenet at the desk")


PAPER = Paper(
    title="Jantre, Bhattacharya and Maiti: spike-and-slab shrinkage priors for structurally sparse Bayesian networks",
    arxiv="2308.09104",
    known="The abstract and the opening could be read, and all of the released code of this paper and its predecessor "
    "with their logs. None of the printed tables and figures could be read; the logs may not be the runs behind them.",
    folder="jantre",
    scripts=[
        Script("jantre.images", images.main, f"{DESK} --out {{out}}", None, device=True),
        Script("jantre.images", images.main, None, "--network mlp --test --out {out}", device=True),
        Script("jantre.images", images.main, None, "--network lenet-caffe --test --out {out}", device=True),
        Script("jantre.images", images.main, None, f"{RESNET} --out {{out}}", "CIFAR-10", device=True),
        Script("jantre.teacher", teacher.main, "--out {out}", "--out {out}"),
        Script("jantre.uci", uci.main, "--out {out}", "--out {out}", "UCI_Datasets", seeds="--splits"),
    ],
    claims=[
        *(
            desk(f"{k.title()}: {FAMILY_NAMES[a]} against {FAMILY_NAMES[b]}, pruned", between(a, b, k), ABSTRACT)
            for a, b, k in PAIRS
        ),
        desk(
            "Latency: the network pruned by SS-GHS is faster than the dense one",
            faster,
            ABSTRACT,
            "no code and no numbers",
            "`jantre.images`",
        ),
        *(
            Claim(
                f"CIFAR-10, {network}: SS-GL and SS-GHS keep up with SS-IG",
                ABSTRACT,
                f"{theirs} % (their logs, 3 seeds, last epoch)",
                owed=LACKS,
                about="resnet",
            )
            for network, theirs in RESNETS.items()
        ),
        Claim(
            "MNIST, MLP: SS-GHS is sparser and more accurate than SS-IG",
            ABSTRACT,
            f"97.30 against 96.86 %, 6 against 17 % of the first layer's nodes ({LOG})",
            owed="`jantre.images --data mnist --data-dir DIR` at the paper's budget",
        ),
    ],
    numbers=[
        *(
            Claim(
                f"Fashion-MNIST, their {'MLP' if file == MLP else 'LeNet'}, "
                f"{FAMILY_NAMES[family]}: accuracy, Monte Carlo",
                authors=LOG,
                figure=figure,
                results=file,
                read=lambda content, family=family: number(of(content, family, "monte_carlo"), 4),
                owed="`jantre.images` at the paper's budget",
                about="mlp and lenet-caffe",
            )
            for file, family, figure in LOGS
        ),
        *(
            desk(f"{FAMILY_NAMES[f]}: {key}, pruned", lambda content, f=f, key=key: number(of(content, f, key), 4))
            for f in images.FAMILIES
            for key in ("accuracy", "parameters")
        ),
        Claim("A teacher with two nodes, of 20", authors=NOWHERE, results="jantre_teacher", read=found_two),
        *(
            Claim(f"UCI {s}: RMSE, SS-GHS against SS-IG, pruned", authors=NOWHERE, results="jantre_uci", read=rmse(s))
            for s in ("yacht", "energy", "bostonHousing", "concrete", "wine-quality-red")
        ),
    ],
    figures=[
        Figure(
            "jantre_lenet",
            "LeNet by family: likelihood, divergence and open gates, nodes kept, accuracy against multiply-adds.",
            LENET,
            figure_images.draw,
        ),
        Figure(
            "jantre_teacher",
            "How many of 20 nodes SS-IG keeps when the teacher has two, from a low and a high start of the gates.",
            "jantre_teacher",
            figure_teacher.draw,
        ),
        Figure(
            "jantre_uci",
            "Test error and log density on five UCI sets by family, of draws and of the pruned network.",
            "jantre_uci",
            figure_uci.of_results,
        ),
    ],
    ours={
        "lenet at the desk": lambda: ours(DESK, "tanh"),
        "mlp and lenet-caffe": lambda: ours("", "SiLU"),
        "resnet": lambda: ours(RESNET, "ReLU"),
        "teacher and uci": dict,
    },
)
