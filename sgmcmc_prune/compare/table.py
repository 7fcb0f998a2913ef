"""`comparison.csv`, and what a person reads of it in the terminal."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from sgmcmc_prune.compare.score import COLUMNS, OTHERS, Row
from sgmcmc_prune.predictive.intervals import mean_and_half_width
from sgmcmc_prune.run.tables import TIED_THRESHOLD
from sgmcmc_prune.store.result_table import write_results
from sgmcmc_prune.text_table import format_rows, number

_TEXT = ("method", "split", "data", "family", "kind", "training", "settings", "reason")
_WHOLE = (
    *(
        "seed",
        "parameters_kept",
        "flops",
        "cut_flops",
        "members",
        "inference_flops",
        "gradient_evaluations",
        "peak_memory",
    ),
    *("calibration_examples", "ties", "groups", "search_evaluations"),
)
HEADER = (
    *("method", "target", "kept", "unmasked mult-adds", "cut mult-adds", "seeds", "accuracy", "NLL", "ECE", "members"),
    *("Δ accuracy", "Δ NLL"),
)
#: What a line below the tables says of a column.
TOLD = {
    "unmasked mult-adds": "multiply-adds of one network for one input, without those of masked weights",
    "cut mult-adds": "those that are left once nodes that are constant or that nobody reads are cut out; masked "
    "weights of other nodes count, as in a dense matrix product",
    "mult-adds together": "multiply-adds of all networks for one input, without those of masked weights",
}
#: Scores of an ensemble, and the columns of its table.
SCORES = ("accuracy", "nll", "ece", "brier", "ood_auroc")
TOGETHER = (
    *("method", "target", "members", "kept together", "mult-adds together", "seeds", "accuracy", "Δ accuracy"),
    *("NLL", "Δ NLL", "ECE", "Δ ECE", "Brier", "Δ Brier", "AUROC", "Δ AUROC"),
)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows; what is None is an empty cell."""
    write_results(path, rows, OTHERS)


def read_csv(path: Path) -> list[Row]:
    """Read rows back, numbers as numbers.

    Raises
    ------
    ValueError
        If the file is not a comparison's table.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            earlier = " (of an earlier release? the same call of compare writes it anew from its finished cells)"
            raise ValueError(f"{path} is not a comparison's table{earlier}; its first line must be {','.join(COLUMNS)}")
        return [{name: _parsed(name, text) for name, text in row.items()} for row in reader]


def results(rows: Sequence[Row], kind: str) -> list[Row]:
    """The rows with results of one kind."""
    return [row for row in rows if row["kind"] == kind]


#: What the methods of a track are measured against, if nothing is said.
REFERENCES = ("inclusion-in-chain", "sgd-magnitude-one-shot", "filter-norm", "gradual-magnitude")


def default_reference(rows: Sequence[Row]) -> str:
    """The track's reference where the rows have it, else their first method."""
    methods = [row["method"] for row in rows]
    return str(next((name for name in REFERENCES if name in methods), methods[0]))


def summary(rows: Sequence[Row], reference: str, track: str = "trained") -> str:
    """Means over seeds with 95 % intervals, best accuracy first, and differences to a reference, paired by seed.

    On the track "ensembles" all networks of a predictor are counted together; elsewhere the table of ensembles leaves
    out those of one network, and names them. What each network cost, what a search chose and why a method has no result
    stand below. A column that no row fills is left out.
    """
    parts = []
    if track == "ensembles":
        parts.append(_table(rows, "ensemble", reference, TOGETHER, _line_together))
    else:
        parts += [_table(rows, "single", reference, HEADER, _line), *_of_several(rows, reference)]
    if told := [f"{name}: {text}" for name, text in TOLD.items() if name in "\n".join(parts)]:
        parts.append("\n".join(told))
    parts.append(
        "gradient evaluations of a network\n" + format_rows(("method", "evaluations", "training"), _spent(rows))
    )
    chosen = {row["method"]: [str(row["search_evaluations"]), row["settings"]] for row in rows if row["settings"]}
    if any(int(evaluations) for evaluations, _ in chosen.values()):
        lines = [[method, *cells] for method, cells in chosen.items()]
        parts.append(
            "chosen on validation images\n" + format_rows(("method", "gradient evaluations", "settings"), lines)
        )
    parts += _tied(rows)
    reasons = sorted({f"{row['method']}, seed {row['seed']}: {row['reason']}" for row in rows if row["reason"]})
    return "\n\n".join([*parts, *(["no result:\n" + "\n".join(reasons)] if reasons else [])])


def _table(
    rows: Sequence[Row],
    kind: str,
    reference: str,
    header: Sequence[str],
    line: Callable[..., list[str]],
    without: Sequence[str] = (),
) -> str:
    """The lines of one kind of row, by target, best accuracy first, without some methods and without empty columns."""
    found = results(rows, kind)
    keys = {(row["sparsity"], row["method"]) for row in found}
    order = sorted(keys, key=lambda key: (key[0] is None, key[0], -_mean(found, *key), key[1]))
    lines = [line(found, method, target, reference) for target, method in order if method not in without]
    filled = [i for i in range(len(header)) if not lines or any(cells[i] != "-" for cells in lines)]
    shown = [[cells[i] for i in filled] for cells in (header, *lines)]
    title = f"{kind} (Δ: minus {reference}, paired by seed)" if any("Δ" in name for name in shown[0]) else kind
    return f"{title}\n" + format_rows(shown[0], shown[1:])


