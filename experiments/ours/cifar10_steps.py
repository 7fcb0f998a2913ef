"""ResNet-20 on CIFAR-10, dense: what annealing, the smallest step and the spike do to one network and to an average.

    python -m experiments.ours.cifar10_steps --data-dir DIR --seeds 0

Eleven epochs of 45,000 augmented images at T = 0.01, six draws from the last one and a half, judged on 5,000 held-out
images: choices are made here, and the test set is not read. In "gaussian" the step itself follows the cosine, from 0.1
to 0.005, which leaves SGD's effective step at 0.22 of its largest; with "time step" that follows the cosine (see
`chains.schedules.Cyclical`).

One seed. With the Gaussian prior the time step on the cosine, down to a smaller step (both changed at once), made
single networks better and their average worse; the average of the larger step is best. The chain under a spike of
variance 1e-5 had a smallest step of its own, so what the spike alone costs is not known.
"""

from argparse import Namespace
from typing import Any

from experiments import shared
from experiments.literature import HELD_OUT, precision, table
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace, to_json

COMMON: dict[str, Any] = {
    "chains": 1,
    "data.validation": HELD_OUT,
    "evaluate": "validation",
    "sampler.temperature": 0.01,
    "em.kind": "fixed",
    "prior.family": "gaussian",
    "prior.slab_variance": 0.04,
    "prior.dense_variance": 0.04,
    "prune.targets": (0.9,),
    "prune.in_chain": (),
    "prune.post_hoc": ("magnitude",),
    "schedule.burn_in": 9.0,
    "schedule.cycles": 1,
    "schedule.explore": 0.0,
    "schedule.sample": 2.0,
    "schedule.relax": 0.5,
    "schedule.draws": 6,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "gaussian, time step to 1e-4": {"sampler.anneal": "time_step", "sampler.lr_min": 1e-4},
    "spike 1e-5, time step to 5e-4": {
        "prior.family": "spike_slab",
        "prior.spike_variance": 1e-5,
        "sampler.anneal": "time_step",
        "sampler.lr_min": 5e-4,
    },
}


def config_of(variant: str, seed: int, a: Namespace) -> RunConfig:
    """The configuration of one cell."""
    machine = {"data.data_dir": a.data_dir, "device": a.device, "precision": precision("auto", "desk", a.device)}
    config: RunConfig = replace(PRESETS["cifar10"](), **COMMON | VARIANTS[variant] | machine | {"seed": seed})
    return config


def main(argv: list[str] | None = None) -> None:
    """Run the cells that are missing, then write the table."""
    parser = shared.sweep_parser(__doc__ or "", "cifar10_steps", list(VARIANTS), __file__)
    parser.set_defaults(seeds=[0], evaluate="validation")
    shared.add_places(parser)
    a = parser.parse_args(argv)
    with shared.in_words():
        configs = {(v, s): config_of(v, s, a) for v in a.variants for s in a.seeds}
    cells = shared.sweep(a, shared.run_or_resume, lambda *cell: {"config": to_json(configs[cell])})
    shared.write_runs(a, cells, "Steps for ResNet-20 on CIFAR-10", f"{__doc__}\n{table(cells)}")


if __name__ == "__main__":
    main()
