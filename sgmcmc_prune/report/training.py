"""The whole run along its steps: loss, step size and sparsity; and the hyperparameters of the prior."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sgmcmc_prune.chains.record import PHASES
from sgmcmc_prune.diagnostics.inference_data import hyperparameters
from sgmcmc_prune.report.run_data import RunData, Stage
from sgmcmc_prune.report.scales import log_scale
from sgmcmc_prune.report.style import (
    Picture,
    chain_lines,
    colours,
    criterion_colour,
    dashes,
    legend_below,
    line,
    new_figure,
    tidy,
)
from sgmcmc_prune.text_table import in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = {"burn_in": "#EFEFEF", "explore": "#FFFFFF", "sample": "#DCEBF7"}
#: What minibatches make rough.
SMOOTHED = ("loss",)
TRACES = {"loss": "loss (nats per example)", "step_size": "step size", "sparsity": "sparsity"}


def training_trace(run: RunData) -> Picture:
    """Draw loss, step size and sparsity of the dense chains and, after them, of every fork."""
    title = "Training trace"
    stages = [s for s in run.stages if _last_step(s) > 0]
    if run.dense is None or not stages:
        return Picture("training", title, "No step has been recorded yet.")
    end = _last_step(run.dense)
    figure = new_figure(7, 6.5)
    axes = figure.subplots(len(TRACES), 1, sharex=True)
    for (key, label), ax in zip(TRACES.items(), axes, strict=True):
        for place, stage in enumerate(stages):
            # Forks share step sizes and targets: where lines coincide, those below show as margins.
            width = 1.2 if key == "loss" or place == 0 else 1.2 * (len(stages) - place)
            _draw_stage(ax, stage, key, 0.0 if stage.name == "dense" else end, width)
        tidy(ax, "step" if ax is axes[-1] else "", label)
        if key != "sparsity" and ax.dataLim.y0 > 0:  # of numbers a loss may be negative
            log_scale(ax)
        _shade(ax, run.dense, 0.0)
        if len(stages) > 1:
            _shade(ax, stages[-1], end)
            ax.axvline(end, color="#777777", linewidth=0.8)
    axes[-1].set_ylim(-0.03, 1.03)
    names = [line(in_words(s.name), color=criterion_colour(s.name)) for s in stages]
    legend_below(figure, [*names, *chain_lines(run.config.chains), *_phase_patches()], 3)
    caption = (
        "Minibatch loss (thin: as recorded; thick: its running mean), step size and share of pruned weights along the "
        "steps. Grey: burn-in, in which the prior's "
        "hyperparameters adapt; white: exploration; blue: sampling at a constant step, where draws are taken."
    )
    if len(stages) > 1:
        caption += (
            " Right of the vertical line, each criterion's fork starts where the dense chain ended and is pruned in "
            "the chain; forks share step sizes and target sparsities, so those lines coincide."
        )
    return Picture("training", title, caption, "Loss, step size and sparsity against the step, per chain.", figure)


def hyperparameter_trace(run: RunData) -> Picture:
    """Draw the hyperparameters of every layer of the dense chains; of a variance its root."""
    title, stage = "Hyperparameters of the prior", run.dense
    if stage is None or _last_step(stage) == 0:
        return Picture("hyperparameters", title, "No step has been recorded yet.")
    names = hyperparameters(stage.tree["training"].to_dataset())
    if not names:
        return Picture("hyperparameters", title, "The prior has none that vary by layer.")
    figure = new_figure(7, 1.1 + 1.8 * len(names))
    axes = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    shades = colours(len(stage.layers))
    for key, ax in zip(names, axes, strict=True):
        for chain in range(stage.chains):
            values = stage.values("training", key, chain)
            values = np.sqrt(values) if key.endswith("variance") else values
            for column, colour in zip(values.T, shades, strict=True):
                ax.plot(stage.values("training", "step", chain), column, color=colour, ls=dashes(chain), lw=1.2)
        tidy(ax, "step" if ax is axes[-1] else "", key.replace("variance", "sd").replace("_", " "))
        log_scale(ax)
        _shade(ax, stage, 0.0)
    layers = [line(name, color=colour) for name, colour in zip(stage.layers, shades, strict=True)]
    legend_below(figure, [*layers, *chain_lines(stage.chains), *_phase_patches()], 5)
    caption = (
        "What the density of each layer's weights depends on, on log scales (sd: a standard deviation, in units of the "
        "weights). EM moves what it learns in the burn-in (grey) only: draws are conditional on it. "
        "A line still sloping where the grey ends asks for a longer burn-in."
    )
    return Picture(
        "hyperparameters", title, caption, "Learned hyperparameters per layer and chain against the step.", figure
    )


def _last_step(stage: Stage) -> float:
    return max((float(stage.values("training", "step", c)[-1:].sum()) for c in range(stage.chains)), default=0.0)


def _draw_stage(ax: "Axes", stage: Stage, key: str, offset: float, width: float) -> None:
    for chain in range(stage.chains):
        steps = stage.values("training", "step", chain) + offset
        values = stage.values("training", key, chain)
        looks = {"color": criterion_colour(stage.name), "linestyle": dashes(chain)}
        if key in SMOOTHED and len(values):
            ax.plot(steps, values, **{**looks, "linestyle": "-"}, linewidth=0.5, alpha=0.3)
            values = running_mean(values)
        ax.plot(steps, values, **looks, linewidth=width)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a window around each value, a fortieth of all and five at least; at the ends over what there is of it.

    Parameters
    ----------
    values : array, shape (n,)

    Returns
    -------
    array, shape (n,)
    """
    reach = max(2, len(values) // 80)
    ones = np.ones(2 * reach + 1)
    count = np.convolve(np.ones(len(values)), ones)
    mean: np.ndarray = (np.convolve(values, ones) / count)[reach : reach + len(values)]
    return mean


def _shade(ax: "Axes", stage: Stage, offset: float) -> None:
    """Shade the phases of the chain that is furthest; a phase begins at the last record of the one before."""
    chain = max(range(stage.chains), key=lambda c: len(stage.values("training", "step", c)))
    steps, phases = (stage.values("training", name, chain) for name in ("step", "phase"))
    edges = np.concatenate([[0.0], steps]) + offset
    changes = [0, *(np.flatnonzero(np.diff(phases)) + 1), len(phases)]
    for first, last in pairwise(changes):
        ax.axvspan(edges[first], edges[last], color=SHADES[PHASES[int(phases[first])]], linewidth=0, zorder=0)
    ax.margins(x=0)


def _phase_patches() -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(facecolor=c, edgecolor="#BBBBBB", label=name.replace("_", "-")) for name, c in SHADES.items()]
