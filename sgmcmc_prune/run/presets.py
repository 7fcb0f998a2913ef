"""Presets: small functions that return a configuration. `sgmcmc-prune run NAME` starts from one of them."""

from collections.abc import Callable

from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.run.config import (
    DataConfig,
    ModelConfig,
    PriorConfig,
    PruneConfig,
    RunConfig,
    SamplerConfig,
    ScheduleConfig,
)
from sgmcmc_prune.settings import replace


def demo() -> RunConfig:
    """LeNet on the Fashion-MNIST subset shipped with the package: two chains, three to five minutes on two cores."""
    return RunConfig(keep_weight_draws=True, execution="processes")


def regression() -> RunConfig:
    """A small network on a simulated regression set: four chains that converge, in about two minutes on two cores."""
    return RunConfig(
        preset="regression",
        # A batch of all examples has no minibatch noise: the chains are at their temperature.
        data=DataConfig(name="waves", validation=0, batch_size=300),
        model=ModelConfig(name="mlp", options=("widths=(8,)", "activation=tanh")),
        likelihood="gaussian",
        sampler=SamplerConfig(lr=0.015, lr_explore=0.015, lr_min=0.015, momentum=0.975, preconditioner="identity"),
        # A wide spike and a prior that stays as it is stated: chains cross between spike and slab.
        prior=PriorConfig(slab_variance=0.5, spike_variance=0.01),
        em=EMSettings(kind="fixed"),
        schedule=ScheduleConfig(burn_in=3000.0, cycles=1, explore=0.0, sample=30000.0, relax=0.0, draws=750),
        prune=PruneConfig(targets=(0.5, 0.7, 0.9), post_hoc=("inclusion_probability", "magnitude"), in_chain=()),
        chains=4,
        execution="processes",
        keep_weight_draws=True,
    )


def smaller() -> RunConfig:
    """Whole nodes of an MLP, pruned in the chain: what `export` writes is smaller and faster; a minute on two cores."""
    return RunConfig(
        preset="smaller",
        model=ModelConfig(name="mlp"),
        # Wider than for single weights: where hundreds share an indicator, the valley before a narrow spike is deep.
        prior=PriorConfig(group="node", spike_variance=0.002),
        # Nodes of layers of different width do not compare by their log-odds.
        prune=PruneConfig(
            targets=(0.5, 0.75),
            allocation="layerwise",
            post_hoc=("inclusion_probability", "root_mean_square"),
            decisions=(),
            cycles=2,
            explore=2.0,
            cut=True,
        ),
        execution="processes",
        keep_weight_draws=True,
    )


def fashion_mnist() -> RunConfig:
    """LeNet on the official Fashion-MNIST: two chains."""
    return RunConfig(
        preset="fashion-mnist",
        data=DataConfig(name="fashion-mnist", validation=5000, batch_size=128),
        # Chosen on the validation images: the identity did better than RMSprop at the step sizes tried.
        sampler=SamplerConfig(preconditioner="identity"),
        schedule=ScheduleConfig(burn_in=22.0, cycles=3, explore=1.5, sample=1.5, relax=0.5, draws=4),
        prune=PruneConfig(explore=2.5, sample=1.0, relax=0.25, draws=4),
        keep_weight_draws=True,
        execution="processes",
    )


def cifar10() -> RunConfig:
    """ResNet-20 on CIFAR-10, augmented and batch-normalised as in the literature: two chains, a GPU's work."""
    return RunConfig(
        preset="cifar10",
        data=DataConfig(name="cifar10", validation=5000, batch_size=128, augmentation="crop_flip"),
        model=ModelConfig(name="resnet20"),
        # Steps and length are those of the literature's 200 epochs of SGD; not tuned for this sampler.
        sampler=SamplerConfig(preconditioner="identity"),
        schedule=ScheduleConfig(burn_in=120.0, cycles=4, explore=15.0, sample=5.0, relax=1.0, draws=3),
        prune=PruneConfig(targets=(0.8, 0.9, 0.95), explore=20.0, sample=5.0, relax=1.0, draws=3),
        checkpoint_seconds=300.0,
    )


def cifar100() -> RunConfig:
    """ResNet-20 on CIFAR-100, as the preset cifar10."""
    config: RunConfig = replace(cifar10(), **{"preset": "cifar100", "data.name": "cifar100"})
    return config


def imagenet() -> RunConfig:
    """ResNet-50 on ImageNet: one chain of 90 epochs dense and 36 in the chain, several GPUs' work."""
    return RunConfig(
        preset="imagenet",
        data=DataConfig(name="imagenet", validation=0, batch_size=256, augmentation="resized_crop_flip", workers=8),
        model=ModelConfig(name="resnet50"),
        sampler=SamplerConfig(preconditioner="identity"),
        # The usual weight decay of 1e-4, which is 1 / (N v).
        prior=PriorConfig(slab_variance=0.008),
        schedule=ScheduleConfig(burn_in=60.0, cycles=3, explore=7.0, sample=3.0, relax=1.0, draws=3),
        prune=PruneConfig(
            targets=(0.8, 0.9, 0.95),
            post_hoc=("inclusion_probability", "magnitude"),
            in_chain=("inclusion_probability",),
            explore=9.0,
            sample=3.0,
            relax=1.0,
            draws=3,
        ),
        chains=1,
        checkpoint_seconds=300.0,
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "demo": demo,
    "regression": regression,
    "smaller": smaller,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet": imagenet,
}
