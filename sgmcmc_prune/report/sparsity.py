"""Quality against sparsity, post hoc and in the chain: one run, or the mean of runs that differ in their seed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from sgmcmc_prune.predictive.intervals import mean_and_half_width, wilson_interval
from sgmcmc_prune.report.run_data import RunData
from sgmcmc_prune.report.scales import accuracy_axis, log_scale, sparsity_axis
from sgmcmc_prune.report.style import (
    CRITERIA,
    INK,
    Mark,
    Picture,
    criterion_colour,
    legend_below,
    line,
    new_figure,
    tidy,
)
from sgmcmc_prune.run.headline import score_noise
from sgmcmc_prune.run.tables import CLASSES, named_rows, with_half_width
from sgmcmc_prune.text_table import counted, in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"nll": "NLL (nats per example)"}
WHEN = {"post_hoc": "pruned post hoc", "in_chain": "pruned in the chain"}

DECISIONS = {"median": "median model", "fdr": "false discovery rate"}
LOOKS: dict[str, dict[str, Any]] = {
    "target": {"marker": "o", "ms": 4},
    "median": {"marker": "D", "ms": 5, "ls": "", "mfc": "white"},
    "fdr": {"marker": "s", "ms": 6, "ls": "", "mfc": "white"},
}
#: How the networks of a control are drawn; dotted: without pruning.
CONTROL: dict[str, Any] = {"marker": "P", "ms": 5, "ls": ":", "lw": 1.2}
#: How the value of a starved network is marked.
STARVED: dict[str, Any] = {"color": "#999999", "marker": "x", "ms": 6, "ls": ""}
#: A network that is so much worse than the dense one has failed: it does not set the range of a panel while another
#: one can. A share of the dense accuracy, and how many times the dense error.
FAILED = 0.5
FAILED_ERROR = 4.0
#: Where the arrow of a network outside a panel stands, as a share of the panel's height from its edge.
EDGE = 0.03

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """A criterion's networks of one kind of decision, in one score; means over runs.

    Parameters
    ----------
    kept, mean, half : ndarray, shape (networks,)
        Kept share, score, and half of its interval: over runs, or of one run over examples.
    failed, starved : bool ndarray, shape (networks,)
        Much worse than the dense network; with a starved layer, in any run.
    """

    kept: np.ndarray
    mean: np.ndarray
    half: np.ndarray
    failed: np.ndarray
    starved: np.ndarray

    @property
    def fine(self) -> np.ndarray:
        """Those that set the range of a panel."""
        return ~(self.failed | self.starved)


def quality_against_sparsity(run: RunData) -> Picture:
    """Draw accuracy, NLL and ECE of one run."""
    title = "Quality against sparsity"
    if run.metrics is None:
        return Picture("sparsity", title, "The run has not been evaluated yet: there is no metrics.json.")
    if not run.metrics["pruned"]:
        return Picture("sparsity", title, "Nothing was pruned in this run.")
    scores = run.metrics.get("scores", CLASSES)
    keys = drawn_scores(scores)
    figure = draw([run.metrics], keys)
    marks = marks_of(figure, run.metrics, keys)
    named = ", ".join(scores[key] for key in keys)
    return Picture(
        "sparsity",
        title,
        " ".join(_told(run.metrics, scores)),
        f"{named} against sparsity, one line per criterion.",
        figure,
        marks,
    )


def marks_of(figure: "Figure", metrics: Metrics, keys: Sequence[str]) -> list[Mark]:
    """Every network that `draw` has drawn of one run, in every panel, with its score; outside, at the edge."""
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    when, criteria = _columns(metrics), _criteria(metrics)
    scores, found = metrics.get("scores", CLASSES), []
    for (i, key), ((method, way, decided), row) in product(enumerate(keys), named_rows(metrics)[1:]):
        kept, value = 1 - row["sparsity"], plain(row[key])
        if row["when"] not in when or kept <= 0 or np.isnan(value):
            continue
        ax = figure.axes[i * len(when) + when.index(row["when"])]
        x, y = ax.transData.transform(
            (kept * _dodge([metrics], key, criteria.index(row["criterion"]), len(criteria)), value)
        )
        y = np.clip(y, *(ax.bbox.y0 + share * ax.bbox.height for share in (EDGE, 1 - EDGE)))
        score = with_half_width(value, row.get("half_width", {}).get(key))
        starved = ", starved" if row.get("starved") else ""
        text = f"{method}, {way}, {decided} ({row['sparsity']:.1%} pruned{starved}): {scores[key]} {score}"
        found.append(Mark(x / width, 1 - y / height, text))
    return found


def _columns(metrics: Metrics) -> list[str]:
    """The ways of pruning, each of which has a column of panels."""
    return [w for w in WHEN if any(row["when"] == w for row in metrics["pruned"])]


def _criteria(metrics: Metrics) -> list[str]:
    """The criteria, ours first."""
    present = {row["criterion"] for row in metrics["pruned"]}
    return [c for c in CRITERIA if c in present] + sorted(present - set(CRITERIA))


def _told(metrics: Metrics, scores: Mapping[str, str]) -> Iterator[str]:
    """What is drawn, and nothing that is not."""
    classes = "accuracy" in scores
    where = "in the kept share, in the error and the NLL" if classes else "in the kept share"
    yield f"Posterior predictive on the {metrics['split']} split against the share of pruned weights, on scales that"
    yield f"are logarithmic {where}. Dashed: the dense predictive."
    if metrics.get("control"):
        yield "Dotted: the networks of the control, pruned at the same targets, and dense."
    if any(row["decision"] != "target" for row in metrics["pruned"]):
        yield "Hollow: decisions that take no target."
    first, *others = scores.values()
    if metrics.get("higher_is_better", True):
        yield f"Higher {first} is better, lower {' and '.join(others)}."
    else:
        yield f"Lower {first} is better."
    if any(row.get("starved") for row in metrics["pruned"]):
        yield "Grey crosses, or grey arrows at the edge: starved networks, through a layer of which almost nothing"
        yield "passes. They do not set the range of a panel."
    if any(_failed(metrics, row) for row in metrics["pruned"]):
        yield "Networks that have failed (less than half of the dense accuracy, or four times the dense error) do not"
        yield "set the range of a panel where others can: an arrow stands where they leave it, and the table has their"
        yield "values."
    known = [scores[key] for key in drawn_scores(scores) if has_bars([metrics], key)]
    if known:
        yield f"Bars and grey band: 95 % intervals of {', '.join(known)} on {counted(metrics['examples'], 'example')}"
        yield "(one seed). Networks judged on the same examples differ by less than their bars suggest."


def drawn_scores(scores: Mapping[str, str]) -> list[str]:
    """The scores that have a panel."""
    return [key for key in scores if key not in ("brier", "coverage")]


def draw(runs: Sequence[Metrics], keys: Sequence[str]) -> "Figure":
    """Draw one row of panels per metric.

    Error bars are 95 % intervals: with two runs or more Student-t ones over runs, with one those over examples
    (`predictive.intervals`), where they are known.
    """
    when, criteria = _columns(runs[0]), _criteria(runs[0])
    figure = new_figure(1 + 3.3 * len(when), 0.8 + 2.1 * len(keys))
    axes = figure.subplots(len(keys), len(when), squeeze=False, sharex=True, sharey="row")
    places = [(w, c, kind) for w in when for c in criteria for kind in kinds(runs)]
    curves = {key: dict(zip(places, settled(curve(runs, key, *p) for p in places), strict=True)) for key in keys}
    for i, key in enumerate(keys):
        for j, column in enumerate(when):
            _panel(axes[i, j], runs, key, column, criteria, curves[key])
            if column == "in_chain":
                _draw_control(axes[i, j], runs, key)
            last = i == len(keys) - 1
            tidy(axes[i, j], "sparsity" if last else "", "" if j else label(runs[0], key), "" if i else WHEN[column])
    for key, row in zip(keys, axes, strict=True):
        if key == "accuracy":
            accuracy_axis(row[0])
        elif key == "nll" and "accuracy" in keys:  # of numbers it may be negative
            log_scale(row[0])
        row[0].set_ylim(row[0].get_ylim())
        for column, ax in zip(when, row, strict=True):
            _draw_others(ax, runs, key, column, criteria, curves[key])
    sparsity_axis(axes[0, 0])
    handles = [line(in_words(c), color=criterion_colour(c), marker="o", ms=4) for c in criteria]
    marks = [line("dense", color=INK, linestyle="--")]
    if runs[0].get("control"):
        marks.append(line(f"{runs[0]['control'][0]['criterion']}, trained instead", color=INK, **CONTROL))
    if any(row["decision"] != "target" for row in runs[0]["pruned"]):
        fed = {row["decision"] for run in runs for row in run["pruned"] if not row.get("starved")}
        named = [kind for kind in kinds(runs) if kind != "target" and kind in fed]
        marks += [line(DECISIONS.get(kind, kind), color=INK, **looks_of(kind)) for kind in named]
    if any(row.get("starved") for run in runs for row in run["pruned"]):
        marks.append(line("starved", **STARVED))
    if any(found.failed.any() for found in curves[keys[0]].values()):
        marks.append(line("outside the panel", color=INK, marker="v", ms=6, lw=0))
    legend_below(figure, [*handles, *marks], 3)
    return figure


Curves = Mapping[tuple[str, str, str], Curve]


def _panel(ax: "Axes", runs: Sequence[Metrics], key: str, when: str, criteria: Sequence[str], curves: Curves) -> None:
    """Draw the dense predictive, and all pruned ones that have not failed and are not starved: they set the range."""
    dense, over_runs = mean_and_half_width(np.array([plain(run["dense"][key]) for run in runs]))
    half = over_runs if len(runs) > 1 else _over_examples(runs[0], runs[0]["dense"], key)
    ax.axhline(float(dense), color=INK, linestyle="--", linewidth=1)
    around = errors(runs, key, dense, half)
    if around is not None and np.isfinite(around).all():
        ax.axhspan(float(dense - around[0]), float(dense + around[1]), color=INK, alpha=0.08, linewidth=0)
    for place, criterion in enumerate(criteria):
        dodge = _dodge(runs, key, place, len(criteria))
        for kind in kinds(runs):
            found = curves[when, criterion, kind]
            if (fine := found.fine).any():
                error = errors(runs, key, found.mean[fine], found.half[fine])
                colour = criterion_colour(criterion)
                style = {"lw": 1.4, "elinewidth": 0.9, "capsize": 2, **looks_of(kind)}
                ax.errorbar(found.kept[fine] * dodge, found.mean[fine], error, color=colour, **style)


def _draw_control(ax: "Axes", runs: Sequence[Metrics], key: str) -> None:
    """Draw the networks that were trained and pruned instead: means over runs, and the dense one across the panel."""
    if not all(run.get("control") for run in runs):
        return
    rows = np.array([[(1 - row["sparsity"], plain(row[key])) for row in run["control"]] for run in runs]).mean(0)
    ax.axhline(rows[0, 1], color=INK, linestyle=":", linewidth=1)
    ax.plot(*rows[1:].T, color=INK, **CONTROL)


def _dodge(runs: Sequence[Metrics], key: str, place: int, criteria: int) -> float:
    """By how much a criterion is moved aside: error bars of several at one sparsity stand side by side."""
    return 1 + 0.04 * (place - (criteria - 1) / 2) if has_bars(runs, key) else 1.0


def has_bars(runs: Sequence[Metrics], key: str) -> bool:
    """Whether intervals of a score are known."""
    return len(runs) > 1 or score_noise(runs[0], runs[0]["dense"], key) is not None


def errors(runs: Sequence[Metrics], key: str, mean: Any, half: Any) -> np.ndarray | None:
    """How far 95 % intervals reach below and above, shape (2, ...); None where nothing is known of them.

    That of an accuracy of one run, if it is a share, is not symmetric.
    """
    if not has_bars(runs, key):
        return None
    share = key == "accuracy" and bool(((mean >= 0) & (mean <= 1)).all())
    if len(runs) > 1 or not share:
        return np.stack([half, half])
    low, high = wilson_interval(mean, runs[0]["examples"])
    return np.stack([mean - low, high - mean]).clip(0)


def _over_examples(run: Metrics, row: Metrics, key: str) -> float:
    """Half of the interval of a row's score over examples; NaN where it is not known."""
    return plain(score_noise(run, row, key))