def _of_several(rows: Sequence[Row], reference: str) -> list[str]:
    """The table of ensembles, without the methods that have one network: their rows stand above."""
    members: dict[str, int] = {}
    for row in results(rows, "ensemble"):
        members[row["method"]] = max(members.get(row["method"], 0), row["members"])
    alone = [method for method, most in members.items() if most == 1]
    if len(alone) == len(members):
        return []
    table = _table(rows, "ensemble", reference, HEADER, _line, alone)
    return [table + (f"\nof one network, as above: {', '.join(alone)}" if alone else "")]


def _tied(rows: Sequence[Row]) -> list[str]:
    """One line for the masks of which more than 1 % was decided between equal scores; a row may not know."""
    worst: dict[tuple[str, str], float] = {}
    for row in results(rows, "single"):
        if row.get("ties") and row["ties"] > TIED_THRESHOLD * row["groups"]:
            key = row["method"], _label(row["sparsity"])
            worst[key] = max(worst.get(key, 0.0), row["ties"] / row["groups"])
    named = ", ".join(f"{method} at {target}: {share:.1%}" for (method, target), share in worst.items())
    return [f"TIED: of these masks so many groups were decided between equal scores: {named}"] if named else []


def _label(target: float | None) -> str:
    return f"{target:.1%}" if target is not None else "own rule"


def _spent(rows: Sequence[Row]) -> list[list[str]]:
    """By method: what the records say that a network cost (a range, if they differ), and what a training serves."""
    spent: dict[tuple[str, str], list[int]] = {}
    for row in results(rows, "single"):
        spent.setdefault((row["method"], row["training"]), []).append(row["gradient_evaluations"])
    return [
        [method, " to ".join(f"{v:,}" for v in sorted({min(found), max(found)})), training]
        for (method, training), found in spent.items()
    ]


def paired(rows: Sequence[Row], method: str, reference: str, target: float | None, score: str) -> list[float]:
    """Differences of a score, method minus reference, for the seeds that both have."""
    of_method, of_reference = (
        {row["seed"]: row[score] for row in _of(rows, target, name)} for name in (method, reference)
    )
    return [of_method[seed] - of_reference[seed] for seed in sorted(of_method.keys() & of_reference.keys())]


def _of(rows: Sequence[Row], target: float | None, method: str) -> list[Row]:
    return [row for row in rows if row["method"] == method and row["sparsity"] == target]


def _mean(rows: Sequence[Row], target: float | None, method: str) -> float:
    return float(mean_and_half_width([row["accuracy"] for row in _of(rows, target, method)])[0])


def _line(rows: Sequence[Row], method: str, target: float | None, reference: str) -> list[str]:
    own = _of(rows, target, method)
    scores = [_interval([row[score] for row in own]) for score in ("accuracy", "nll", "ece")]
    differences = ["-", "-"]
    # At their own stopping rules two methods have different sparsities: no difference is meant.
    if target is not None and method != reference:
        differences = [_interval(paired(rows, method, reference, target, s)) for s in ("accuracy", "nll")]
    kept = 1 - sum(row["achieved_sparsity"] for row in own) / len(own)
    members = f"{sum(row['members'] for row in own) / len(own):g}"
    work = [_count([row.get(name) for row in own]) for name in ("flops", "cut_flops")]
    return [method, _label(target), f"{kept:.1%}", *work, str(len(own)), *scores, members, *differences]


def _line_together(rows: Sequence[Row], method: str, target: float, reference: str) -> list[str]:
    """What all networks of a predictor have together, and every score with its difference."""
    own = _of(rows, target, method)
    kept = sum((1 - row["achieved_sparsity"]) * row["members"] for row in own) / len(own)
    members = f"{sum(row['members'] for row in own) / len(own):g}"
    cells = [
        method,
        _label(target),
        members,
        f"{kept:.1%}",
        _count([row["inference_flops"] for row in own]),
        str(len(own)),
    ]
    known = [score for score in SCORES if own[0][score] is not None]
    scores = {score: _interval([row[score] for row in own]) for score in known}
    differences = {s: _interval(paired(rows, method, reference, target, s)) for s in known if method != reference}
    return cells + [found.get(score, "-") for score in SCORES for found in (scores, differences)]


def _count(values: Sequence[int | None]) -> str:
    """Their mean; "-" if one is not known."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):,.0f}" if len(known) == len(values) else "-"


def _interval(values: Sequence[float]) -> str:
    mean, half = mean_and_half_width(values)
    return number(float(mean), 4) if math.isnan(half) else f"{mean:.4f} ± {half:.4f}"


def _parsed(name: str, text: str) -> str | int | float | bool | None:
    if name in _TEXT:
        return text
    if not text:
        return None
    if name == "own_stopping_rule":
        return text == "True"
    return int(text) if name in _WHOLE else float(text)
