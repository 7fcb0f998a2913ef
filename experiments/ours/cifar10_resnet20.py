"""ResNet-20 on CIFAR-10: chains and gradual magnitude pruning of SGD, from the same start, at one budget.

    python -m experiments.ours.cifar10_resnet20 --data-dir DIR --seeds 0 1
    python -m experiments.ours.cifar10_resnet20 --data-dir DIR --evaluate validation --variants "gaussian" --seeds 0

All training images, crops and flips, batches of 128; one chain or network a seed: `--epochs` dense, then as many (less
one) at every target in turn. SGD has the same minibatches, largest step, momentum and mask schedule, weight decay 5e-4
(a slab variance of 0.04 in the priors' terms), and one cosine to zero for each part. Every length is in gradient
evaluations of one network: what a chain spends on draws, SGD spends on its cosine. Settings were chosen on 5,000
held-out training images (`cifar10_steps`); the test set is read once. An interrupted sweep goes on where it was.

Stored: two seeds of every variant. Seconds were taken beside other work.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from experiments import shared
from experiments.literature import HELD_OUT, LOG_ODDS, MAGNITUDE, precision, table
from sgmcmc_prune.chains.forward import Precision
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.tables import decision
from sgmcmc_prune.settings import replace, require, to_json
from sgmcmc_prune.store.result_table import data_label

#: All variants.
COMMON: dict[str, Any] = {
    "preset": "cifar10_resnet20",
    "chains": 1,
    "data.validation": 0,
    "sampler.temperature": 0.01,
    "em.kind": "fixed",
    "prior.slab_variance": 0.04,
    "prior.dense_variance": 0.04,
    "prune.targets": (0.9, 0.95),
    "schedule.cycles": 1,
    "schedule.explore": 0.0,
}
#: Share of a part that draws take, of that what is discarded, and the draws of each part.
SAMPLE, RELAX, DRAWS = 0.2, 0.25, 6
SCORES = ("accuracy", "single_accuracy", "nll", "ece")
VARIANTS: dict[str, dict[str, Any]] = {
    "gaussian": {"prior.family": "gaussian", **MAGNITUDE},
    "spike and slab": {"prior.spike_variance": 1e-5, **LOG_ODDS, "prune.post_hoc": ("expected_log_odds",)},
    "sgd": MAGNITUDE,
}


def config_of(variant: str, seed: int, a: Namespace, chosen: Precision) -> RunConfig:
    """The configuration of one cell."""
    changes = COMMON | VARIANTS[variant] | {"seed": seed, "evaluate": a.evaluate, "precision": chosen}
    for part, before, epochs in (("schedule", "burn_in", a.epochs), ("prune", "explore", a.epochs - 1)):
        sample = SAMPLE * epochs
        lengths = {before: epochs - sample, "sample": sample, "relax": RELAX * sample, "draws": DRAWS}
        changes |= {f"{part}.{name}": length for name, length in lengths.items()}
    if a.evaluate == "validation":
        changes["data.validation"] = HELD_OUT
    config: RunConfig = replace(PRESETS["cifar10"](), **changes, **{"data.data_dir": a.data_dir, "device": a.device})
    return config


def minus_sgd(cells: shared.Cells) -> str:
    """Every variant minus SGD's network, dense and in the chain at every target, paired by seed."""
    theirs = {run["seed"]: run for run in cells["sgd"]}
    rows = []
    for variant, runs in cells.items():
        ours = [run for run in runs if variant != "sgd" and run["seed"] in theirs]
        for key in (None, *shared.keys(ours[0], "in_chain")) if ours else ():
            pairs = [(_network(run, key), _network(theirs[run["seed"]], key)) for run in ours]
            differences = [shared.interval([a[score] - b[score] for a, b in pairs]) for score in SCORES]
            rows.append([variant, key[1] if key else "dense", str(len(pairs)), *differences])
    return shared.markdown(("variant", "at", "seeds", "accuracy", "single accuracy", "NLL", "ECE"), rows)


def _network(run: dict[str, Any], key: tuple[str, str] | None) -> dict[str, Any]:
    """Its dense row, or that of the decision in the chain, whatever the criterion."""
    if key is None:
        return dict(run["dense"])
    return next(r for r in run["pruned"] if r["when"] == "in_chain" and decision(r) == key[1])


def main(argv: list[str] | None = None) -> None:
    """Run the cells that are missing, then write the tables."""
    parser = shared.sweep_parser(__doc__ or "", "cifar10_resnet20", list(VARIANTS), __file__)
    parser.set_defaults(seeds=[0, 1])
    parser.add_argument("--epochs", type=float, default=11.0, help="of the dense part, by default %(default)g")
    parser.add_argument("--data-dir", type=Path, help="as of `sgmcmc-prune run`")
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args(argv)
    with shared.in_words():
        require(a.epochs > 1, f"epochs is {a.epochs:g}; the part at each target is one epoch shorter: give more than 1")
        chosen = precision("auto", "desk", a.device)
        configs = {(v, s): config_of(v, s, a, chosen) for v in a.variants for s in a.seeds}
    cells = shared.sweep(a, shared.run_or_train, lambda *cell: {"config": to_json(configs[cell])})
    compared = f"\n\n## Minus SGD, paired by seed\n\n{minus_sgd(cells)}" if "sgd" in cells else ""
    label = data_label("CIFAR-10", all(run["data"]["official"] for runs in cells.values() for run in runs))
    shared.write_runs(a, cells, f"ResNet-20 on {label}", f"{__doc__}\n{table(cells)}{compared}")


if __name__ == "__main__":
    main()
