"""Histograms of inclusion, per layer, chain and cycle. Chains are never averaged: their hidden units are permuted."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sgmcmc_prune.priors import GroupMap
from sgmcmc_prune.pruning.decision import bayesian_false_discovery_rate
from sgmcmc_prune.report.run_data import Inclusion, RunData, shortened
from sgmcmc_prune.report.scales import log_scale
from sgmcmc_prune.report.style import INK, Picture, colours, legend_below, line, new_figure, tidy
from sgmcmc_prune.run.config import RunConfig

BINS = np.linspace(0, 1, 41)
COLUMNS = 2


def quantity(config: RunConfig) -> str:
    """What the averages are called, by what they are."""
    if config.prior.mode == "em":
        return "EM responsibility (not a posterior probability)"
    return "posterior inclusion probability"


def inclusion_histograms(run: RunData) -> Picture:
    """Draw one panel per layer."""
    name = quantity(run.config)
    title = name[0].upper() + name[1:]
    found = run.inclusion()
    if not found:
        family = run.config.prior.family
        why = f"There is no inclusion: no draw has been saved yet, or the prior ({family}) has no indicators."
        return Picture("inclusion", title, why)
    layers = len(next(iter(found.values())))
    figure = new_figure(7, 1.0 + 1.8 * math.ceil(layers / COLUMNS))
    draw_histograms(figure, run, found)
    caption = (
        f"Share of the groups (one per {run.config.prior.group}) by {name}, on a log scale; thick: all draws of a "
        "chain, thin: each finished cycle. Right of the line at 1/2 the median probability model keeps a group; right "
        "of a chain's dotted line, in its colour, the rule with a Bayesian false discovery rate of "
        f"{run.config.prune.fdr:g} keeps it: how low that reaches depends on all probabilities of the chain. "
        "Where thick and thin lines part, a group that one cycle keeps is dropped in another."
    )
    return Picture("inclusion", title, caption, f"Histograms of the {name} per layer, one colour per chain.", figure)


def draw_histograms(figure: Any, run: RunData, found: Mapping[int, Inclusion]) -> None:
    """Fill a figure or subfigure with one panel per layer."""
    layers = list(next(iter(found.values())))
    axes = figure.subplots(math.ceil(len(layers) / COLUMNS), COLUMNS, squeeze=False).ravel()
    shades = dict(zip(found, colours(len(found)), strict=True))
    for place, (ax, layer) in enumerate(zip(axes, layers, strict=False)):
        for chain, inclusion in found.items():
            for cycle in run.cycle_inclusion(chain):
                _histogram(ax, cycle[layer], color=shades[chain], linewidth=0.5, alpha=0.7)
            _histogram(ax, inclusion[layer], color=shades[chain], linewidth=1.6)
        ax.axvline(0.5, color=INK, linewidth=1)
        count = len(next(iter(found.values()))[layer])
        tidy(
            ax,
            "",
            "" if place % COLUMNS else "share of groups",
            f"{shortened(layer.removesuffix('.weight'))} ({count:,} groups)",
        )
        log_scale(ax)
        ax.set_xlim(0, 1)
    name = quantity(run.config)
    for ax in axes[max(0, len(layers) - COLUMNS) : len(layers)]:  # the lowest of each column
        ax.set_xlabel(name.split(" (")[0], fontsize=9)
    for chain, inclusion in found.items():
        threshold = false_discovery_threshold(inclusion, run.groups(chain), run.config.prune.fdr)
        for ax in axes[: len(layers)]:
            ax.axvline(threshold, color=shades[chain], linewidth=1.4, linestyle=":")
    for ax in axes[len(layers) :]:
        ax.set_axis_off()
    figure.suptitle(name[0].upper() + name[1:], fontsize=11)
    chains = [line(f"chain {c}", color=shade, linewidth=1.6) for c, shade in shades.items()]
    cycle = line("one cycle", color="#777777", linewidth=0.5)
    rule = line(f"FDR {run.config.prune.fdr:g}, by chain", color="#777777", linestyle=":")
    legend_below(figure, [*chains, cycle, line("median model", color=INK), rule], 6)


def false_discovery_threshold(inclusion: Inclusion, groups: Mapping[str, GroupMap], level: float) -> float:
    """Give the lowest probability that the false-discovery-rate rule keeps; NaN if it keeps nothing."""
    kept = bayesian_false_discovery_rate(inclusion, groups, level)
    lowest = [groups[name].expand(p)[kept[name]] for name, p in inclusion.items()]
    return min((float(p.min()) for p in lowest if len(p)), default=math.nan)


def _histogram(ax: Any, values: Any, **looks: Any) -> None:
    """Draw the share of groups in each bin as steps."""
    counts, _ = np.histogram(np.asarray(values), BINS)
    ax.stairs(counts / len(values), BINS, **looks)