def _draw_others(
    ax: "Axes", runs: Sequence[Metrics], key: str, when: str, criteria: Sequence[str], curves: Curves
) -> None:
    """Add the curves of criteria that failed somewhere, and starved networks, in the range that there is."""
    for place, criterion in enumerate(criteria):
        for kind in kinds(runs):
            found, colour = curves[when, criterion, kind], criterion_colour(criterion)
            kept, fed = found.kept * _dodge(runs, key, place, len(criteria)), ~found.starved
            if (found.failed & fed).any():
                _draw_inside(ax, kept[fed], found.mean[fed], {"color": colour, "lw": 1.4, **looks_of(kind)})
            if found.starved.any():
                _draw_inside(ax, kept[found.starved], found.mean[found.starved], STARVED)


def _draw_inside(ax: "Axes", kept: np.ndarray, mean: np.ndarray, looks: dict[str, Any]) -> None:
    """Draw a curve in the range that there is; arrows where it leaves it."""
    low, high = ax.get_ylim()
    (drawn,) = ax.plot(kept, mean, **looks)
    drawn.set_in_layout(False)  # most of it may be cut off
    for outside, marker, edge in ((mean < low, "v", EDGE), (mean > high, "^", 1 - EDGE)):
        heights = np.full(int(outside.sum()), edge)
        ax.plot(kept[outside], heights, marker, color=looks["color"], ms=6, transform=ax.get_xaxis_transform())


