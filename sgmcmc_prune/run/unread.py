"""Settings that were given and that nothing reads: a run says so on its first lines, and records it.

A configuration serves every prior, sampler and kind of EM, and each reads a part of it. A value was given if it is
neither the default nor the preset's.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.em import settings_read
from sgmcmc_prune.priors.em_settings import EMSettings
from sgmcmc_prune.priors.spike_slab import SpikeSlab
from sgmcmc_prune.run.checks import prior_class
from sgmcmc_prune.run.config import PriorConfig, RunConfig, SamplerConfig
from sgmcmc_prune.run.presets import PRESETS
from sgmcmc_prune.run.run import Run
from sgmcmc_prune.samplers.momentum import MomentumSampler


def unread_settings(run: Run) -> list[str]:
    """One line for each setting that was given and is not read.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If the prior or the sampler is none.
    """
    config = run.config
    preset = PRESETS[config.preset]() if config.preset in PRESETS else RunConfig()
    family = prior_class(config)
    return [
        *_lines("prior", config.prior, preset.prior, *_of_prior(config, family)),
        *_lines("em", config.em, preset.em, *_of_em(config, family)),
        *_lines("sampler", config.sampler, preset.sampler, *_of_sampler(config.sampler, run)),
    ]


def _of_prior(config: RunConfig, family: type[Prior]) -> tuple[set[str], str]:
    """What is not read of a prior's settings, and by whom."""
    prior, read = config.prior, {"family", "options", "group", *family.settings}
    if family.sample_latent is SpikeSlab.sample_latent:
        latent = prior.mode == "gibbs"
    else:
        latent = family.sample_latent is not Prior.sample_latent
    if latent:
        read.add("indicator_every")
    if prior.dense_variance == prior.slab_variance:  # of a prior with one variance, which holds for biases as well
        read.add("dense_variance")
    return {field.name for field in fields(PriorConfig)} - read, _named(config, family)


def _of_em(config: RunConfig, family: type[Prior]) -> tuple[set[str], str]:
    names = {field.name for field in fields(EMSettings)}
    if not max(config.sampler.temperature, config.sampler.explore_temperature or 0.0) > 0:
        return names, "EM, which takes draws at a temperature above 0,"
    read = settings_read(config.em, family, config.prior.mode)
    return names - read, f"em.kind {config.em.kind} under {_named(config, family)}"


def _named(config: RunConfig, family: type[Prior]) -> str:
    mode = f" in mode {config.prior.mode}" if issubclass(family, SpikeSlab) else ""
    return f"prior.family {config.prior.family}{mode}"


def _of_sampler(sampler: SamplerConfig, run: Run) -> tuple[set[str], str]:
    has = issubclass(run.sampler_class, MomentumSampler)
    return (set() if has else {"momentum"}), f"sampler.name {sampler.name}"


def _lines(part: str, given: Any, preset: Any, unread: set[str], reader: str) -> Iterator[str]:
    for field in fields(given):
        value = getattr(given, field.name)
        if field.name in unread and value not in (field.default, getattr(preset, field.name)):
            yield f"{part}.{field.name} is {value!r}, and {reader} does not read it"
