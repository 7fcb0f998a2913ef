"""Any image set in the format of MNIST, by its folder: `idx:FOLDER` reads MNIST itself, KMNIST, EMNIST and the like."""

from pathlib import Path

import torch
from torch import Tensor

from sgmcmc_prune.data.idx import read_idx
from sgmcmc_prune.data.image_data import Dataset, Images

#: Training and test set: what the names of their two files start with.
PARTS = ("train", "t10k")
#: What the files hold, and the dimensions of that.
DIMENSIONS = {"images": 3, "labels": 1}


def load(argument: str, targets: str, data_dir: Path | None = None) -> Dataset:
    """Read four idx files named as those of MNIST, compressed or not.

    Classes are the labels of the training set in rising order, so that 1 to 26 are 26 classes.

    Inputs are normalised by the mean and the standard deviation of all training pixels. There is no list of official
    checksums, so that the files are taken for what they are.

    Parameters
    ----------
    argument : str
        The folder, below `data_dir` if that is given.
    targets : {"labels", "numbers", "standardised", "any"}
        What the likelihood takes; these files hold labels.
    data_dir : Path, optional

    Returns
    -------
    Dataset
        Images of shape (n, 1, height, width).

    Raises
    ------
    ValueError
        If a file is missing or corrupt, the training and the test images have unlike sizes, or the likelihood takes
        numbers.
    """
    if targets not in ("labels", "any"):
        raise ValueError(f"data set idx:{argument} holds labels of classes; choose a likelihood that takes them")
    folder = (Path(data_dir).expanduser() if data_dir is not None else Path()) / Path(argument).expanduser()
    train, test = (_part(folder, part) for part in PARTS)
    sizes = [tuple(part.images.shape[2:]) for part in (train, test)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{folder}: training images have size {sizes[0]}, test images {sizes[1]}")
    mean, std = moments(train.images)
    if std == 0:
        raise ValueError(f"{folder}: all pixels of the training images are the same")
    values = train.labels.unique()
    if bool((foreign := test.labels[~torch.isin(test.labels, values)]).numel()):
        raise ValueError(f"{folder}: label {int(foreign[0])} is in the test set, and not in the training set")
    train, test = (Images(part.images, torch.searchsorted(values, part.labels)) for part in (train, test))
    found = {"official": False, "directory": str(folder)}
    names = tuple(str(int(value)) for value in values)
    return Dataset(f"idx:{folder.resolve().name}", train, test, len(values), (mean,), (std,), found, classes=names)


def moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of uint8 pixels divided by 255, exactly, from how often each value occurs."""
    count, value = images.flatten().bincount(minlength=256).double(), torch.arange(256, dtype=torch.float64) / 255
    mean = (count * value).sum() / count.sum()
    return float(mean), float(((count * (value - mean).square()).sum() / count.sum()).sqrt())


def _part(folder: Path, part: str) -> Images:
    images, labels = (read_idx(_file(folder, f"{part}-{kind}-idx{d}-ubyte"), d) for kind, d in DIMENSIONS.items())
    if len(images) != len(labels) or not images.numel():
        raise ValueError(f"{folder}: there are {tuple(images.shape)} {part} pixels and {len(labels)} labels")
    return Images(images.unsqueeze(1), labels.long())


def _file(folder: Path, name: str) -> Path:
    """The file, or its compressed form, or the form with a dot that some copies have."""
    for found in (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"):
        if (folder / found).is_file():
            return folder / found
    raise ValueError(f"{folder} lacks {name} or {name}.gz; an idx folder has images and labels of train and t10k")
