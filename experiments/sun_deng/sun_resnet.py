"""Sun, Song and Liang: ResNet-20 and ResNet-32 on CIFAR-10 under a fixed mixture-Gaussian prior.

    python -m experiments.sun_deng.sun_resnet --budget desk --data-dir DIR --seeds 0 1
    python -m experiments.sun_deng.sun_resnet --budget paper --device cuda --data-dir DIR --seeds 0 1 2

The paper's setting (released code): momentum 0.9, batches of 128, 300 epochs with step 0.1 (a tenth from 150, a
hundredth from 225), crops, flips and random erasing, slab variance 0.04; from epoch 150 on the spike; then every
weight whose slab probability is under one half is cut, and one epoch of fine-tuning. Spike variance and slab rate:
ResNet-20 at 90 % 4e-5 and 1e-6; ResNet-32 at 90 % 2e-5 and 1e-5, at 95 % 6e-5 and 1e-7.

Ours fixes the same prior in mode `marginal`, whose post-hoc decision `median` is the paper's cut; the masks in the
chain pass 90 and 95 % by inclusion probability. T = 1e-4 stands for the paper's optimisation, T = 1 is the posterior.
The spike acts from the start, where the paper's begins at half time.

Not yet measured: owed; the commands above.
"""

from experiments.literature import INCLUSION, Experiment, main

PAPER = {
    "data.augmentation": "crop_flip_erase",
    "sampler.temperature": 1e-4,
    "prior.spike_variance": 4e-5,
    "prior.inclusion_rate": 1e-6,
    "prior.slab_variance": 0.04,
    "prior.dense_variance": 0.04,
    "em.kind": "fixed",
    "schedule.burn_in": 225.0,
    "schedule.cycles": 3,
    "prune.targets": (0.9, 0.95),
    "prune.explore": 70.0,
    **INCLUSION,
}
RESNET32 = {"model.name": "resnet32", "prior.spike_variance": 2e-5, "prior.inclusion_rate": 1e-5}
VARIANTS = {
    "resnet20 T=1e-4": {},
    "resnet20 T=1": {"sampler.temperature": 1.0},
    "resnet20 learned prior T=1": {"sampler.temperature": 1.0, "em.kind": "stochastic", "prior.inclusion_rate": 0.5},
    "resnet32 T=1e-4": RESNET32,
    "resnet32 95% T=1e-4": RESNET32 | {"prior.spike_variance": 6e-5, "prior.inclusion_rate": 1e-7},
}
PUBLISHED = [
    ("ResNet-20", "90.12 / 80.17", "91.26 (.02) / 92.32 (.04)"),
    ("ResNet-20, mean of the last 75 epochs", "90.35 / 80.24", "91.60 (.06) / 92.65 (.02)"),
    ("ResNet-32", "91.23 / 95.01", "92.74 (.10) / 91.39 (.10)"),
    ("ResNet-32, mean of the last 75 epochs", "91.31 / 95.11", "92.99 (.08) / 91.84 (.09)"),
]
EXPERIMENT = Experiment("sun_resnet", PAPER, VARIANTS, PUBLISHED)

if __name__ == "__main__":
    main(EXPERIMENT, __file__, __doc__ or "")