def kinds(runs: Sequence[Metrics]) -> list[str]:
    """The decisions that were taken, ours first."""
    taken = {row["decision"] for row in runs[0]["pruned"]}
    return [kind for kind in LOOKS if kind in taken] + sorted(taken - set(LOOKS))


def looks_of(kind: str) -> dict[str, Any]:
    """How a decision is marked; a user's own is a triangle."""
    return LOOKS.get(kind, {"marker": "^", "ms": 6, "ls": "", "mfc": "white"})


def curve(runs: Sequence[Metrics], key: str, when: str, criterion: str, kind: str) -> Curve:
    """A criterion's rows of one kind of decision, which is the decision's name."""
    found = []
    for run in runs:
        rows = [r for r in run["pruned"] if r["criterion"] == criterion and r["when"] == when]
        rows = [r for r in rows if r["decision"] == kind]
        each = (
            (1 - r["sparsity"], plain(r[key]), _quality(run, r), bool(r.get("starved")), _over_examples(run, r, key))
            for r in rows
        )
        found.append(list(each))
    values = np.array(found).reshape(len(runs), -1, 5)
    mean, half = mean_and_half_width(values)
    drawn = mean[:, 0] > 0  # a network without weights has no place on a log axis; it is in the table
    failed, starved = mean[drawn, 2] < 1, mean[drawn, 3] > 0
    return Curve(mean[drawn, 0], mean[drawn, 1], half[drawn, 1] if len(runs) > 1 else mean[drawn, 4], failed, starved)


def settled(curves: Iterable[Curve]) -> list[Curve]:
    """The curves of one score; where no network of theirs is fine, those that are not starved set the range."""
    found = list(curves)
    if any(each.fine.any() for each in found):
        return found
    return [replace(each, failed=np.zeros_like(each.failed)) for each in found]


def label(run: Metrics, key: str) -> str:
    heading: str = run.get("scores", CLASSES)[key]
    return LABELS.get(key, heading)


def _failed(run: Metrics, row: Metrics) -> bool:
    return _quality(run, row) < 1


def _quality(run: Metrics, row: Metrics) -> float:
    """The first score of a row in ratio to the worst that does not count as failed: below 1 it is worse."""
    first = next(iter(run.get("scores", CLASSES)))
    mine, dense = plain(row[first]), plain(run["dense"][first])
    if run.get("higher_is_better", True):
        return mine / (FAILED * dense)
    return FAILED_ERROR * dense / mine if first != "nll" else 1.0  # the NLL of numbers has no zero


def plain(value: float | None) -> float:
    """JSON has no NaN: null stands for it."""
    return np.nan if value is None else float(value)
