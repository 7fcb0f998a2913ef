"""Draws of one spike-and-slab chain, pruned by magnitude and by joint evidence: does it pay to move them?

    python -m experiments.ours.conditional_draws --out runs/conditional-draws

LeNet on the subset of Fashion-MNIST that ships with the package, one chain at T = 1 with the schedule of the preset
`demo`, judged on the 1,000 test images. EM has learned a narrow spike for most weights, so that they are near zero
already. One seed of a short chain.
"""

import argparse
from pathlib import Path
from typing import Any

from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace
from sgmcmc_prune.store.files import read_json, write_json
from sgmcmc_prune.store.places import RunPlaces

RESULT = Path(__file__).parent / "results" / "conditional_draws.json"
CHANGES: dict[str, Any] = {
    "chains": 1,
    "sampler.temperature": 1.0,
    "data.validation": 1000,
    "prune.targets": (0.8, 0.9, 0.95),
    "prune.post_hoc": ("magnitude", "conditional"),
    "prune.in_chain": (),
    "prune.decisions": ("loss_budget",),
    "prune.loss_budget": 0.05,
    "prune.stages": 8,
    "prune.curvature_examples": 1000,
}
KEPT = ("criterion", "decision", "target", "sparsity", "members", "accuracy", "nll", "ece", "single_accuracy")


def main() -> None:
    """Run it where it has not been run, and keep its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/conditional-draws"))
    out = parser.parse_args().out
    config: RunConfig = replace(PRESETS["demo"](), **CHANGES)
    if not RunPlaces(out).metrics.is_file():
        run(config, out)
    metrics = read_json(RunPlaces(out).metrics, checksum=True)
    rows = [{key: row[key] for key in KEPT if key in row} for row in (metrics["dense"], *metrics["pruned"])]
    write_json(RESULT, {"split": metrics["split"], "examples": metrics["examples"], "rows": rows})


if __name__ == "__main__":
    main()
