"""A run directory as an ArviZ `DataTree`, and its table: mean, interval, effective sample size, R-hat, MCSE."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sgmcmc_prune.store.damage import damage_named
from sgmcmc_prune.store.places import RunPlaces

if TYPE_CHECKING:
    import pandas
    import xarray

MIN_DRAWS = 4  # below this R-hat and ESS, which split every chain in two, are not defined
#: Below it Vehtari et al. (Bayesian Analysis 2021) let draws be used.
RHAT_THRESHOLD = 1.01


def load(run_dir: str | Path) -> "xarray.DataTree":
    """Open the draws of a run, those complete in all chains, lazily.

    Parameters
    ----------
    run_dir : str or Path
        A run directory, or that of one of its forks.

    Returns
    -------
    xarray.DataTree
        Groups as in ArviZ, dimensions `(chain, draw, ...)`; values are read when used.

    Raises
    ------
    ValueError
        When there is no run.
    """
    import xarray

    path = RunPlaces(Path(run_dir)).store
    if not path.is_dir():
        raise ValueError(f"{run_dir} is not a run directory: it has no store of draws posterior.zarr")
    try:
        with damage_named(path):
            tree = xarray.open_datatree(path, engine="zarr")
            progress = tree["progress"].load()
    except (FileNotFoundError, KeyError):
        raise ValueError(f"{run_dir} is not a run directory: posterior.zarr is no store of draws") from None
    complete: dict[str, int] = {}
    for counter in progress.data_vars.values():
        dim = counter.attrs["sample_dim"]
        complete[dim] = min(complete.get(dim, np.iinfo(np.int64).max), int(counter.min()))
    groups = {name: node.to_dataset() for name, node in tree.children.items() if name != "progress"}
    groups = {
        name: data.isel({dim: slice(length) for dim, length in complete.items() if dim in data.dims})
        for name, data in groups.items()
    }
    if "diverging" in (stats := groups.get("sample_stats", xarray.Dataset())):  # integers in stores of old
        groups["sample_stats"] = stats.assign(diverging=stats["diverging"].astype(bool))
    return xarray.DataTree.from_dict({"/": tree.to_dataset(), **groups})


def hyperparameters(posterior: "xarray.Dataset") -> list[str]:
    """The names under which the hyperparameters of a run's prior are stored, by layer."""
    found = ("weight_norm", "share_included")  # of the weights, by layer
    return [str(name) for name, v in posterior.data_vars.items() if "layer" in v.dims and name not in found]


def summary(
    run_dir: str | Path, probes: int = 2, variables: Sequence[str] | None = None, ci_prob: float = 0.89
) -> "pandas.DataFrame":
    """Summarise the posterior of a run, one row per scalar, by `arviz_stats.summary`.

    Parameters
    ----------
    run_dir : str or Path
    probes : int
        How many probe examples' outputs to include.
    variables : sequence of str, optional
        Variables of the posterior group, of which those that are all NaN are left out; by default the prior's
        hyperparameters, the included share and the norm of each layer, and the network's outputs.
    ci_prob : float
        Probability of the equal-tailed interval.

    Returns
    -------
    pandas.DataFrame
        Columns `mean`, `sd`, the interval, `ess_bulk`, `ess_tail`, `r_hat`, `mcse_mean`, `mcse_sd` and `note`, which
        says why a diagnostic is NaN: a hyperparameter held while draws are collected has none.

    Raises
    ------
    ValueError
        When there is no run, or no draw yet.
    """
    if probes < 0:
        raise ValueError(f"probes is {probes}; it must be at least 0")
    import pandas

    from sgmcmc_prune.diagnostics.ess import MIN_DRAWS_ESS

    with damage_named(RunPlaces(Path(run_dir)).store):
        posterior = load(run_dir)["posterior"].to_dataset().load()
    if not posterior.sizes["draw"]:
        raise ValueError(f"{run_dir} has no draw that all chains have reached: let the run go on")
    series: dict[str, np.ndarray] = {}
    if variables is None:
        variables = [*hyperparameters(posterior), "share_included", "weight_norm", "logits", "outputs"]
    for name in variables:
        if name in posterior:
            series |= _scalars(posterior[name].isel(probe=slice(probes), missing_dims="ignore"))
    if not series:
        raise ValueError(f"{run_dir} has none of the variables {list(variables)}: it has {list(posterior.data_vars)}")
    notes = {label: _why_not(values) for label, values in series.items()}
    settings: dict[str, Any] = {"round_to": "none", "ci_prob": ci_prob, "ci_kind": "eti"}
    rows = _table(series, "stats", **settings)
    moving = {label: values for label, values in series.items() if not notes[label]}
    diagnostics = pandas.DataFrame(columns=["ess_bulk", "ess_tail", "r_hat", "mcse_mean", "mcse_sd"], dtype=float)
    if moving:
        diagnostics = _table(moving, "diagnostics", **settings)
    if posterior.sizes["draw"] < MIN_DRAWS_ESS:  # there ArviZ gives S log10 S whatever the draws
        diagnostics[["ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"]] = np.nan
        notes = {label: note or f"under {MIN_DRAWS_ESS} draws a chain: no ESS" for label, note in notes.items()}
    rows = rows.join(diagnostics)
    if posterior.sizes["chain"] == 1:
        notes = {label: note or "one chain: no R-hat" for label, note in notes.items()}
    rows["note"] = pandas.Series(notes)
    return rows


