"""What a run found, in sentences that a person can repeat: the price of pruning, convergence, departures."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sgmcmc_prune.diagnostics.inference_data import RHAT_THRESHOLD
from sgmcmc_prune.diagnostics.of_run import FUNCTIONS
from sgmcmc_prune.predictive.intervals import wilson_half_width
from sgmcmc_prune.run.tables import CLASSES, decision, starved_words
from sgmcmc_prune.text_table import counted, in_words, missing

#: What a network may lose where the noise of its score is not known: accuracy as a share, NLL in nats for each example,
#: any other score as a share of the dense one's.
TOLERANCES = {"accuracy": 0.01, "nll": 0.01}
TOLERANCE = 0.05
#: A noise of an accuracy above which its examples are too few to tell the price of pruning.
TOO_NOISY = 0.05
#: Networks whose numbers of kept weights are in a smaller ratio than this count as equally sparse.
ALIKE = 1.15
WHEN = {"in_chain": "in the chain", "post_hoc": "post hoc"}
COUNTS = ("Nothing", "One thing", "Two things", "Three things", "Four things", "Five things", "Six things")

Metrics = Mapping[str, Any]
Row = Mapping[str, Any]
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Price:
    """What one pruned network loses against the dense one in the first score of its run.

    Parameters
    ----------
    row : mapping
        The row of the pruned network.
    lost : float
        Accuracy as a share, NLL in nats for each example, anything else as a share of the dense score; negative where
        the pruned network is the better one.
    noise : float or None
        Half of the 95 % interval of that (`difference_noise`), None where it is not known.
    allowed : float
        The largest loss that counts as none.
    """

    row: Row
    lost: float
    noise: float | None
    allowed: float


@dataclass(frozen=True)
class Judged:
    """The network that the first sentence is about; the line under the table says of it what the sentence says.

    Parameters
    ----------
    price : Price
    free : bool
        Whether its loss counts as none.
    among : str
        In words, which others it was chosen from.
    """

    price: Price
    free: bool
    among: str


def headline(metrics: Metrics) -> list[str]:
    """Say what pruning costs, whether the chains have converged, and how many things depart from the posterior.

    The network of the first sentence is chosen by one rule. Among the pruned networks whose loss is no larger than its
    noise it is the sparsest, or, of all that keep at most 15 % more weights than that one (`ALIKE`), the one that loses
    least. If no loss is so small, it is the network that loses least of all, and the sentence says so. A network with a
    starved layer is no candidate while there is one without; if all have one, the sentence names the layer.

    The noise of a loss is half of the 95 % interval of the difference between the two networks, example by example
    (`predictive.intervals`). Runs of earlier releases know only that of one accuracy, as a binomial share. Where
    neither is known, a fixed tolerance takes its place (`TOLERANCES`), and there is no ±. The network is chosen on the
    examples that it is judged on, so that its loss is a little flattered. The first score alone chooses; of a
    likelihood that has an NLL, too, the sentence says how that changes.

    Where the dense posterior predictive errs by more than the mean of the training targets would, the first sentence
    says that instead.

    Parameters
    ----------
    metrics : mapping
        The content of `metrics.json`.

    Returns
    -------
    list of str
        Sentences; the one about departures is left out where their number is not in `metrics`.
    """
    first = _failure_sentence(metrics) or _price_sentence(metrics)
    return [first, _convergence_sentence(metrics["diagnostics"]), *_departure_sentences(metrics)]


def noise_line(metrics: Metrics) -> str:
    """What ± means in the headline, and which network it is about; empty where it is about none that was pruned."""
    first, judged = _first(metrics), _judged(metrics)
    if judged is None or _failure_sentence(metrics):
        return ""
    known = judged.price.noise is not None
    limit = "that" if known else _tolerance_words(first)
    if judged.free:
        rule = f"The headline is about the sparsest {judged.among}, of those whose loss is no larger than {limit}"
    else:
        rule = f"No {judged.among} has a loss as small as {limit}, so the headline is about the one that loses least"
    if known:
        paired = first in judged.price.row.get("paired", {})
        what = "the difference, paired by example," if paired else "one accuracy (binomial)"
        where = counted(metrics["examples"], f"{metrics['split']} example")
        return (
            f"± in the headline: half of the 95 % interval of {what} over {where}. {rule}; it was chosen on these "
            "examples, which flatters it a little."
        )
    return f"{rule}; the noise of its score is not known."


def score_noise(metrics: Metrics, row: Row, key: str) -> float | None:
    """Half of the 95 % interval of a score over the examples of its split; None where it is not known.

    Runs of earlier releases did not keep it; that of an accuracy that is a share follows from the number of examples.
    """
    kept, score, examples = row.get("half_width", {}).get(key), row.get(key), metrics.get("examples")
    if kept is None and key == "accuracy" and examples and score is not None and 0 <= score <= 1:
        return float(wilson_half_width(score, examples))
    return None if missing(kept) else float(kept)


def difference_noise(metrics: Metrics, row: Row, key: str) -> float | None:
    """That of the difference from the dense score; of an accuracy of which no pairs are known, that of itself."""
    paired = row.get("paired", {}).get(key)
    if paired is None and key == "accuracy":
        return score_noise(metrics, row, key)
    return None if missing(paired) else float(paired)


def best_rows(metrics: Metrics) -> set[int]:
    """Which pruned rows are the best of their sparsity, or not told from it by the noise of the best one's score.

    Returns
    -------
    set of int
        Places in `metrics["pruned"]`. Rows belong together by their target, those without one by their sparsity to
        three digits; a row on its own is compared with none, and left out. So are starved networks, and all of them
        where that noise is not known.
    """
    first, sign = _first(metrics), 1 if metrics.get("higher_is_better", True) else -1
    groups: dict[float, list[int]] = {}
    for place, row in enumerate(metrics["pruned"]):
        if not missing(row[first]) and not row.get("starved"):
            target = row["target"] if row["decision"] == "target" else round(row["sparsity"], 3)
            groups.setdefault(target, []).append(place)
    found = set()
    for places in groups.values():
        scores = {place: metrics["pruned"][place][first] for place in places}
        found |= not_worse(scores, sign, lambda place: score_noise(metrics, metrics["pruned"][place], first))
    return found


def not_worse(scores: Mapping[K, float], sign: int, noise: Callable[[K], float | None]) -> set[K]:
    """The best of some scores, and those that the noise of the best one does not tell from it.

    Of one alone none, and none where that noise is not known.

    Parameters
    ----------
    scores : mapping of float
    sign : int
        1 where higher is better, -1 where lower is.
    noise : callable
        From a key to the noise of its score, None where that is not known.
    """
    if len(scores) < 2:
        return set()
    top = max(scores, key=lambda key: sign * scores[key])
    allowed = noise(top)
    if allowed is None:
        return set()
    return {key for key, score in scores.items() if sign * score >= sign * scores[top] - allowed}


def prices(metrics: Metrics) -> list[Price]:
    """What every network that was pruned at all loses, in the order of its rows; those without a score are left out."""
    first, sign = _first(metrics), 1 if metrics.get("higher_is_better", True) else -1
    dense = metrics["dense"][first]
    scale = 1.0 if first in TOLERANCES else abs(dense)
    found = []
    for row in metrics["pruned"]:
        if row["sparsity"] > 0 and scale and not missing(row[first]):
            noise = difference_noise(metrics, row, first)
            noise = None if noise is None else noise / scale
            allowed = TOLERANCES.get(first, TOLERANCE) if noise is None else noise
            found.append(Price(row, sign * (dense - row[first]) / scale, noise, allowed))
    return found


def _first(metrics: Metrics) -> str:
    return str(next(iter(metrics.get("scores", CLASSES))))


def _price_sentence(metrics: Metrics) -> str:
    first = _first(metrics)
    heading, dense = metrics.get("scores", CLASSES)[first], metrics["dense"][first]
    if missing(dense):
        return f"The {heading} of this network is not a number."
    judged = _judged(metrics)
    if judged is None:
        pruned = any(row["sparsity"] > 0 for row in metrics["pruned"])
        rest = "no pruned one can be compared with it" if pruned else "nothing was pruned"
        noise = score_noise(metrics, metrics["dense"], first)
        return f"This network has {_article(heading)} {heading} of {_score(first, dense, noise)}; {rest}."
    best = judged.price
    if judged.free:
        change = _change(metrics, best)
        why = "; the chain trained on" if best.lost < 0 and best.row["when"] == "in_chain" else ""
        few = ""
        if best.noise is not None and best.noise > TOO_NOISY:
            be = "is" if metrics["examples"] == 1 else "are"
            few = f" {counted(metrics['examples'], 'example')} {be} too few to tell how far it can be pruned."
        return f"{_at(metrics, best.row)} this network {change} ({way(best.row)}{why}){_starved(best.row)}.{few}"
    limit = "its noise" if best.noise is not None else _tolerance_words(first)
    return (
        f"Every {judged.among} loses more than {limit}; the best of them, {_at(metrics, best.row, 'at', 'with')} "
        f"({way(best.row)}), {_change(metrics, best)}{_starved(best.row)}."
    )


def _failure_sentence(metrics: Metrics) -> str:
    """That the dense network is worse than no network, where it is so beyond noise."""
    mean, dense = metrics.get("mean_of_targets"), metrics["dense"].get("rmse")
    if not mean or missing(dense) or dense - mean["rmse"] <= (0.0 if missing(mean["paired"]) else mean["paired"]):
        return ""
    return (
        f"The dense network is worse than predicting the mean of the targets: its RMSE is {_score('rmse', dense)}, and "
        f"{_score('rmse', mean['rmse'])} would be that of the mean."
    )


def _judged(metrics: Metrics) -> Judged | None:
    """The network of the headline by its rule; None if none can be compared with the dense one."""
    every = [] if missing(metrics["dense"][_first(metrics)]) else prices(metrics)
    if not every:
        return None
    sound = [price for price in every if not price.row.get("starved")]
    among = "pruned network" if len(sound) in (0, len(every)) else "pruned network that is not starved"
    found = sound or every
    fine = [price for price in found if price.lost <= price.allowed]
    if not fine:
        return Judged(min(found, key=lambda price: price.lost), False, among)
    fewest = min(_kept(price.row) for price in fine)
    best = min((p for p in fine if _kept(p.row) <= ALIKE * fewest), key=lambda price: price.lost)
    return Judged(best, True, among)


def _change(metrics: Metrics, price: Price) -> str:
    """What became of the first score, with its noise if that is known, and of the NLL; and on how many examples."""
    first = _first(metrics)
    heading, dense = metrics.get("scores", CLASSES)[first], metrics["dense"][first]
    verb, score = "gains" if price.lost < 0 else "loses", _score(first, dense)
    beside, where = _nll_change(metrics, price.row), ""
    if examples := metrics.get("examples"):
        where = " on " + counted(examples, f"{metrics['split']} example")
    noise = "" if price.noise is None else f" ± {price.noise:.3f}" if first == "nll" else f" ± {100 * price.noise:.1f}"
    if first == "accuracy":
        return f"{verb} {100 * abs(price.lost):.1f}{noise} points of {heading}{beside}, from {score}{where}"
    if first == "nll":
        lost = f"{abs(price.lost):.3f}{noise}"
        return f"{verb} {lost} nats for each example, from {_article(heading)} {heading} of {score}{where}"
    side, change = "above" if price.row[first] > dense else "below", f"{100 * abs(price.lost):.1f}{noise} %"
    return f"has {_article(heading)} {heading} {change} {side} the dense {score}{beside}{where}"


def _nll_change(metrics: Metrics, row: Row) -> str:
    """By how much the NLL of an example has changed, in brackets, where it is a score beside the first."""
    if _first(metrics) == "nll" or "nll" not in metrics.get("scores", CLASSES):
        return ""
    before, after = metrics["dense"].get("nll"), row.get("nll")
    if missing(before) or missing(after):
        return ""
    return f" (NLL {abs(after - before):.2f} nats {'higher' if after > before else 'lower'})"


def _starved(row: Row) -> str:
    """That almost nothing passes a layer of the network, if that is so."""
    return f", but it is starved: {starved_words(row['starved'])}" if row.get("starved") else ""


def _score(first: str, value: float, noise: float | None = None) -> str:
    """An accuracy in percent; anything else with three digits; and its noise, if that is known."""
    if first == "accuracy":
        return f"{100 * value:.1f} %" if noise is None else f"{100 * value:.1f} ± {100 * noise:.1f} %"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    return f"{value:,.{digits}f}" if noise is None else f"{value:,.{digits}f} ± {noise:,.{digits}f}"


def _tolerance_words(first: str) -> str:
    units = {"accuracy": f"{100 * TOLERANCES['accuracy']:g} point", "nll": f"{TOLERANCES['nll']:g} nats"}
    return units.get(first, f"{100 * TOLERANCE:g} %")


def _article(heading: str) -> str:
    """The article of a heading; one of capitals is spelt out ("an RMSE")."""
    return "an" if heading[:1] in ("AEFHILMNORSX" if heading.isupper() else "aeioAEIO") else "a"


def _at(metrics: Metrics, row: Row, at: str = "At", with_: str = "With") -> str:
    """The sparsity, and of what it is the share."""
    of = metrics.get("pruned_of", "weights")
    return f"{at} {share(row)} sparsity" if of == "weights" else f"{with_} {share(row)} of the {of} pruned"


def share(row: Row) -> str:
    """In percent, with a decimal, or as many as it takes to show two digits of what is kept."""
    kept = 100 * _kept(row)
    digits = max(1, 1 - math.floor(math.log10(kept))) if kept > 0 else 0
    return f"{round(100 * row['sparsity'], digits):.15g} %"


def _kept(row: Row) -> float:
    return 1 - float(row["sparsity"])


def way(row: Row) -> str:
    """How a network was pruned: "in the chain, expected log odds"."""
    named = [str(WHEN.get(row["when"], row["when"])), in_words(row["criterion"])]
    return ", ".join([*named, *([] if row["decision"] == "target" else [decision(row)])])


def _convergence_sentence(diagnostics: Mapping[str, Any]) -> str:
    """Judge by the largest R-hat over all outputs on the probes."""
    largest = [diagnostics[name]["rhat_max"] for name in FUNCTIONS if name in diagnostics]
    known = [value for value in largest if not missing(value)]
    if not known:
        return "Whether the chains have converged is not known: there is no R-hat."
    worst = max(known)
    converged = "have converged" if worst <= RHAT_THRESHOLD else "have not converged"
    return f"The chains {converged} in function space (R-hat up to {worst:.{3 if worst < 1.095 else 1}f})."


def _departure_sentences(metrics: Metrics) -> list[str]:
    count = metrics.get("departures")
    if count is None:
        return []
    if count == 0:
        return ["Nothing that the run knows of departs from the posterior."]
    words = COUNTS[count] if count < len(COUNTS) else f"{count} things"
    return [f"{words} depart{'s' if count == 1 else ''} from the posterior."]
