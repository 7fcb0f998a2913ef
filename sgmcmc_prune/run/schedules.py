"""From the epochs of a configuration to schedules in steps."""

from sgmcmc_prune.chains.schedules import Cyclical
from sgmcmc_prune.run.config import RunConfig


def dense_schedule(config: RunConfig, steps_per_epoch: float) -> Cyclical:
    """Burn-in, then cycles of exploration (from `lr_explore`) and sampling."""
    s = config.schedule
    return _cyclical(config, "schedule", steps_per_epoch, s.burn_in, s.cycles, s.explore, s.sample, s.relax, s.draws)


def fork_schedule(config: RunConfig, steps_per_epoch: float) -> Cyclical:
    """So many cycles per target sparsity."""
    p = config.prune
    cycles = len(p.targets) * p.cycles
    return _cyclical(config, "prune", steps_per_epoch, 0.0, cycles, p.explore, p.sample, p.relax, p.draws)


def _cyclical(
    config: RunConfig,
    part: str,
    steps_per_epoch: float,
    burn_in: float,
    cycles: int,
    explore: float,
    sample: float,
    relax: float,
    draws: int,
) -> Cyclical:
    def steps(epochs: float) -> int:
        return round(epochs * steps_per_epoch)

    thin = (steps(sample) - steps(relax)) // max(draws, 1)
    if cycles and (draws < 1 or thin < 1):
        raise ValueError(
            f"{draws} draws do not fit in {steps(sample) - steps(relax)} steps a cycle ({part}.sample {sample:g} less "
            f"{part}.relax {relax:g} epochs); ask for fewer draws (at least one), or sample longer"
        )
    s = config.sampler
    return Cyclical(
        lr=s.lr,
        lr_explore=s.lr_explore,
        lr_min=s.lr_min,
        momentum=s.momentum,
        temperature=s.temperature,
        burn_in=steps(burn_in),
        cycles=cycles,
        explore=steps(explore),
        sample=steps(relax) + draws * thin if cycles else 0,
        relax=steps(relax),
        thin=max(thin, 1),
        explore_temperature=s.explore_temperature,
        anneal=s.anneal,
    )