def format_table(table: "pandas.DataFrame") -> str:
    """Lay a summary out as aligned text, numbers to four significant digits; an R-hat above 1.01 is marked.

    Parameters
    ----------
    table : pandas.DataFrame
        From `summary`.

    Returns
    -------
    str
        One line per row, and a header; under it, if anything is marked, what the mark means.
    """
    cells = [["", *table.columns]]
    for label, row in zip(table.index, table.to_dict("records"), strict=True):
        cells.append([str(label), *(_cell(column, value) for column, value in row.items())])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    left = (0, len(widths) - 1)  # the label and the note
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in [*lines, *_warning(table)])


def _cell(column: Any, value: Any) -> str:
    """A number as text; every R-hat has a place for its mark, so that digits stay aligned."""
    text = value if isinstance(value, str) else "-" if np.isnan(value) else f"{value:.4g}"
    if column == "r_hat":
        text += " !" if value > RHAT_THRESHOLD else "  "
    return text


def _warning(table: "pandas.DataFrame") -> list[str]:
    """What the marks of a table mean; nothing if there is none."""
    marked, known = int((table["r_hat"] > RHAT_THRESHOLD).sum()), int(table["r_hat"].notna().sum())
    if not marked:
        return []
    return [
        "",
        f"! R-hat above {RHAT_THRESHOLD:g} ({marked} of {known}): the chains, or their halves, disagree. Mean, "
        "interval and MCSE of such a row do not describe one common posterior: run longer.",
    ]


def _table(series: Mapping[str, np.ndarray], kind: str, **settings: Any) -> "pandas.DataFrame":
    """ArviZ's summary of scalars by their labels, which may be no names of variables (that of a class may hold "/")."""
    from arviz_base import from_dict
    from arviz_stats import summary as table

    numbered = {str(number): values for number, values in enumerate(series.values())}
    return table(from_dict({"posterior": numbered}), kind=kind, **settings).rename(
        dict(zip(numbered, series, strict=True))
    )


def _scalars(values: "xarray.DataArray") -> dict[str, np.ndarray]:
    """Split a variable `(chain, draw, ...)` into float64 arrays `(chain, draw)`, labelled as ArviZ does."""
    values = values.transpose("chain", "draw", ...)
    array = values.values.astype(np.float64)
    if np.isnan(array).all():
        return {}
    labels = [values[dim].values.tolist() for dim in values.dims[2:]]
    scalars = {}
    for index, names in zip(np.ndindex(array.shape[2:]), product(*labels), strict=True):
        label = f"{values.name}[{', '.join(map(str, names))}]" if names else str(values.name)
        scalars[label] = array[(slice(None), slice(None), *index)]
    return scalars


def _why_not(values: np.ndarray) -> str:
    """Say why an array `(chain, draw)` has no ESS and R-hat, or nothing if it has."""
    if values.shape[1] < MIN_DRAWS:
        return f"fewer than {MIN_DRAWS} draws"
    if not np.isfinite(values).all():
        return "not finite in some draws"
    if (np.ptp(values, axis=1) == 0).any():
        return "constant within a chain"
    return ""
