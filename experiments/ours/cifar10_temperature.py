"""What a chain for ResNet-20 on CIFAR-10 samples at T = 1, 0.1, 0.01 and 0, by normalisation and augmentation.

    python -m experiments.ours.cifar10_temperature --data-dir DIR --seeds 0

Eleven epochs of 45,000 images under a Gaussian prior of variance 0.04, one chain, six draws from the last one and a
half epochs, judged on 5,000 held-out images; the test set is not read. The settings other than T, normalisation and
augmentation are those of `cifar10_resnet20`. Beside accuracy, NLL and calibration the table has the two temperatures
that the chain itself shows: kinetic (of its momenta) and configurational (of its forces). Where they are not T, the
draws are not from the posterior at T: minibatch noise heats, and a chain that is still descending has forces that no
noise balances. Short chains with six draws say nothing of R-hat, and the table has none.
"""

from typing import Any

from experiments import shared
from experiments.literature import DENSE, sweep_on_held_out

TEMPERATURES = (1.0, 0.1, 0.01, 0.0)
NORMALISATIONS = {"batch": "batch", "group": "group", "filter response": "filter_response"}
AUGMENTATIONS = {"augmented": "crop_flip", "plain": "none"}
VARIANTS: dict[str, dict[str, Any]] = {
    f"{norm}, {images}, T={t:g}": {
        "model.name": "resnet20",
        "model.normalisation": option,
        "data.augmentation": augmentation,
        "sampler.temperature": t,
        **DENSE,
    }
    for norm, option in NORMALISATIONS.items()
    for images, augmentation in AUGMENTATIONS.items()
    for t in TEMPERATURES
}
HEADER = ("normalisation", "images", "T", "seeds", "accuracy", "one draw", "NLL", "ECE", "kinetic T", "config. T")


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


if __name__ == "__main__":
    title = "Temperatures for ResNet-20 on CIFAR-10"
    sweep_on_held_out("cifar10_temperature", title, __doc__ or "", __file__, VARIANTS, table)
