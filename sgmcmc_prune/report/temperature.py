"""Is each parameter of the dense chains at its temperature: bands, intervals, and the heat of minibatch noise."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sgmcmc_prune.report.run_data import RunData, Stage, shortened
from sgmcmc_prune.report.style import INK, PALETTE, Picture, colours, draw_axis, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Temperatures of the dense draws"
BAND = "#009E73"
HEATED = "minibatch noise\n(estimate)"
#: With more parameters than this their names do not fit under the axis.
NAMED_PARAMETERS = 40


def temperatures(run: RunData) -> Picture:
    """Draw the kinetic temperature by parameter with its band, the configurational one by draw with its interval."""
    stage = run.dense
    if stage is None or max(stage.draws) == 0:
        return Picture("temperature", TITLE, "No draw has been saved yet.")
    verdict = run.metrics["diagnostics"]["temperature"] if run.metrics else None
    momentum = any(np.isfinite(_kinetic(stage, c)).any() for c in range(stage.chains))
    figure = new_figure(7, 5.4 if momentum else 2.9)
    axes = figure.subplots(2 if momentum else 1, 1, squeeze=False)[:, 0]
    if momentum:
        _draw_kinetic(axes[0], stage, verdict)
    _draw_configurational(axes[-1], run, stage, verdict)
    caption = " ".join([_kinetic_sentence(verdict, momentum), _configurational_sentence(verdict), *_findings(verdict)])
    return Picture("temperature", TITLE, caption, "Temperatures by parameter, and by draw and chain.", figure)


def _kinetic(stage: Stage, chain: int) -> np.ndarray:
    return stage.values("sample_stats", "parameter_kinetic_temperature", chain)


def _draw_kinetic(ax: "Axes", stage: Stage, verdict: dict[str, Any] | None) -> None:
    """Put parameters along the axis, every draw a dot; in standard deviations, or small tensors would hide others."""
    names = [str(name) for name in stage.tree["sample_stats"]["parameter"].values]
    place = np.arange(len(names))
    rows = verdict["kinetic"]["parameters"] if verdict else {}
    centre, unit = 0.0, np.ones(len(names))
    if rows:
        centre = verdict["kinetic"]["expected"] if verdict else 0.0
        unit = centre * np.sqrt(2 / stage.tree["constant_data"]["parameter_size"].values)
        low, high, heat = (_numbers(rows, names, key) for key in ("low", "high", "excess"))
        ax.bar(place, (high - low) / unit, 0.8, bottom=(low - centre) / unit, color=BAND, alpha=0.3, label="band")
        ax.plot(place, heat * centre / unit, color=INK, marker="_", ms=10, mew=1.5, lw=0, zorder=3, label=HEATED)
        names = [
            f"{shortened(name)} ({mean:.2f})" for name, mean in zip(names, _numbers(rows, names, "mean"), strict=True)
        ]
    for chain, colour in enumerate(colours(stage.chains)):
        values = (_kinetic(stage, chain) - centre) / unit
        x = np.broadcast_to(place + 0.5 * ((chain + 0.5) / stage.chains - 0.5), values.shape)
        ax.plot(x.ravel(), values.ravel(), color=colour, marker="o", ms=2.5, lw=0, label=f"chain {chain}")
    ax.use_sticky_edges = False  # or the lowest band would end at the frame
    tidy(ax, "", "kinetic temperature,\nstandard deviations\nabove expected" if rows else "kinetic temperature")
    few = len(names) <= NAMED_PARAMETERS
    ax.set_xticks(place if few else [], names if few else [], rotation=40, ha="right", rotation_mode="anchor")
    if not few:
        ax.set_xlabel(f"{len(names)} parameter tensors, in the order of the network", fontsize=9)
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _numbers(rows: dict[str, dict[str, Any]], names: list[str], key: str) -> np.ndarray:
    return np.array([rows[name][key] for name in names], dtype=float)  # null is NaN


def _draw_configurational(ax: "Axes", run: RunData, stage: Stage, verdict: dict[str, Any] | None) -> None:
    for chain, colour in enumerate(colours(stage.chains)):
        values = stage.values("sample_stats", "configurational_temperature", chain)
        ax.plot(np.arange(len(values)), values, color=colour, marker="o", ms=3, lw=1, label=f"chain {chain}")
        if verdict is not None and _known(verdict["configurational"][chain]["low"]):
            row = verdict["configurational"][chain]
            ax.axhspan(row["low"], row["high"], color=colour, alpha=0.15, linewidth=0)
    target = run.config.sampler.temperature
    ax.axhline(target, color=INK, linestyle="--", linewidth=1, label="target T")
    if verdict is not None and _known(verdict["excess"]):
        heated = target + verdict["excess"]
        ax.axhline(heated, color=PALETTE[4], linestyle=":", linewidth=1.5, label=HEATED)
    tidy(ax, "draw", "configurational\ntemperature")
    draw_axis(ax, max(stage.draws), run.config.schedule.draws)
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _kinetic_sentence(verdict: dict[str, Any] | None, momentum: bool) -> str:
    if verdict is None:
        return "Bands and intervals appear once the run is evaluated."
    reason = verdict["kinetic"]["reason"]
    if reason:
        return f"The kinetic temperature has no band: {reason}." if momentum else f"No kinetic temperature: {reason}."
    safe = 100 * (1 - verdict["false_alarm"] / 2)
    return (
        "Above, the kinetic temperature of each parameter tensor, a dot for every draw; beside the name is its mean, "
        f"where {verdict['kinetic']['expected']:.3f} is expected. An exact gradient with small steps would keep all "
        f"dots inside the green bands with probability {safe:g} % or more; minibatch noise, by as much as the black "
        "dashes say, and finite steps heat."
    )


def _configurational_sentence(verdict: dict[str, Any] | None) -> str:
    text = (
        "The configurational temperature is averaged over the steps between two draws, the network's entries and "
        "minibatches; one value is noisy, its mean should be the target. Dotted vertical lines separate cycles."
    )
    if verdict is None:
        return text
    means = []
    for chain, row in enumerate(verdict["configurational"]):
        if _known(row["mean"]):
            interval = f"{row['low']:.3f} to {row['high']:.3f}" if _known(row["low"]) else "no interval"
            means.append(f"chain {chain} {row['mean']:.3f} ({interval})")
    pooled = verdict.get("pooled")  # runs of earlier releases do not have it
    if pooled and _known(pooled["low"]):
        means.append(f"all chains together {pooled['mean']:.3f} ({pooled['low']:.3f} to {pooled['high']:.3f})")
    return (
        f"{text} Means with intervals, which of a single chain take eight batches: {', '.join(means)}."
        if means
        else f"{text} There is no mean."
    )


def _findings(verdict: dict[str, Any] | None) -> list[str]:
    return [f"{finding[0].upper()}{finding[1:]}." for finding in verdict["findings"]] if verdict else []


def _known(value: float | None) -> bool:
    """Whether a number is there: metrics.json holds null for NaN."""
    return value is not None and math.isfinite(value)
