"""A user's own tables by name: `csv:FILE:TARGET`, `npz:FILE`, and `uci:NAME` with the standard splits.

Inputs of `csv` and `uci` are standardised by their training part. Targets are standardised where the likelihood asks
for that (Gaussian); the data set keeps their centre and unit, and scores are given in the user's units.
"""

import csv as text_tables
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from sgmcmc_prune.data.examples import as_dataset
from sgmcmc_prune.data.image_data import Dataset
from sgmcmc_prune.data.seeding import seeded_generator
from sgmcmc_prune.data.uci import load as load_uci


def csv(argument: str, targets: str, data_dir: Path | None = None, test: float = 0.1, seed: int = 0) -> Dataset:
    """A text table with a header, numbers separated by commas, semicolons or tabs.

    Parameters
    ----------
    argument : str
        "FILE:TARGET", the name of the target's column, or several, separated by commas.
    targets : {"labels", "numbers", "standardised", "any"}
        What the likelihood takes. Labels may be any text; classes are numbered in alphabetical order.
    data_dir : Path, optional
        Where FILE is.
    test : float
        Share of the rows that are the test set.
    seed : int
        Which rows these are.

    Raises
    ------
    ValueError
        If the file is no such table, or a cell is missing or no number (row and column are named).
    """
    file, colon, wanted = argument.rpartition(":")
    if not colon or not file:
        raise ValueError(f"data set csv:{argument} names no target; give csv:FILE:TARGET")
    path = _place(file, data_dir)
    header, rows = _cells(path)
    names = wanted.split(",")
    for name in names:
        if header.count(name) != 1:
            found_as = f"{header.count(name)} columns" if name in header else "no column"
            raise ValueError(f"{path} has {found_as} {name!r}; it has {', '.join(header)}")
    features = [i for i, name in enumerate(header) if name not in names]
    if not features:
        raise ValueError(f"{path} has no column beside {wanted}; there is nothing to predict from")
    if len(set(names)) < len(names) or len({header[i] for i in features}) < len(features):
        raise ValueError(f"{path}: two columns have one name")
    x = torch.from_numpy(_numbers(path, header, rows, features))
    found: dict[str, Any] = {}
    chosen = [header.index(name) for name in names]
    if targets == "labels":
        if len(chosen) > 1:
            raise ValueError(f"csv:{argument} names {len(chosen)} columns of labels; a categorical likelihood has one")
        texts = [row[chosen[0]].strip() for row in rows]
        if "" in texts:
            raise ValueError(f"{path}: row {texts.index('') + 2}, column {wanted!r} is empty")
        classes = sorted(set(texts), key=lambda text: (not _is_number(text), float(text) if _is_number(text) else text))
        y = torch.tensor([classes.index(text) for text in texts])
        found["classes"] = classes
    else:
        found |= {"targets": names} if len(names) > 1 else {}
        y = torch.from_numpy(_numbers(path, header, rows, chosen))
        y = y.squeeze(1) if len(chosen) == 1 else y
    train, held_out = (part.sort().values for part in _split(len(rows), test, seed))
    if (seen := found.get("classes")) and len(y[train].unique()) < len(seen) and _look_like_numbers(seen, y):
        raise ValueError(
            f"{path}: column {wanted!r} looks like a number, with {len(seen):,} values in {len(rows):,} "
            "rows; --likelihood gaussian takes numbers, categorical the names of classes"
        )
    name = f"csv:{path.name}"
    centre, scale = moments(name, "feature", x[train])
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    x = (x - centre) / scale
    parts = ((x[train], y[train]), (x[held_out], y[held_out]))
    dataset = standardised(name, parts, targets, (tuple(centre.tolist()), tuple(scale.tolist())), found)
    columns = tuple(header[i] for i in features)
    return replace(dataset, classes=tuple(found.get("classes", ())), columns=columns, target_names=tuple(names))


