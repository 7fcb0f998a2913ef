"""Presets: small functions that return a configuration. `sgmcmc-prune run NAME` starts from one of them."""

from collections.abc import Callable

from sgmcmc_prune.config import DataConfig, PruneConfig, RunConfig, SamplerConfig, ScheduleConfig


def demo() -> RunConfig:
    """LeNet on the Fashion-MNIST subset shipped with the package: two chains, under three minutes on two cores."""
    return RunConfig(keep_weight_draws=True)


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
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {"demo": demo, "fashion-mnist": fashion_mnist}
