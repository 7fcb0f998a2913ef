"""Kinetic and configurational temperature of every draw: does the chain sample at the temperature it was told."""

import math
from typing import TYPE_CHECKING

import numpy as np

from sgmcmc_prune.diagnostics import batch_means, batch_means_interval
from sgmcmc_prune.inclusion import MIN_BATCHES
from sgmcmc_prune.report.run_data import RunData, Stage
from sgmcmc_prune.report.style import INK, Picture, colours, draw_axis, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Temperatures of the dense draws"


def temperatures(run: RunData) -> Picture:
    """Draw both temperatures per draw and chain, the first with its band, the second with an interval of its mean."""
    stage = run.dense
    if stage is None or max(stage.draws) == 0:
        return Picture("temperature", TITLE, "No draw has been saved yet.")
    momentum = run.config.sampler.name == "sghmc"
    figure = new_figure(7, 4.8 if momentum else 2.9)
    axes = figure.subplots(2 if momentum else 1, 1, sharex=True, squeeze=False)[:, 0]
    if momentum:
        _kinetic(axes[0], run, stage)
    sentences = _configurational(axes[-1], run, stage)
    axes[-1].set_xlabel("draw", fontsize=9)
    caption = (
        "Dashed: the target temperature; dotted lines separate cycles. The configurational temperature is averaged "
        "over the steps between two draws; one value is noisy, its mean should be the target."
    )
    if momentum:
        caption = f"{_band_sentence(run)} {caption}"
    else:
        caption += " SGLD has no momentum, so there is no kinetic temperature."
    return Picture("temperature", TITLE, f"{caption} {sentences}", "Temperatures per draw and chain.", figure)


def _kinetic(ax: "Axes", run: RunData, stage: Stage) -> None:
    for chain, colour in enumerate(colours(stage.chains)):
        values = stage.values("sample_stats", "kinetic_temperature", chain)
        ax.plot(np.arange(len(values)), values, color=colour, marker="o", ms=3, lw=1, label=f"chain {chain}")
    if run.metrics is not None:
        low, high = run.metrics["diagnostics"]["kinetic_band"]
        ax.axhspan(low, high, color="#009E73", alpha=0.25, linewidth=0, label="99 % band")
    _finish(ax, run, "kinetic temperature")


def _configurational(ax: "Axes", run: RunData, stage: Stage) -> str:
    """Draw; return each chain's mean with its interval in words."""
    sentences = []
    for chain, colour in enumerate(colours(stage.chains)):
        values = stage.values("sample_stats", "configurational_temperature", chain)
        ax.plot(np.arange(len(values)), values, color=colour, marker="o", ms=3, lw=1, label=f"chain {chain}")
        batches = _batches(run, len(values))
        if batches == 0 or not np.isfinite(values).all():
            continue
        mean = batch_means(values, batches).mean
        low, high = batch_means_interval(values, 0.95, batches)
        if math.isnan(low):
            spread = f"no interval: {batches} batches, and it takes {MIN_BATCHES}"
        else:
            spread = f"95 % batch-means interval {low:.3f} to {high:.3f}"
            ax.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)
        sentences.append(f"Chain {chain}: mean {mean:.3f} ({spread}).")
    _finish(ax, run, "configurational temperature")
    return " ".join(sentences)


def _batches(run: RunData, draws: int) -> int:
    """A batch is a finished cycle; in a chain of one cycle, a stretch of sqrt(draws) draws."""
    if run.config.schedule.cycles == 1:
        return math.isqrt(draws)
    return draws // run.config.schedule.draws


def _band_sentence(run: RunData) -> str:
    if run.metrics is None:
        return "The band of the kinetic temperature appears once the run is evaluated."
    return (
        "An exact gradient at small steps would keep the kinetic temperature in the green band 99 times in 100; "
        "minibatch noise heats the chain above it."
    )


def _finish(ax: "Axes", run: RunData, label: str) -> None:
    ax.axhline(run.config.sampler.temperature, color=INK, linestyle="--", linewidth=1, label="target")
    tidy(ax, "", label)
    draw_axis(ax, max(run.dense.draws if run.dense else [0]), run.config.schedule.draws)
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