def npz(argument: str, targets: str, data_dir: Path | None = None, test: float = 0.1, seed: int = 0) -> Dataset:
    """Arrays of NumPy: `x` and `y`, or `x_train`, `y_train`, `x_test` and `y_test`; inputs are taken as they are.

    Parameters
    ----------
    argument : str
        The file.
    targets, data_dir, test, seed
        As of `csv`; `test` and `seed` of a file that holds `x` and `y` alone.

    Raises
    ------
    ValueError
        If the file holds other arrays, or objects.
    """
    path = _place(argument, data_dir)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            arrays = {name: torch.from_numpy(found[name]) for name in found.files}
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is no whole .npz file of numbers; write one with numpy.savez(FILE, x=..., y=...)"
        ) from error
    wanted = ("x_train", "y_train", "x_test", "y_test")
    if set(wanted) <= arrays.keys():
        parts = ((arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"]))
    elif {"x", "y"} <= arrays.keys():
        x, y = arrays["x"], arrays["y"]
        if len(x) != len(y):
            raise ValueError(f"{path}: there are {len(x)} rows of x and {len(y)} of y")
        train, held_out = _split(len(x), test, seed)
        parts = ((x[train], y[train]), (x[held_out], y[held_out]))
    else:
        raise ValueError(f"{path} holds {', '.join(arrays) or 'nothing'}; give x and y, or {', '.join(wanted)}")
    return standardised(f"npz:{path.name}", parts, targets)


def uci(argument: str, targets: str, data_dir: Path | None = None, split: int = 0) -> Dataset:
    """A UCI regression set in the format of the standard splits (`data.uci`).

    Parameters
    ----------
    argument : str
        Its name, such as "yacht".
    targets
        As of `csv`.
    data_dir : Path, optional
        The folder with the sets; by default $SGMCMC_PRUNE_DATA.
    split : int
        Which of the standard splits.
    """
    root = data_dir or os.environ.get("SGMCMC_PRUNE_DATA")
    if root is None:
        raise ValueError(
            f"uci:{argument} needs the folder with the sets: $SGMCMC_PRUNE_DATA, or --data.data-dir "
            "(of the command `sample`, --data-dir)"
        )
    if targets == "labels":
        raise ValueError(f"uci:{argument} has numbers as targets; the likelihood wants class labels (try gaussian)")
    found = load_uci(root, argument, split)
    parts = tuple((x, y.double() * found.target_std + found.target_mean) for x, y in (found.train, found.test))
    return standardised(f"uci:{argument}", parts, targets, found.features, {"split": split})


def standardised(
    name: str,
    parts: Any,
    targets: str,
    features: tuple[tuple[float, ...], tuple[float, ...]] = ((), ()),
    options: dict[str, Any] | None = None,
) -> Dataset:
    """A training and a test set; targets, if asked for, are standardised by the training part.

    Several targets are standardised column by column, and scores of all of them are in standard deviations: one unit
    could not be that of all. The RMSE of each is given in its own.
    """
    (x, y), (test_x, test_y) = parts
    found = dict(options or {})
    centre, unit, centres, units = 0.0, 1.0, (), ()
    if targets == "standardised" and not y.is_complex() and y.ndim in (1, 2):
        y, test_y = y.double(), test_y.double()
        mean, std = moments(name, "target", y)
        y, test_y = ((part - mean) / std for part in (y, test_y))
        if mean.numel() == 1:
            centre, unit = float(mean), float(std)
        else:
            centres, units = tuple(mean.tolist()), tuple(std.tolist())
            found |= {"centre_of_targets": list(centres), "unit_of_targets": list(units)}
    dataset = as_dataset(name, ((x, y), (test_x, test_y)), targets, centre, unit, features, found)
    return replace(dataset, centres=centres, units=units)


def moments(name: str, what: str, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by column; ValueError where they are no numbers to divide by."""
    mean, std = values.mean(0), values.std(0)
    for column, (m, s) in enumerate(zip(mean.reshape(-1).tolist(), std.reshape(-1).tolist(), strict=True)):
        if not (math.isfinite(m) and math.isfinite(s)):
            raise ValueError(f"{name}: {what} {column} is too large to be standardised")
        if what == "target" and not s > 1e-12 * abs(m):
            raise ValueError(f"{name}: all training targets are {m:g}; there is nothing to learn")
    return mean, std


def _split(rows: int, test: float, seed: int) -> tuple[Tensor, Tensor]:
    """The rows of the training and of the test set."""
    if not isinstance(test, float) or not 0 < test < 1:
        raise ValueError(f"test is {test!r}; give the share of the rows that are the test set, such as 0.1")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed is {seed!r}; give an integer, the key of which rows are the test set")
    order, held = torch.randperm(rows, generator=seeded_generator("test rows", seed)), round(test * rows)
    if not 1 <= held < rows:
        raise ValueError(f"test is {test}; of {rows} rows that leaves {held} for the test set")
    return order[held:], order[:held]


def _place(file: str, data_dir: Path | None) -> Path:
    path = Path(data_dir or ".").expanduser() / Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    return path


def _cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a text table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    table = [row for row in text_tables.reader(text.splitlines(), delimiter=separator) if any(c.strip() for c in row)]
    if len(table) < 3:
        raise ValueError(f"{path} has {len(table)} rows; it takes a header and two rows or more")
    header = [cell.strip() for cell in table[0]]
    for number, row in enumerate(table[1:], 2):
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} cells, and the header {len(header)}")
    if all(_is_number(cell) for cell in header):
        raise ValueError(f"{path} has no header: its first row holds numbers; name the columns")
    return header, table[1:]


def _look_like_numbers(classes: Sequence[str], y: Tensor) -> bool:
    """Whether classes are numbers, some with decimals or more than half of them those of one row alone."""
    if not all(map(_is_number, classes)):
        return False
    return any(float(text) % 1 for text in classes) or 2 * int((y.bincount() == 1).sum()) > len(classes)


def _is_number(text: str) -> bool:
    if "_" in text:  # Python reads 1_000
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, header: list[str], rows: list[list[str]], columns: list[int]) -> np.ndarray:
    """The numbers in some columns; ValueError names row and column of a cell that holds none."""
    found = np.empty((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            cell = row[column].strip()
            if not _is_number(cell) or not np.isfinite(float(cell)):
                what = f"holds {cell!r}, no finite number" if cell else "is empty"
                raise ValueError(f"{path}: row {i + 2}, column {header[column]!r} {what}")
            found[i, j] = float(cell)
    return found
