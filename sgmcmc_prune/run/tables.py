"""The tables of a run, as a person reads them in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from sgmcmc_prune.diagnostics.inference_data import RHAT_THRESHOLD
from sgmcmc_prune.diagnostics.of_run import FUNCTIONS
from sgmcmc_prune.pruning.inclusion import MIN_BATCHES
from sgmcmc_prune.text_table import counted, decimals, format_rows, in_words, missing, number

NAMED = ("method", "when", "decision", "sparsity")
#: The scores of runs that do not say theirs: of class labels.
CLASSES = {"accuracy": "accuracy", "nll": "NLL", "brier": "Brier", "ece": "ECE"}
OOD_COLUMNS = {"ood_auroc": "OOD AUROC", "ood_auroc_mutual_information": "by MI"}
IN_CHAIN = "in chain: chains train on from their dense end while the mask grows, so a pruned row may beat the dense one"
#: Share of the groups decided by tie from which a table says so.
TIED_THRESHOLD = 0.01
SIZE_COLUMNS = {"parameters": "parameters", "multiply_adds": "multiply-adds"}


def metrics_table(metrics: dict[str, Any]) -> str:
    """The table of a run: the dense predictive, then every pruned one."""
    header, *rows = metrics_rows(metrics, narrow=True)
    notes = [
        *interval_lines(metrics),
        *unit_lines(metrics),
        *control_lines(metrics),
        *ood_lines(metrics),
        *starved_lines(metrics),
        *tied_lines(metrics),
    ]
    return "\n".join([format_rows(header, rows), *notes])


def metrics_rows(metrics: dict[str, Any], narrow: bool = False) -> list[list[str]]:
    """The cells of that table, row by row, its header first; two columns more if there were foreign images.

    Where intervals are known, every score has its own after a ±, and the second of them is the difference of the first
    from the dense one, with its paired interval; in a narrow table the first score alone has its own.
    """
    scores = metrics.get("scores", CLASSES)
    first = next(iter(scores))
    compared = not narrow and any(row.get("paired", {}).get(first) is not None for row in metrics["pruned"])
    headings = list(scores.values())
    headings[1:1] = [f"{headings[0]} - dense"] if compared else []
    header = [*NAMED, *headings, "members", f"single {scores[first]}"]
    header += OOD_COLUMNS.values() if metrics.get("ood") else ()
    dense = metrics["dense"] if compared else None
    return [header, *([*named, *_cells(row, scores, dense, narrow)] for named, row in named_rows(metrics))]


def size_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """What is left of every network once superfluous nodes are cut out, its header first; empty if nothing went."""
    dense = metrics["dense"]
    if all(row.get(size) in (None, dense.get(size)) for row in metrics["pruned"] for size in SIZE_COLUMNS):
        return []
    header = [*NAMED, *(part for name in SIZE_COLUMNS.values() for part in (name, "of dense"))]
    return [
        header,
        *(
            [*named, f"{row['sparsity']:.1%}"]
            + [part for size in SIZE_COLUMNS for part in _size_cells(row[size], dense[size])]
            for named, row in named_rows(metrics)
        ),
    ]


def _size_cells(size: float | None, dense: float | None) -> tuple[str, str]:
    """A size, and its share of the dense network's; dashes where it is not known."""
    return ("-", "-") if size is None or dense is None else (f"{size:,.0f}", f"{size / dense:.1%}")


def named_rows(metrics: Mapping[str, Any]) -> list[tuple[list[str], dict[str, Any]]]:
    """Every row with its method, when and decision in words."""
    rows = [(["dense", "", ""], metrics["dense"])]
    for row in (*metrics["pruned"], *metrics.get("control", ())):
        rows.append(([in_words(row["criterion"]), row["when"].replace("_", " "), decision(row)], row))
    return rows


def decision(row: Mapping[str, Any]) -> str:
    """The decision of a pruned row in words: a target sparsity ("97.5%"), "median" or "fdr 0.1"."""
    if row["decision"] == "none":
        return ""
    if row["decision"] == "target":
        return f"{100 * row['target']:g}%"
    return " ".join([row["decision"], *(f"{row[key]:g}" for key in ("level",) if key in row)])


def _cells(row: dict[str, Any], scores: dict[str, str], dense: dict[str, Any] | None, narrow: bool) -> list[str]:
    """The cells after those that name a row; beside the dense row where the first score is to be compared."""
    first = next(iter(scores))
    half = row.get("half_width", {})
    found = [with_half_width(row[key], None if narrow and key != first else half.get(key)) for key in scores]
    if dense is not None:
        paired = row.get("paired", {}).get(first)
        gap = None if missing(row[first]) or missing(dense[first]) else row[first] - dense[first]
        found.insert(1, "" if row is dense else with_half_width(gap, paired, "+", dense[first]))
    single = number(row[f"single_{first}"], 4)
    foreign = [number(row[key], 4) for key in OOD_COLUMNS if key in row]
    return [f"{row['sparsity']:.1%}", *found, str(row["members"]), single, *foreign]


