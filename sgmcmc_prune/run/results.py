"""The rows of a finished run as a table of results has them, the control's among them."""

from pathlib import Path
from typing import Any

from sgmcmc_prune.run.tables import named_rows
from sgmcmc_prune.store.files import read_json
from sgmcmc_prune.store.places import RunPlaces
from sgmcmc_prune.store.result_table import data_label

#: Columns after the common ones.
OTHERS = ("variant", "when", "decision", "members", "single_accuracy", "single_nll")


def result_rows(metrics: dict[str, Any], out: Path, variant: str) -> list[dict[str, Any]]:
    """One row for each network of a run.

    Parameters
    ----------
    metrics : dict
        The content of its `metrics.json`.
    out : Path
        Its directory: `seconds` are those of the whole run, of its control those of the networks up to a row.
    variant : str

    Returns
    -------
    list of dict
        With the columns `store.result_table.COMMON` and `OTHERS`; None is what is not known of an earlier run.
    """
    info = RunPlaces(out).info
    seconds = read_json(info, checksum=True).get("seconds") if info.is_file() else None
    data = metrics.get("data")
    common = {
        "seed": metrics["seed"],
        "split": metrics["split"],
        "data": data_label(data["name"], data["official"]) if data else None,
        "variant": variant,
    }
    of_control = iter(_control_seconds(out))
    return [
        common
        | {"method": method, "when": when or "dense", "decision": decided}
        | {"seconds": next(of_control) if when == "control" else row.get("seconds", seconds)}
        | {name: row.get(name) for name in ("sparsity", "accuracy", "nll", "ece", "gradient_evaluations", *OTHERS[3:])}
        for (method, when, decided), row in named_rows(metrics)
    ]


def _control_seconds(out: Path) -> list[float]:
    """Seconds of all networks of the control, at the end of each stage."""
    files = sorted(RunPlaces(out).control.directory.glob("chain*.json"))
    stages = [read_json(path, checksum=True)["stages"] for path in files]
    return [sum(stage["seconds"] for stage in same) for same in zip(*stages, strict=True)]
