"""Traces of the draws: outputs for two probe examples, and the norm of every layer's weights."""

import numpy as np

from sgmcmc_prune.report.run_data import RunData, Stage
from sgmcmc_prune.report.style import (
    INK,
    PALETTE,
    Picture,
    chain_lines,
    colours,
    dashes,
    draw_axis,
    legend_below,
    line,
    new_figure,
    tidy,
)

CLASSES = 3


def probe_trace(run: RunData) -> Picture:
    """Draw what the draws say of two probe examples, by chain and draw."""
    title, stage = "Two probe examples", run.dense
    if stage is None or min(stage.draws) == 0:
        return Picture("probes", title, "Not every chain has saved a draw yet.")
    return _largest_logits(run, stage) if "logits" in stage.tree["posterior"] else _expected_targets(run, stage)


def _largest_logits(run: RunData, stage: Stage) -> Picture:
    """The largest logits of an easy and a hard probe."""
    title = "Logits of two probe examples"
    labels = stage.tree["observed_data"]["y"].values
    classes = stage.tree["posterior"].to_dataset()["class"].values  # names, or numbers where there are none
    figure = new_figure(7, 5)
    axes = figure.subplots(2, stage.chains, squeeze=False, sharey="row", sharex=True)
    for row, (kind, probe) in enumerate(_choose(stage).items()):
        logits = [stage.values("posterior", "logits", c)[:, probe] for c in range(stage.chains)]
        top = np.argsort(-np.mean([x.mean(0) for x in logits], axis=0))[:CLASSES]
        for chain, ax in enumerate(axes[row]):
            for label, colour in zip(top, colours(len(top)), strict=True):
                name = f"class {classes[label]}" + (" (true)" if label == labels[probe] else "")
                ax.plot(logits[chain][:, label], color=colour, marker="o", ms=2.5, lw=1, label=name)
            tidy(ax, "draw" if row else "", "" if chain else f"logit, {kind} probe", "" if row else f"chain {chain}")
            draw_axis(ax, stage.draws[chain], run.config.schedule.draws)
        axes[row, -1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    caption = (
        "The three largest logits of the probe example that the draws are surest of, and of the one they are least "
        "sure of; dotted lines separate cycles. Chains at one level, without drift, have mixed in function space; "
        "jumps between cycles are moves between solutions, which is what cycles are for."
    )
    return Picture("probes", title, caption, "Logits of two probes against the draw, one column per chain.", figure)


def _expected_targets(run: RunData, stage: Stage) -> Picture:
    """The expected target of the probes on which draws agree most, and least."""
    title = "Expected targets of two probe examples"
    name = next(name for name in ("mean", "probability") if name in stage.tree["posterior_predictive"])
    values = [stage.values("posterior_predictive", name, c)[..., 0] for c in range(stage.chains)]
    targets = np.asarray(stage.tree["observed_data"]["y"].values)
    targets = targets.reshape(len(targets), -1)[:, 0]
    spread = np.concatenate(values).std(0)
    figure = new_figure(7, 5)
    axes = figure.subplots(2, stage.chains, squeeze=False, sharey="row", sharex=True)
    for row, (kind, probe) in enumerate({"surest": spread.argmin(), "least sure": spread.argmax()}.items()):
        for chain, ax in enumerate(axes[row]):
            ax.plot(values[chain][:, probe], color=PALETTE[0], lw=0.8)
            ax.axhline(targets[probe], color=INK, linestyle="--", linewidth=1)
            tidy(ax, "draw" if row else "", "" if chain else f"{name}, {kind} probe", "" if row else f"chain {chain}")
            draw_axis(ax, stage.draws[chain], run.config.schedule.draws)
    caption = (
        "What each draw expects for the probe example on which draws agree most, and for the one on which they agree "
        "least (first component; dashed: the target, which holds noise). Chains at one level, without drift, have "
        "mixed in function space."
    )
    return Picture("probes", title, caption, "Expected targets of two probes against the draw.", figure)


def weight_norms(run: RunData) -> Picture:
    """Draw the norm of each layer's weights against the draw."""
    title, stage = "Weight norms", run.dense
    if stage is None or max(stage.draws) == 0:
        return Picture("weight_norms", title, "No draw has been saved yet.")
    figure = new_figure(7, 3.6)
    ax = figure.subplots()
    shades = colours(len(stage.layers))
    for chain in range(stage.chains):
        for column, colour in zip(stage.values("posterior", "weight_norm", chain).T, shades, strict=True):
            ax.plot(column, color=colour, linestyle=dashes(chain), marker="o", ms=2.5, lw=1)
    tidy(ax, "draw", "Euclidean norm of the weights")
    ax.set_ylim(bottom=0)
    draw_axis(ax, max(stage.draws), run.config.schedule.draws)
    layers = [line(name, color=colour) for name, colour in zip(stage.layers, shades, strict=True)]
    legend_below(figure, [*layers, *chain_lines(stage.chains)], 5)
    caption = (
        "Norm of each layer's weights in every draw. A norm that still grows or shrinks over the draws says that the "
        "burn-in was too short."
    )
    return Picture("weight_norms", title, caption, "Norm of the weights of each layer against the draw.", figure)


def _choose(stage: Stage) -> dict[str, int]:
    """Pick the probes with the largest and the smallest mean confidence."""
    chains = [stage.values("posterior_predictive", "probability", c).mean(0) for c in range(stage.chains)]
    confidence = np.mean(chains, axis=0).max(1)
    return {"surest": int(confidence.argmax()), "least sure": int(confidence.argmin())}
