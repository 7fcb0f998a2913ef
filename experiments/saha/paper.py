"""Saha, Liu and Liang, beside two reconstructions of ours: features of simulated designs, hidden nodes on real data."""

from collections.abc import Iterable
from typing import Any

from experiments.papers import Claim, Figure, Ours, Paper, Script, ahead, every, number
from experiments.saha import features, figure_features, figure_sun, nodes, sun
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


def of_best_slab(content: Any, set: str, method: str) -> list[dict[str, Any]]:
    """The runs of a reading on a real set, under the slab with the best bound."""
    by_slab = nodes.slabs(content["runs"]).get((set, method))
    return by_slab[nodes.best(by_slab)] if by_slab else []


def pruned_by_node(set: str, method: str) -> Any:
    """A reader: whether draws predict better after pruning by node than before, paired by split."""
    score, images = ("accuracy", True) if set == nodes.IMAGES else ("rmse", False)

    def read(content: Any) -> Ours | None:
        scores = {run["seed"]: run["scores"] for run in of_best_slab(content, set, method)}
        after, before = ({k: s[how][score] for k, s in scores.items()} for how in ("median_sampled", "monte_carlo"))
        return ahead(after, before, 4, lower=not images, what="seed" if images else "split")

    return read


def nodes_kept(set: str, method: str) -> Any:
    """A reader: how many nodes are kept, on average."""
    what = "seed" if set == nodes.IMAGES else "split"
    return lambda c: number({r["seed"]: r["nodes"] for r in of_best_slab(c, set, method)}, 1, what)


def on_real_sets(text: str, paper: str, reader: Any) -> list[Claim]:
    """A claim on each real set, for each reading."""
    return [
        Claim(f"{text} ({m}): {s}", paper, results="saha_nodes", read=reader(s, m), about="nodes")
        for s in (*nodes.UCI, nodes.IMAGES)
        for m in nodes.READINGS
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
        Script("saha.nodes", nodes.main, "--out {out}", "--out {out}", "UCI_Datasets"),
    ],
    claims=[
        *on_each("Inclusion probabilities select the features", "abstract: simulated and real data", selected),
        *on_each("The pruned model generalises better", ALL, generalises),
        *on_real_sets("Pruned by the inclusion of its nodes, the model generalises better", ALL, pruned_by_node),
        Claim("Features of real benchmark data", "abstract", owed="a script that selects inputs of real data"),
    ],
    numbers=[
        *on_each("True inputs found", "not read", lambda m, d: total(m, "true_positives", d), (R1, "input gates")),
        *on_each("False inputs found", "not read", lambda m, d: total(m, "false_positives", d), (R1, "input gates")),
        *on_real_sets("Nodes kept of 50", "not read", nodes_kept),
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
        "features": lambda: {"network": "fully connected", "spike and slab on": "inputs of the first layer, as groups"},
        "nodes": lambda: {"network": "fully connected", "spike and slab on": "weights into hidden nodes, as groups"},
    },
)
