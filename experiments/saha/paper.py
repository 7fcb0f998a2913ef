"""Saha, Liu and Liang, beside two reconstructions of ours: features and pruning on simulated designs."""

from collections.abc import Iterable
from typing import Any

from experiments.papers import Claim, Figure, Ours, Paper, Script, ahead, every, number
from experiments.saha import features, figure_features, figure_sun, sun
from sgmcmc_prune.data.simulated import DESIGNS

R1 = "R1 group"
HARD = '--hard --steps 8000 --methods "input gates" "R1 group" --seeds 0 1 2'
ALL = "abstract: in all experiments"


def of(content: Any, method: str, design: int | None = None) -> list[dict[str, Any]]:
    """The runs of a method, on a design."""
    return [run for run in content["runs"] if run["method"] == method and run.get("design") == design]


def selected(method: str, design: int | None = None) -> Any:
    """A reader: whether the selected inputs are the relevant ones."""

    def read(content: Any) -> Ours | None:
        runs = of(content, method, design)
        exact = [(r["true_positives"], r["false_positives"]) == (r.get("relevant", 5), 0) for r in runs]
        return every(exact, "exactly the relevant inputs")

    return read


def generalises(method: str, design: int | None = None) -> Any:
    """A reader: whether posterior means predict better after pruning than before, paired by data set."""

    def read(content: Any) -> Ours | None:
        scores = {run["seed"]: run.get("score") or run["rmse"] for run in of(content, method, design)}
        after, before = ({seed: s[key] for seed, s in scores.items()} for key in ("median_mean", "mean"))
        return ahead(after, before, 3, lower=design is None or not DESIGNS[design].binary, what="data set")

    return read


def total(method: str, key: str, design: int | None = None) -> Any:
    """A reader: how many inputs were found, on average."""
    return lambda c: number({r["seed"]: r[key] for r in of(c, method, design)}, 2, "data set")


SETS = [
    *((f"Sun et al.'s design {d} ({DESIGNS[d].num_inputs} correlated inputs)", "saha_sun", d) for d in (4, 2, 3)),
    ("independent inputs, n = 10,000, p = 100", "saha_features", None),
    ("independent inputs, n = 3,000, p = 200", "saha_features_hard", None),
]


def on_each(text: str, paper: str, reader: Any, methods: Iterable[str] = (R1,)) -> list[Claim]:
    """A claim on each set of designs."""
    return [
        Claim(f"{text} ({method}): {label}", paper, results=file, read=reader(method, design), about="features")
        for label, file, design in SETS
        for method in methods
    ]


PAPER = Paper(
    title="Saha, Liu and Liang: efficient variational sparse Bayesian networks for model compression and features",
    arxiv="2411.00273",
    known="Abstracts and a third-party summary alone could be read, and no code was found: not one number of the paper "
    "is known. R1 (a continuous spike) and R2 (a point) are reconstructions; input gates are ours for comparison.",
    folder="saha",
    scripts=[
        Script("saha.sun", sun.main, "--out {out}", "--out {out}"),
        Script("saha.features", features.main, "--out {out}", "--out {out}"),
        Script("saha.features", features.main, f"{HARD} --out {{out}}", f"{HARD} --out {{out}}"),
    ],
    claims=[
        *on_each("Inclusion probabilities select the features", "abstract: simulated and real data", selected),
        *on_each("The pruned model generalises better", ALL, generalises),
        Claim(
            "Every node has an inclusion probability, by which nodes are pruned",
            "abstract",
            owed="a script that prunes by node (the families are there)",
        ),
        Claim("The same on real benchmark data", "abstract", owed="a script on real data, by node and by input"),
    ],
    numbers=[
        *on_each("True inputs found", "not read", lambda m, d: total(m, "true_positives", d), (R1, "input gates")),
        *on_each("False inputs found", "not read", lambda m, d: total(m, "false_positives", d), (R1, "input gates")),
    ],
    figures=[
        Figure(
            "saha_sun",
            "Found and false inputs, and the error before and after pruning, on three designs of Sun et al.",
            "saha_sun",
            figure_sun.draw,
        ),
        Figure(
            "saha_features",
            "Inclusion of every input, rates against the threshold, and error before and after pruning (p = 100).",
            "saha_features",
            figure_features.draw,
        ),
        Figure(
            "saha_features_hard",
            "The same with fewer data and more inputs (p = 200): the pair that acts by its product alone is missed.",
            "saha_features_hard",
            figure_features.draw,
        ),
    ],
    ours={
        "features": lambda: {"network": "fully connected", "spike and slab on": "inputs of the first layer, as groups"}
    },
)