def with_half_width(value: float | None, half: float | None, sign: str = "", beside: float | None = None) -> str:
    """A score, and half of its interval where that is known, as exact as the score `beside` it."""
    if value is None or missing(value):
        return "-"
    digits = decimals(4, value, 0.0 if beside is None else beside)
    text = f"{value:{sign},.{digits}f}"
    return text if half is None or missing(half) else f"{text} ± {half:,.{digits}f}"


def interval_lines(metrics: dict[str, Any]) -> list[str]:
    """What ± is in the table, and those of the other scores of the dense row; nothing where none is known."""
    scores, half = metrics.get("scores", CLASSES), metrics["dense"].get("half_width", {})
    first = next(iter(scores))
    known = [key for key in scores if not missing(half.get(key))]
    if not known:
        return []
    told = [f"{scores[key]} {with_half_width(metrics['dense'][key], half[key])}" for key in known if key != first]
    way = " (RMSE: by the delta method)" if "rmse" in half else ""
    there = "± in the table" if first in known else "± of the dense network"
    rest = f"; dense{', too' * (first in known)}: {', '.join(told)}" if told else ""
    where = counted(metrics["examples"], f"{metrics['split']} example")
    return [f"{there}: half of the 95 % interval over {where}{way}{rest}"]


def diagnostics_lines(metrics: dict[str, Any]) -> list[str]:
    """The health of the dense chains in words."""
    d = metrics["diagnostics"]
    return [
        *in_chain_lines(metrics),
        f"draws: {d['chains']} chains x {d['draws_per_chain']}",
        *temperature_lines(d),
        *(_convergence_line(f"probe {name}", d[name]) for name in FUNCTIONS if name in d),
        *(_by_layer(name, values) for name, values in d["hyperparameters"].items()),
        *_inclusion_lines(d.get("inclusion", {})),
    ]


def in_chain_lines(metrics: dict[str, Any]) -> list[str]:
    """Why a pruned row may beat the dense one, if any may."""
    return [IN_CHAIN] if any(row["when"] == "in_chain" for row in metrics["pruned"]) else []


def _by_layer(name: str, values: dict[str, float | None]) -> str:
    """One hyperparameter of the prior, mean over chains."""
    cells = (f"{layer} {'-' if missing(v) else f'{v:.3g}'}" for layer, v in values.items())
    return f"{name.replace('_', ' ')}: {', '.join(cells)}"


def _inclusion_lines(found: dict[str, Any]) -> list[str]:
    """How well inclusion probabilities are known."""
    if not found:
        return []
    if found["batches"] < MIN_BATCHES:
        return [f"inclusion probabilities: no standard error (it takes {MIN_BATCHES} batches; here {found['batches']})"]
    cells = [
        f"{name} {number(error, 4)} ({found['undecided'][name]:.1%})" for name, error in found["standard_error"].items()
    ]
    return [
        f"inclusion probabilities: median standard error from {found['batches']} batches, and the share of groups "
        f"within two of their own from 1/2: {', '.join(cells)}"
    ]


def control_lines(metrics: dict[str, Any]) -> list[str]:
    """What the rows of a control are, and what they took beside ours."""
    rows = metrics.get("control", [])
    if not rows:
        return []
    took = f"{rows[0]['gradient_evaluations']:,}"
    ours = f"{metrics['dense']['gradient_evaluations']:,}"
    dense_alone = "dense alone (nothing is pruned in the chain)"
    pruned = "at every target by gradual magnitude pruning" if len(rows) > 1 else dense_alone
    return [
        f"control: {rows[0]['criterion']} in {rows[0]['members']} networks of the chains' starts and minibatches, "
        f"{pruned}: what one would train instead. Gradient evaluations, dense: {took}, and {ours} of the chains"
    ]


def ood_lines(metrics: dict[str, Any]) -> list[str]:
    """What the columns about foreign images mean, if there are any."""
    if not metrics.get("ood"):
        return []
    return [
        f"OOD AUROC: how well the entropy of the prediction tells images of {metrics['ood']} from those of the "
        f"{metrics['split']} split (1 is perfect, 0.5 chance); by MI: the same by the disagreement of members alone"
    ]


