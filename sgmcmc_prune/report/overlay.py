"""Quality against sparsity of several runs in one figure: a colour for each run, a line style for each criterion."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sgmcmc_prune.report.scales import accuracy_axis, sparsity_axis
from sgmcmc_prune.report.sparsity import (
    STARVED,
    WHEN,
    Curve,
    Metrics,
    curve,
    errors,
    has_bars,
    kinds,
    label,
    looks_of,
    plain,
    settled,
)
from sgmcmc_prune.report.style import DASHES, Picture, colours, legend_below, line, new_figure, tidy
from sgmcmc_prune.run.tables import CLASSES
from sgmcmc_prune.text_table import in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of criteria; where there are more, they begin again.
STYLES = (*DASHES, (0, (8, 2)), (0, (6, 1, 1, 1, 1, 1)), (0, (2, 3)))


def overlay(runs: Mapping[str, Metrics]) -> Picture:
    """Draw the first two scores of runs against sparsity.

    Parameters
    ----------
    runs : mapping of str to mapping
        What each run is called, and its metrics; the runs have the same scores.
    """
    title = "Quality against sparsity"
    if not any(metrics["pruned"] for metrics in runs.values()):
        return Picture("overlay", title, "Nothing was pruned in these runs.")
    scores = next(iter(runs.values())).get("scores", CLASSES)
    named = " and ".join(list(scores.values())[:2])
    caption = (
        f"{named[0].upper()}{named[1:]} of the posterior predictive against the share of pruned weights, on a scale "
        "that is logarithmic in the kept share. Horizontal: the dense predictives. Hollow: decisions without a target. "
        "Networks that have failed (less than half of the dense accuracy, or four times the dense error) are left out."
    )
    if any(row.get("starved") for metrics in runs.values() for row in metrics["pruned"]):
        caption += (
            " Crosses, in the colour of their run: starved networks, through a layer of which almost nothing passes, "
            "where they fit in."
        )
    if all(has_bars([metrics], next(iter(scores))) for metrics in runs.values()):
        caption += " Bars: 95 % intervals of a score over examples, where they are known."
    return Picture("overlay", title, caption, f"{named} against sparsity, a colour for each run.", _draw(runs))


def _draw(runs: Mapping[str, Metrics]) -> "Figure":
    first = next(iter(runs.values()))
    keys = list(first.get("scores", CLASSES))[:2]
    rows = [row for metrics in runs.values() for row in metrics["pruned"]]
    when = [w for w in WHEN if any(row["when"] == w for row in rows)]
    criteria = list(dict.fromkeys(row["criterion"] for row in rows))
    figure = new_figure(1 + 3.8 * len(when), 1 + 2.5 * len(keys) + 0.2 * len(runs))
    axes = figure.subplots(len(keys), len(when), squeeze=False, sharex=True, sharey="row")
    shades = dict(zip(runs, colours(len(runs)), strict=True))
    drawn: set[str] = set()
    places = [(name, w, c, k) for name, m in runs.items() for w in when for c in criteria for k in kinds([m])]
    for i, key in enumerate(keys):
        found = settled(curve([runs[name]], key, *rest) for name, *rest in places)
        curves = dict(zip(places, found, strict=True))
        for j, column in enumerate(when):
            for place, (name, metrics) in enumerate(runs.items()):
                dodge = 1 + 0.02 * (place - (len(runs) - 1) / 2)  # bars at one sparsity stand side by side
                mine = {(c, kind): each for (n, w, c, kind), each in curves.items() if (n, w) == (name, column)}
                drawn |= _panel(axes[i, j], metrics, key, mine, criteria, shades[name], dodge)
            last = i == len(keys) - 1
            tidy(axes[i, j], "sparsity" if last else "", "" if j else label(first, key), "" if i else WHEN[column])
        if key == "accuracy":
            accuracy_axis(axes[i, 0])
        axes[i, 0].set_ylim(axes[i, 0].get_ylim())
        for (name, column, _, _), each in curves.items():
            starved, looks = each.starved, {**STARVED, "color": shades[name]}
            axes[i, when.index(column)].plot(each.kept[starved], each.mean[starved], **looks)
    sparsity_axis(axes[0, 0])
    handles = [line(name, color=shade, lw=2.5) for name, shade in shades.items()]
    handles += [line(in_words(c), color="#777777", ls=_dashes(criteria, c)) for c in criteria if c in drawn]
    if any(row.get("starved") for row in rows):
        handles.append(line("starved", **STARVED))
    legend_below(figure, handles, 3)
    return figure


def _panel(
    ax: "Axes",
    metrics: Metrics,
    key: str,
    curves: Mapping[tuple[str, str], Curve],
    criteria: list[str],
    shade: Any,
    dodge: float,
) -> set[str]:
    """Draw one run; the criteria of which there was something to draw."""
    ax.axhline(plain(metrics["dense"][key]), color=shade, linewidth=0.8, alpha=0.6)
    drawn = set()
    for (criterion, kind), found in curves.items():
        if (fine := found.fine).any():
            drawn.add(criterion)
            style = {"lw": 1.3, "elinewidth": 0.6, "capsize": 1.5, "ls": _dashes(criteria, criterion)}
            error = errors([metrics], key, found.mean[fine], found.half[fine])
            ax.errorbar(found.kept[fine] * dodge, found.mean[fine], error, color=shade, **{**style, **looks_of(kind)})
    return drawn


def _dashes(criteria: list[str], criterion: str) -> Any:
    return STYLES[criteria.index(criterion) % len(STYLES)]
