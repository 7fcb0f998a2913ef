"""What a chain for ResNet-20 on CIFAR-10 samples at T = 1, 0.1, 0.01 and 0, by normalisation and augmentation.

    python -m experiments.ours.cifar10_temperature --data-dir DIR --seeds 0

Eleven epochs of 45,000 images under a Gaussian prior of variance 0.04, one chain, six draws from the last one and a
half epochs, judged on 5,000 held-out images; the test set is not read. The settings other than T, normalisation and
augmentation are those of `cifar10_resnet20`. Beside accuracy, NLL and calibration the table has the two temperatures
that the chain itself shows: kinetic (of its momenta) and configurational (of its forces). Where they are not T, the
draws are not from the posterior at T: minibatch noise heats, and a chain that is still descending has forces that no
noise balances. Short chains with six draws say nothing of R-hat, and the table has none.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from experiments import shared
from experiments.literature import DENSE, HELD_OUT, precision
from sgmcmc_prune.run.config import RunConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.settings import replace, to_json

COMMON: dict[str, Any] = {
    "chains": 1,
    "data.validation": HELD_OUT,
    "evaluate": "validation",
    "em.kind": "fixed",
    "prior.family": "gaussian",
    "prior.slab_variance": 0.04,
    "prior.dense_variance": 0.04,
    "schedule.burn_in": 9.0,
    "schedule.cycles": 1,
    "schedule.explore": 0.0,
    "schedule.sample": 2.0,
    "schedule.relax": 0.5,
    "schedule.draws": 6,
    **DENSE,
}
TEMPERATURES = (1.0, 0.1, 0.01, 0.0)
NORMALISATIONS = {"batch": "batch", "group": "group", "filter response": "filter_response"}
AUGMENTATIONS = {"augmented": "crop_flip", "plain": "none"}
VARIANTS: dict[str, dict[str, Any]] = {
    f"{norm}, {images}, T={t:g}": {
        "model.name": "resnet20",
        "model.normalisation": option,
        "data.augmentation": augmentation,
        "sampler.temperature": t,
    }
    for norm, option in NORMALISATIONS.items()
    for images, augmentation in AUGMENTATIONS.items()
    for t in TEMPERATURES
}
HEADER = ("normalisation", "images", "T", "seeds", "accuracy", "one draw", "NLL", "ECE", "kinetic T", "config. T")


def config_of(variant: str, seed: int, a: Namespace) -> RunConfig:
    """The configuration of one cell."""
    machine = {"data.data_dir": a.data_dir, "device": a.device, "precision": precision("auto", "desk", a.device)}
    config: RunConfig = replace(PRESETS["cifar10"](), **COMMON | VARIANTS[variant] | machine | {"seed": seed})
    return config


def table(cells: shared.Cells) -> str:
    """A row for each normalisation, kind of images and temperature: means over seeds."""
    rows = []
    for variant, runs in cells.items():
        scores = shared.scores([run["dense"] for run in runs], ("accuracy", "single_accuracy", "nll", "ece"))
        seen = [[run["diagnostics"][f"{kind}_temperature"] for run in runs] for kind in ("kinetic", "configurational")]
        rows.append([*variant.replace("T=", "").split(", "), str(len(runs)), *scores, *map(_temperature, seen)])
    return shared.markdown(HEADER, rows)


def _temperature(seen: list[float]) -> str:
    """Their mean, to three significant digits."""
    return f"{sum(seen) / len(seen):.3g}"


def main(argv: list[str] | None = None) -> None:
    """Run the cells that are missing, then write the table."""
    parser = shared.sweep_parser(__doc__ or "", "cifar10_temperature", list(VARIANTS), __file__)
    parser.set_defaults(seeds=[0], evaluate="validation")
    parser.add_argument("--data-dir", type=Path, help="as of `sgmcmc-prune run`")
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args(argv)
    with shared.in_words():
        configs = {(v, s): config_of(v, s, a) for v in a.variants for s in a.seeds}
    cells = shared.sweep(a, shared.run_or_resume, lambda *cell: {"config": to_json(configs[cell])})
    shared.write_runs(a, cells, "Temperatures for ResNet-20 on CIFAR-10", f"{__doc__}\n{table(cells)}")


if __name__ == "__main__":
    main()
