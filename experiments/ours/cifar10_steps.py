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

from typing import Any

from experiments.literature import sweep_on_held_out, table

COMMON: dict[str, Any] = {
    "sampler.temperature": 0.01,
    "prune.targets": (0.9,),
    "prune.in_chain": (),
    "prune.post_hoc": ("magnitude",),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gaussian": COMMON,
    "gaussian, time step to 1e-4": COMMON | {"sampler.anneal": "time_step", "sampler.lr_min": 1e-4},
    "spike 1e-5, time step to 5e-4": COMMON
    | {
        "prior.family": "spike_slab",
        "prior.spike_variance": 1e-5,
        "sampler.anneal": "time_step",
        "sampler.lr_min": 5e-4,
    },
}


if __name__ == "__main__":
    sweep_on_held_out("cifar10_steps", "Steps for ResNet-20 on CIFAR-10", __doc__ or "", __file__, VARIANTS, table)
