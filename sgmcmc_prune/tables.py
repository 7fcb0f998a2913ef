"""The tables a person reads in the terminal, aligned."""

import math
from collections.abc import Sequence
from typing import Any

COLUMNS = ("method", "when", "decision", "sparsity", "accuracy", "NLL", "Brier", "ECE", "members", "single acc.")


def format_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align text left in the first column and right in the others, under a rule."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *[c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]]).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(header), rule, *map(line, rows)])


def metrics_table(metrics: dict[str, Any]) -> str:
    """The table of a run: the dense predictive, then every pruned one."""
    return format_rows(COLUMNS, metrics_rows(metrics))


def metrics_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """The cells of that table, row by row, under `COLUMNS`."""
    rows = [_row("dense", "", "", metrics["dense"])]
    for row in metrics["pruned"]:
        decision = f"{row['target']:.0%}" if row["decision"] == "target" else row["decision"]
        rows.append(_row(row["criterion"].replace("_", " "), row["when"].replace("_", " "), decision, row))
    return rows


def _row(method: str, when: str, decision: str, row: dict[str, Any]) -> list[str]:
    scores = [number(row[key], 4) for key in ("accuracy", "nll", "brier", "ece")]
    single = number(row["single_accuracy"], 4)
    return [method, when, decision, f"{row['sparsity']:.1%}", *scores, str(row["members"]), single]


def diagnostics_lines(metrics: dict[str, Any]) -> list[str]:
    """The health of the dense chains in words."""
    d = metrics["diagnostics"]
    low, high = d["kinetic_band"]
    kinetic = number(d["kinetic_temperature"], 3)
    verdict = "inside" if d["kinetic_in_band"] else "OUTSIDE"
    logits = d["logits"]
    return [
        f"draws: {d['chains']} chains x {d['draws_per_chain']}",
        f"kinetic temperature {kinetic}, {verdict} the 99 % band [{number(low, 3)}, {number(high, 3)}] of an exact "
        "gradient at small steps (minibatch noise heats)",
        f"configurational temperature {number(d['configurational_temperature'], 3)}",
        f"probe logits: R-hat {number(logits['rhat_median'], 2)} (median), {number(logits['rhat_max'], 2)} (max); "
        f"bulk ESS {number(logits['ess_median'], 0)} (median), {number(logits['ess_min'], 0)} (min)",
        "inclusion rate: " + ", ".join(f"{name} {number(v, 3)}" for name, v in d["inclusion_rate"].items()),
    ]


def number(value: float | None, digits: int) -> str:
    """A number with fixed digits; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