def unit_lines(metrics: dict[str, Any]) -> list[str]:
    """Of what sparsity is the share; in what scores of several targets are, and the RMSE of each in its own unit."""
    of = metrics.get("pruned_of", "weights")
    shares = [f"sparsity: share of the {of}, and of no other weights"] if of != "weights" else []
    found = metrics.get("rmse_by_target")
    if not found:
        return shares
    each = ", ".join(f"{name} {number(v, 4) if abs(v) >= 1000 else f'{v:.4g}'}" for name, v in found.items())
    return [
        *shares,
        f"scores of {len(found)} targets are in standard deviations of each; RMSE in their units, dense: {each}",
    ]


def starved_lines(metrics: dict[str, Any]) -> list[str]:
    """A warning for every pruned network that a mask has cut through."""
    return [
        f"STARVED: {' '.join(named)}: {starved_words(row['starved'])} under the mask of a chain"
        for named, row in named_rows(metrics)
        if row.get("starved")
    ]


def starved_words(layers: Sequence[str]) -> str:
    """What starved layers do, wherever it is said."""
    return f"almost nothing passes {', '.join(layers)}"


def tied_lines(metrics: dict[str, Any]) -> list[str]:
    """A warning for every mask of which a good part was decided between equal scores."""
    return [
        f"TIED: {' '.join(named)}: {row['tied']:.1%} of the groups have the score of a group with the opposite fate; "
        "magnitude decided, and then chance"
        for named, row in named_rows(metrics)
        if row.get("tied", 0.0) > TIED_THRESHOLD
    ]


def temperature_lines(d: dict[str, Any]) -> list[str]:
    """Temperatures, and whether the run is off, in words; `d` is the part `diagnostics` of the metrics."""
    t = d["temperature"]
    kinetic = t["kinetic"]
    parameters = kinetic["parameters"].values()
    inside = sum(row["outside"] == 0 for row in parameters)
    judged = f"no band: {kinetic['reason']}"
    if not kinetic["reason"]:
        judged = (
            f"{number(kinetic['expected'], 3)} expected; {inside} of {len(parameters)} parameters inside their band"
        )
    configurational = [
        number(row["mean"], 3) + ("" if missing(row["low"]) else f" ({row['low']:.3f} to {row['high']:.3f})")
        for row in t["configurational"]
    ]
    interval = "" if any(map(missing, (row["low"] for row in t["configurational"]))) else ", with interval"
    pooled = t.get("pooled")  # runs of earlier releases do not have it
    together = ""
    if pooled and not missing(pooled["low"]):
        together = f"; of all chains {pooled['mean']:.3f} ({pooled['low']:.3f} to {pooled['high']:.3f})"
    return [
        f"kinetic temperature {number(d['kinetic_temperature'], 3)} ({judged}); minibatch noise is estimated to add "
        f"{number(t['excess'], 3)} to the temperature",
        f"configurational temperature by chain{interval}: {', '.join(configurational)}{together}",
        *(f"OFF: {finding}" for finding in t["findings"]),
        "(a chain that is still moving to where it stays is OFF, too; of one that has converged, with exact gradients "
        f"and small steps, such a line is a false alarm of probability {t['false_alarm']:g})",
    ]


def _convergence_line(name: str, c: dict[str, Any]) -> str:
    still = f"; {c['still']} that never move are left out" if c["still"] else ""
    sizes = (
        f"bulk ESS {number(c['ess_median'], 0)} (median), {number(c['ess_min'], 0)} (min), tail ESS "
        f"{number(c['ess_tail_min'], 0)} (min)"
        if c["ess_min"] is not None
        else "no ESS (it takes ten draws a chain)"
    )
    apart = c["rhat_max"] is not None and c["rhat_max"] > RHAT_THRESHOLD
    return (
        f"{name}: R-hat {number(c['rhat_median'], 2)} (median), {number(c['rhat_max'], 2)} (max); {sizes}; over "
        f"{c['entries']} outputs{still}"
        + f"; not converged (R-hat under {RHAT_THRESHOLD:g}): sample for longer"
        * apart
    )


def weights_table(parameters: dict[str, dict[str, Any]]) -> str:
    """The table of `convergence.of_weights`: quantiles over the entries of each parameter."""
    quantiles = [f"{s} {q}" for s in ("R-hat", "ESS") for q in ("5%", "50%", "95%")]
    rows = [
        [
            *(name, *(f"{p[key]:,}" for key in ("size", "seen", "moving"))),
            *(*(number(v, 2) for v in p["rhat"]), *(number(v, 1) for v in p["ess"])),
        ]
        for name, p in parameters.items()
    ]
    note = "R-hat compares single weights across chains, whose hidden units permute; ESS is that of one chain."
    if any(p["seen"] < p["size"] for p in parameters.values()):
        note += " Of large parameters some entries are seen, drawn at random."
    return f"{format_rows(('parameter', 'entries', 'seen', 'moving', *quantiles), rows)}\n{note}"
