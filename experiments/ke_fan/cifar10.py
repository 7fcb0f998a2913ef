"""Ke and Fan on CIFAR-10: ResNet-18, kernels of convolutions as groups, optimised and pruned in one shot.

    python -m experiments.ke_fan.cifar10 --budget paper --device cuda --data-dir DIR --seeds 0 1 2

The settings are those of the released code (arXiv 2210.12957): batches of 64, 200 epochs, four cosine cycles,
momentum 0.1, a largest step of 1 times a learned diagonal near 0.5, weight decay 5e-4 (a slab variance of 0.04), a
temperature of about 1e-5 in our convention (their noise carries the factor 1/N twice), crops and flips. The released
spike is half as wide as the slab in variance, and its pruning never starts (`docs/discrepancies.md`), so spike and
targets are ours. No table of the paper was read, so none of its figures stands beside ours.

Variants: the paper's EM with held precisions; the mixture posterior itself at T = 1; a Gaussian prior with magnitude
as the control; the paper's larger network.

Not yet measured: owed; the command above. On an 80 GB GPU expect hours a seed for ResNet-18 (275 epochs), not
measured.
"""

from experiments.literature import INCLUSION, MAGNITUDE, RESPONSIBILITY, Experiment, main

PAPER = {
    "model.name": "resnet18",
    "data.batch_size": 64,
    "sampler.lr": 0.5,
    "sampler.lr_explore": 0.5,
    "sampler.lr_min": 0.005,
    "sampler.momentum": 0.1,
    "sampler.temperature": 1e-5,
    "prior.mode": "em",
    "prior.group": "kernel",
    "prior.slab_variance": 0.04,
    "prior.dense_variance": 0.04,
    "schedule.burn_in": 50.0,
    "schedule.cycles": 3,
    "schedule.explore": 45.0,
    "schedule.sample": 5.0,
    "schedule.relax": 2.0,
    **RESPONSIBILITY,
}
VARIANTS = {
    "em T=1e-5": {},
    "marginal T=1": {"prior.mode": "marginal", "sampler.temperature": 1.0, **INCLUSION},
    "gaussian T=1e-5": {"prior.family": "gaussian", **MAGNITUDE},
    "em T=1e-5 wide": {"model.name": "wide_resnet28_10"},
}
EXPERIMENT = Experiment(
    "ke_fan_cifar10", PAPER, VARIANTS, small={"model.name": "resnet20", "sampler.lr": 0.1, "sampler.lr_explore": 0.1}
)

if __name__ == "__main__":
    main(EXPERIMENT, __file__, __doc__ or "")
