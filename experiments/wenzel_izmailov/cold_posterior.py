"""Wenzel et al. (ICML 2020): ResNet-20 on CIFAR-10 at temperatures from 1 to 1e-4; nothing is pruned.

    python -m experiments.wenzel_izmailov.cold_posterior --budget desk --data-dir DIR --seeds 0 1
    python -m experiments.wenzel_izmailov.cold_posterior --budget paper --device cuda --data-dir DIR --seeds 0 1 2
    python analysis/temperature_curve.py runs/wenzel_cold_posterior/paper/*

The paper's setting (released code): a standard normal prior on every parameter, batches of 128, step 0.1, momentum
0.98, a layer-wise preconditioner, 1,500 epochs of which 150 are burn-in, cosine cycles of 50 epochs with one draw
each, crops, flips and batch normalisation. Each of the last two is a reason why T = 1 is not the posterior of
anything. Their network has biases in its convolutions and 1x1 shortcuts; ours is He's resnet20 without either.

The paper's finding: T = 1 is clearly worse than SGD, T << 1 recovers and beats it; none of its figures was read.
Whether that is due to augmentation and batch normalisation is what the two last variants ask.

Not yet measured: owed; the commands above.
"""

from typing import Any

from experiments.literature import DENSE, Experiment, main

PAPER = {
    "sampler.lr": 0.1,
    "sampler.lr_explore": 0.1,
    "sampler.momentum": 0.98,
    "sampler.preconditioner": "layerwise",
    "prior.family": "gaussian",
    "prior.slab_variance": 1.0,
    "schedule.burn_in": 150.0,
    "schedule.cycles": 27,
    "schedule.explore": 45.0,
    "schedule.sample": 5.0,
    "schedule.relax": 2.0,
    "schedule.draws": 1,
    **DENSE,
}
CLEAN = {"data.augmentation": "none", "model.normalisation": "filter_response"}
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"T={t:g}": {"sampler.temperature": t} for t in (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)},
    **{f"likelihood kept T={t:g}": CLEAN | {"sampler.temperature": t} for t in (1.0, 0.01)},
}
EXPERIMENT = Experiment("wenzel_cold_posterior", PAPER, VARIANTS)

if __name__ == "__main__":
    main(EXPERIMENT, __file__, __doc__ or "")
