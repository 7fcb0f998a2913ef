"""LeNet on the full Fashion-MNIST: how prunable is the network under each prior, and does inclusion beat magnitude?

    python -m experiments.ours.fashion_mnist_lenet --seeds 0 1 2 --jobs 2

Every prior is sampled at T = 1 with the steps of the preset `fashion-mnist` (31 epochs dense, then four plateaus of 3.5
epochs in the chain); SGD and AdamW take as many steps. Settings were chosen on 5,000 held-out training images; these
runs train on all 60,000 and read the test set once. An interrupted sweep goes on where it was.
"""

from typing import Any

from experiments import shared
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace, to_json

#: All variants.
COMMON = {
    "data.validation": 0,
    "prune.post_hoc": ("inclusion_probability", "magnitude"),
    "prune.in_chain": ("inclusion_probability", "expected_log_odds", "root_mean_square"),
    "chains": 1,
}
MAGNITUDE = {"prune.in_chain": ("root_mean_square",), "prune.post_hoc": ("magnitude",)}

#: What each variant changes in the preset.
VARIANTS: dict[str, dict[str, Any]] = {
    "slab variance per layer, 2 chains": {"chains": 2},
    "gibbs": {"prior.mode": "gibbs"},
    "one spike and slab for all layers": {"em.shared_variances": True},
    "spike and slab variances per layer": {"em.learn_variances": "both"},
    "gaussian prior": {**MAGNITUDE, "prior.family": "gaussian"},
    "sgd": MAGNITUDE,
    "adamw": MAGNITUDE,
}


def config_of(variant: str, seed: int, evaluate: str) -> RunConfig:
    """The configuration of one cell."""
    changes = {**COMMON, **VARIANTS[variant], "seed": seed, "evaluate": evaluate}
    if evaluate == "validation":
        changes["data.validation"] = 5000
    config: RunConfig = replace(PRESETS["fashion-mnist"](), **changes)
    return config


def tables(cells: shared.Cells) -> str:
    """Every table of the benchmark."""
    columns = ("accuracy", "nll", "ece", "single_accuracy", "single_nll")
    names = ("accuracy", "NLL", "ECE", "single accuracy", "single NLL")
    dense = [
        [name, str(len(runs)), str(runs[0]["dense"]["members"]), *shared.scores([r["dense"] for r in runs], columns)]
        for name, runs in cells.items()
    ]
    text = ["## Dense\n", shared.markdown(("variant", "seeds", "members", *names), dense)]
    for when, title in (("in_chain", "Pruned in the chain"), ("post_hoc", "Pruned post hoc")):
        rows = []
        for name, runs in cells.items():
            for key in shared.keys(runs[0], when):
                found = [shared.find(r, when, key) for r in runs]
                loss = [f["accuracy"] - r["dense"]["accuracy"] for f, r in zip(found, runs, strict=True)]
                sparsity = shared.interval([f["sparsity"] for f in found], 3)
                rows.append([name, key[0], key[1], sparsity, *shared.scores(found, columns[:4]), shared.interval(loss)])
        header = ("variant", "criterion", "decision", "sparsity", *names[:4], "accuracy minus dense")
        text += [f"\n## {title}\n", shared.markdown(header, rows)]
    header = ("variant", "criterion", "when", "sparsity", "accuracy difference", "NLL difference")
    text += [
        "\n## Minus magnitude (in the chain: root mean square), paired by seed\n",
        shared.markdown(header, _paired(cells)),
    ]
    return "\n".join(text)


def _paired(cells: shared.Cells) -> list[list[str]]:
    rows = []
    for when in ("in_chain", "post_hoc"):
        size = "root_mean_square" if when == "in_chain" else "magnitude"
        for name, runs in cells.items():
            present = shared.keys(runs[0], when)
            for key in present:
                if key[0] != size and (size, key[1]) in present:
                    pairs = [(shared.find(r, when, key), shared.find(r, when, (size, key[1]))) for r in runs]
                    differences = [shared.interval([a[k] - b[k] for a, b in pairs]) for k in ("accuracy", "nll")]
                    rows.append([name, key[0], when.replace("_", " "), key[1], *differences])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run the cells that are missing, then write the tables."""
    a = shared.sweep_parser(__doc__ or "", "fashion_mnist_lenet", list(VARIANTS), __file__).parse_args(argv)
    cells = shared.sweep(a, shared.run_or_train, lambda v, seed: {"config": to_json(config_of(v, seed, a.evaluate))})
    shared.write_runs(a, cells, "LeNet on Fashion-MNIST", f"{__doc__}\n{tables(cells)}")


if __name__ == "__main__":
    main()
