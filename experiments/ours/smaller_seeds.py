"""Is what the preset `smaller` exports smaller, faster and as accurate, whatever its seed? Three runs.

    python -m experiments.ours.smaller_seeds

The exported network is the mean of a chain's last draws under its mask, cut; beside it stand one draw of the dense
chains (their mean accuracy) and the average over all of them. Latencies are medians, in turns with those of the dense
network, in ratio to it.
"""

import tempfile
from pathlib import Path
from typing import Any

from experiments import shared
from sgmcmc_prune.run.config import NetworkChoice
from sgmcmc_prune.run.export import export
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace

SEEDS = range(3)


def measured(seed: int) -> dict[str, Any]:
    """One run of the preset, chain after chain, and its export: JSON-ready."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        metrics = run(replace(PRESETS["smaller"](), seed=seed, execution="loop"), out, False, False)
        exported = export(out, Path(folder) / "net.safetensors", NetworkChoice())
    pruned = [row for row in metrics["pruned"] if row["when"] == "in_chain"]
    return {
        "dense": {key: metrics["dense"][key] for key in ("accuracy", "single_accuracy", "nll", "members")},
        "pruned": [{key: row[key] for key in KEYS} for row in pruned],
        "exported": {key: exported[key] for key in ("scores", "dense", "pruned", "latency", "bytes")},
    }


KEYS = ("criterion", "target", "sparsity", "accuracy", "single_accuracy", "nll", "members")
HEADER = (
    "seed",
    "dense, averaged",
    "dense, one",
    "pruned, averaged",
    "exported",
    "parameters",
    "ms for 1",
    "ms for 256",
)


def row(record: dict[str, Any]) -> list[str]:
    """One run in the table."""
    dense, exported = record["dense"], record["exported"]
    last = [each for each in record["pruned"] if each["criterion"] == record["pruned"][0]["criterion"]][-1]
    share = exported["pruned"]["parameters"] / exported["dense"]["parameters"]
    return [
        str(record["seed"]),
        *(f"{number:.4f}" for number in (dense["accuracy"], dense["single_accuracy"], last["accuracy"])),
        f"{exported['scores']['accuracy']:.4f}",
        f"{share:.2f}",
        *(f"{exported['latency'][batch]['ratio']['median']:.2f}" for batch in sorted(exported["latency"], key=int)),
    ]


def main(argv: list[str] | None = None) -> None:
    """Compute the runs that are missing; print and write the table."""
    shared.table_of_seeds(__file__, __doc__, SEEDS, measured, HEADER, row, TEXT, argv)


TEXT = """# The preset `smaller`, three seeds

Accuracies on 1,000 test images: the average over all draws of the dense chains, one of these draws, the average over
the draws of the network with three of four nodes pruned, and the network that is exported. Its parameters and its
milliseconds a pass, in ratio to the dense network. Made by `python -m experiments.ours.smaller_seeds`.
"""


if __name__ == "__main__":
    main()
