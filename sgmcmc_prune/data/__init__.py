"""Data sets by name, and minibatches that are a pure function of the step."""

from pathlib import Path

from sgmcmc_prune.data import cifar, fashion_mnist, imagenet
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.image_data import Dataset, Images, hold_out, normalise

__all__ = ["NAMES", "Dataset", "Images", "MinibatchStream", "hold_out", "load", "normalise"]

NAMES = ("fashion-mnist", "fashion-mnist-subset", "cifar10", "cifar100", "imagenet")


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : {"fashion-mnist", "fashion-mnist-subset", "cifar10", "cifar100", "imagenet"}
        The subset is the 7,000 + 1,000 images that ship with the package; "imagenet" is any pictures in its folders.
    data_dir : path, optional
        Where the files are (see `load` of `fashion_mnist`, `cifar` and `imagenet`); the subset takes none.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the name is unknown, `data_dir` is given for the subset, or files are missing or wrong.
    RunError
        If the files have to be downloaded and cannot be.
    """
    if name == "fashion-mnist":
        return fashion_mnist.load(data_dir)
    if name in cifar.VERSIONS:
        return cifar.load(name, data_dir)
    if name == "imagenet":
        return imagenet.load(data_dir)
    if name != "fashion-mnist-subset":
        raise ValueError(f"data set is {name!r}; choose one of {', '.join(NAMES)}")
    if data_dir is not None:
        raise ValueError(f"data_dir is {str(data_dir)!r}, but {name} ships with the package; leave data_dir out")
    return fashion_mnist.load_subset()
