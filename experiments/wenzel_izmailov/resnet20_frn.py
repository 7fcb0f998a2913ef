"""Izmailov et al. (ICML 2021): ResNet-20 with filter response normalisation: accuracy and NLL against T.

    python -m experiments.wenzel_izmailov.resnet20_frn --budget desk --data-dir DIR --seeds 0 1
    python -m experiments.wenzel_izmailov.resnet20_frn --budget paper --device cuda --data-dir DIR --seeds 0 1 2
    python analysis/temperature_curve.py runs/izmailov_resnet20_frn/paper/*

The paper's setting for SGHMC (released code): their network (274,042 parameters, swish), 40,960 training images, a
Gaussian prior of variance 1/5 on every parameter, batches of 80, momentum 0.9, a constant step of 3e-7 on the summed
scale (0.0123 here), 10,000 epochs of which 1,000 are burn-in. Nothing departs from a likelihood, so T = 1 is the
posterior, minibatch noise aside. Their reference is full-batch HMC on 512 TPU cores, which is not repeated here.
Ours draws once in 10 epochs, in one cycle without exploration.

The paper states that tempering is not needed here: the curve should be flat, or best, near T = 1.
Its table was not read, so no figure stands beside ours.

Measured with a budget that is gone, on CPU (5,000 JPEG images, 12 epochs, seed 0): accuracy .290, .349, .381, .404
and NLL 1.93, 1.77, 1.70, 1.62 at T = 1, 0.3, 0.1, 0. Colder is better there; so short a chain from a random start is
far from stationary, and says nothing about the paper's claim. About ten minutes a cell on one core. Owed: the other
cells, and the paper's budget.
"""

from experiments.literature import DENSE, Experiment, main

PAPER = {
    "model.name": "resnet20_frn_swish",
    "data.validation": 9_040,
    "data.batch_size": 80,
    "data.augmentation": "none",
    "sampler.lr": 0.0123,
    "sampler.lr_explore": 0.0123,
    "sampler.lr_min": 0.0123,
    "prior.family": "gaussian",
    "prior.slab_variance": 0.2,
    "schedule.burn_in": 1000.0,
    "schedule.cycles": 1,
    "schedule.explore": 0.0,
    "schedule.sample": 9000.0,
    "schedule.relax": 0.0,
    "schedule.draws": 900,
    **DENSE,
}
VARIANTS = {
    **{f"SGHMC T={t:g}": {"sampler.temperature": t} for t in (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 0.0)},
    "SGLD T=1": {"sampler.name": "sgld"},
}
EXPERIMENT = Experiment("izmailov_resnet20_frn", PAPER, VARIANTS)

if __name__ == "__main__":
    main(EXPERIMENT, __file__, __doc__ or "")
