"""LeNet on the full Fashion-MNIST: how prunable is the network under each prior, and does inclusion beat magnitude?

    python -m experiments.ours.fashion_mnist_lenet --seeds 0 1 2 --jobs 2

Every prior is sampled at T = 1 with the steps of the preset `fashion-mnist` (31 epochs dense, then four plateaus of 3.5
epochs in the chain); SGD and AdamW take as many steps. Settings were chosen on 5,000 held-out training images; these
runs train on all 60,000 and read the test set once. An interrupted sweep goes on where it was.
"""

from typing import Any

from experiments import sweep
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace

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


def run_cell(config: RunConfig, variant: str, out: Any) -> None:
    """Compute one cell: a run, or a baseline network."""
    from sgmcmc_prune.baselines.dense import train_and_prune
    from sgmcmc_prune.run.run import Run
    from sgmcmc_prune.store.files import write_json

    if variant in ("sgd", "adamw"):
        metrics = train_and_prune(Run(config), variant, progress=False)  # type: ignore[arg-type]
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "metrics.json", metrics)
    else:
        sweep.run_or_resume(config, out)


def tables(cells: sweep.Cells) -> str:
    """Every table of the benchmark."""
    columns = ("accuracy", "nll", "ece", "single_accuracy", "single_nll")
    names = ("accuracy", "NLL", "ECE", "single accuracy", "single NLL")
    dense = [
        [name, str(len(runs)), str(runs[0]["dense"]["members"]), *_scores([r["dense"] for r in runs], columns)]
        for name, runs in cells.items()
    ]
    text = ["## Dense\n", sweep.markdown(("variant", "seeds", "members", *names), dense)]
    for when, title in (("in_chain", "Pruned in the chain"), ("post_hoc", "Pruned post hoc")):
        rows = []
        for name, runs in cells.items():
            for key in sweep.keys(runs[0], when):
                found = [sweep.find(r, when, key) for r in runs]
                loss = [f["accuracy"] - r["dense"]["accuracy"] for f, r in zip(found, runs, strict=True)]
                sparsity = sweep.interval([f["sparsity"] for f in found], 3)
                rows.append([name, key[0], key[1], sparsity, *_scores(found, columns[:4]), sweep.interval(loss)])
        header = ("variant", "criterion", "decision", "sparsity", *names[:4], "accuracy minus dense")
        text += [f"\n## {title}\n", sweep.markdown(header, rows)]
    header = ("variant", "criterion", "when", "sparsity", "accuracy difference", "NLL difference")
    text += [
        "\n## Minus magnitude (in the chain: root mean square), paired by seed\n",
        sweep.markdown(header, _paired(cells)),
    ]
    return "\n".join(text)


def _scores(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> list[str]:
    return [sweep.interval([r[k] for r in rows]) for k in columns]


def _paired(cells: sweep.Cells) -> list[list[str]]:
    rows = []
    for when in ("in_chain", "post_hoc"):
        size = "root_mean_square" if when == "in_chain" else "magnitude"
        for name, runs in cells.items():
            present = sweep.keys(runs[0], when)
            for key in present:
                if key[0] != size and (size, key[1]) in present:
                    pairs = [(sweep.find(r, when, key), sweep.find(r, when, (size, key[1]))) for r in runs]
                    differences = [sweep.interval([a[k] - b[k] for a, b in pairs]) for k in ("accuracy", "nll")]
                    rows.append([name, key[0], when.replace("_", " "), key[1], *differences])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Run the cells that are missing, then write the tables."""
    title = (__doc__ or "").splitlines()[0]
    a = sweep.parser(title, "fashion_mnist_lenet", list(VARIANTS), __file__).parse_args(argv)
    if a.cell:
        variant, seed = a.cell[0], int(a.cell[1])
        run_cell(config_of(variant, seed, a.evaluate), variant, sweep.directory(a, variant, seed))
        return
    cells = sweep.run_missing(a, __file__)
    sweep.write(a, cells, "LeNet on Fashion-MNIST", f"{__doc__}\n{tables(cells)}")


if __name__ == "__main__":
    main()
