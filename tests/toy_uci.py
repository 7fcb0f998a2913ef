"""A toy regression set in the format of the UCI standard splits, for the experiments that read such folders."""

from pathlib import Path

import numpy as np


def write_toy(root: Path) -> None:
    """Write `root/toy/data`: 60 rows of two features, of which 50 train; targets have a standard deviation of 100."""
    folder = root / "toy" / "data"
    folder.mkdir(parents=True)
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(folder / "data.txt", np.column_stack([x[:, :2], 100 * x[:, 0] + x[:, 2]]))
    for name, values in {"features": [0, 1], "target": [2], "train_0": range(50), "test_0": range(50, 60)}.items():
        np.savetxt(folder / f"index_{name}.txt", list(values), fmt="%d")
