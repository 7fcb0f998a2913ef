"""Does distilling on export help? The preset `smaller`: the mean of a chain's last draws against it, distilled.

    python -m experiments.ours.distilled

Of each run of the preset (its first fork alone) the network with three of four nodes pruned is exported twice: as the
mean of the last cycle's draws of one chain, and trained on from there for ten epochs to predict as all draws of all
chains do together. Beside them stand the average over these draws, and the control: the mean trained on for the same
epochs, steps and minibatches, under the same mask, on the labels instead.
"""

from pathlib import Path
from typing import Any

import torch

from experiments import shared
from sgmcmc_prune.baselines.training import Trainer
from sgmcmc_prune.cells import Records, product
from sgmcmc_prune.predictive.metrics import summarise
from sgmcmc_prune.predictive.predict import class_probabilities
from sgmcmc_prune.pruning.masked import masked_network
from sgmcmc_prune.run.chosen import chosen
from sgmcmc_prune.run.config import NetworkChoice
from sgmcmc_prune.run.directory import open_run
from sgmcmc_prune.run.distil import DISTILLING_CHAIN
from sgmcmc_prune.run.export import export
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace, to_json

SEEDS = range(3)
ONE_FORK = {"prune.in_chain": ("inclusion_probability",), "prune.post_hoc": ("root_mean_square",)}
HEADER = ("seed", "network", "accuracy", "NLL")


def measured(seed: int, epochs: float, runs: str) -> dict[str, Any]:
    """One run, unless it is there, and its exports: JSON-ready."""
    out = Path(runs) / f"seed{seed}"
    config = replace(PRESETS["smaller"](), seed=seed, execution="processes", **ONE_FORK)
    if not (out / "metrics.json").exists():
        shared.run_or_resume(to_json(config), str(out))
    found = export(out, out / "distilled.safetensors", NetworkChoice(network="distilled", epochs=epochs))
    return {"networks": {**found["beside"], "distilled": found["scores"], "on labels": on_labels(out, epochs)}}


def on_labels(out: Path, epochs: float) -> dict[str, float]:
    """Scores of the control: the network that is distilled, trained on the labels instead."""
    run = open_run(out)
    found, sampler, steps = chosen(run, out, NetworkChoice()), run.config.sampler, round(epochs * run.steps_per_epoch)
    network = masked_network(run.model(found.chain), found.mean(), found.mask, run.statistics_batches())
    optimizer = torch.optim.SGD(network.parameters(), lr=sampler.lr_explore, momentum=sampler.momentum)
    trainer = Trainer(network, run.stream(DISTILLING_CHAIN), run.likelihood, optimizer, steps)
    trainer.set_mask(found.mask)
    trainer.run(steps)
    inputs, labels = run.evaluation_split
    scores = summarise(class_probabilities(network, inputs), labels)
    return {"accuracy": scores["accuracy"], "NLL": scores["nll"]}


def differences(records: list[dict[str, Any]]) -> list[list[str]]:
    """What distilling changes, and what is left to the average, paired by seed: means with 95 % intervals."""
    each = [
        dict(zip(("mean", "average", "distilled", "on labels"), r["networks"].values(), strict=True)) for r in records
    ]
    pairs = (("distilled", "mean"), ("distilled", "average"), ("distilled", "on labels"))
    return [
        ["", f"{a} minus {b}", *(shared.interval([one[a][key] - one[b][key] for one in each]) for key in HEADER[2:])]
        for a, b in pairs
    ]


def main(argv: list[str] | None = None) -> None:
    """Compute the runs that are missing; print and write the table."""
    parser = shared.parser(__doc__, SEEDS, __file__)
    parser.add_argument("--epochs", type=float, default=NetworkChoice.epochs)
    parser.add_argument("--runs", type=Path, default=shared.ROOT / "runs" / "distilled")
    args = parser.parse_args(argv)
    cells = product(measured, {"seed": args.seeds}, {"epochs": args.epochs}, {"runs": str(args.runs)})
    grid = Records(cells, args.out / "distilled.json")
    shared.complete(grid, args.jobs, threads=1)
    rows = [
        [str(r["seed"]), name, *(f"{scores[key]:.4f}" for key in HEADER[2:])]
        for r in grid.all
        for name, scores in r["networks"].items()
    ]
    table = shared.markdown(HEADER, [*rows, *differences(grid.all)])
    (args.out / "distilled.md").write_text(f"{TEXT}\n{table}\n", encoding="utf-8")
    print(table)


TEXT = """# Distilling on export: the preset `smaller`

Accuracy and NLL on 1,000 test images of the network with three of four nodes pruned: the mean of one chain's last
draws, the average over the draws of all chains, one network trained from the first to predict as the second, for ten
epochs, and one trained so on the labels; and differences, paired by seed, with 95 % Student-t intervals.
Made by `python -m experiments.ours.distilled`.
"""


if __name__ == "__main__":
    main()
