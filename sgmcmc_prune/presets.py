"""Presets: small functions that return a configuration. `sgmcmc-prune run NAME` starts from one of them."""

from collections.abc import Callable

from sgmcmc_prune.config import DataConfig, RunConfig, ScheduleConfig


def demo() -> RunConfig:
    """LeNet on the Fashion-MNIST subset shipped with the package: two chains, under three minutes on two cores."""
    return RunConfig()


def fashion_mnist() -> RunConfig:
    """LeNet on the official Fashion-MNIST."""
    return RunConfig(
        preset="fashion-mnist",
        data=DataConfig(name="fashion-mnist", validation=5000, batch_size=128),
        schedule=ScheduleConfig(burn_in=25.0, cycles=3, explore=2.0, sample=2.0, relax=0.5, draws=6),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {"demo": demo, "fashion-mnist": fashion_mnist}
