"""Does the preset `regression` converge, whatever its seed? Five runs, judged at the probes (outputs of the network).

    python -m experiments.ours.regression_seeds

The data are the same; chains, their starts and their noise are others.
"""

import tempfile
from pathlib import Path
from typing import Any

from experiments import shared
from sgmcmc_prune.run.main import run
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace

SEEDS = range(5)


def judged(seed: int) -> dict[str, Any]:
    """One run of the preset, chain after chain: its diagnostics and scores, JSON-ready."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = run(replace(PRESETS["regression"](), seed=seed, execution="loop"), Path(folder) / "run", False, False)
    found, temperature = metrics["diagnostics"], metrics["diagnostics"]["temperature"]
    return {
        **{name: found["outputs"][name] for name in ("rhat_max", "ess_min", "ess_tail_min", "entries")},
        "kinetic_temperature": found["kinetic_temperature"],
        "configurational_temperature": found["configurational_temperature"],
        "off": temperature["findings"],
        **{name: metrics["dense"][name] for name in ("rmse", "nll", "coverage")},
    }


def main(argv: list[str] | None = None) -> None:
    """Compute the runs that are missing; print and write the table."""
    shared.table_of_seeds(__file__, __doc__, SEEDS, judged, HEADER, row, TEXT, argv)


HEADER = ("seed", "R-hat, largest", "ESS, smallest", "tail ESS", "kinetic T", "configurational T", "OFF", "RMSE")


def row(record: dict[str, Any]) -> list[str]:
    """One run in the table."""
    return [
        str(record["seed"]),
        f"{record['rhat_max']:.4f}",
        f"{record['ess_min']:.0f}",
        f"{record['ess_tail_min']:.0f}",
        f"{record['kinetic_temperature']:.3f}",
        f"{record['configurational_temperature']:.3f}",
        str(len(record["off"])),
        f"{record['rmse']:.3f}",
    ]


TEXT = """# The preset `regression`, five seeds

Largest R-hat and smallest bulk and tail ESS over the network's outputs at all probes, of four chains with 750 draws;
mean temperatures, where 1 is expected; how many of the run's checks of temperature call it off (a false alarm has
probability 0.01 a run). Made by `python -m experiments.ours.regression_seeds`.
"""


if __name__ == "__main__":
    main()
