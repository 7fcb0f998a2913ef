"""Data sets by name, and minibatches that are a pure function of the step."""

from pathlib import Path
from typing import Any

from sgmcmc_prune import choices
from sgmcmc_prune.data.batches import MinibatchStream
from sgmcmc_prune.data.examples import as_dataset
from sgmcmc_prune.data.image_data import Dataset, Images, hold_out, normalise

__all__ = ["Dataset", "Images", "MinibatchStream", "hold_out", "load", "normalise"]


def load(name: str, data_dir: str | Path | None = None, *, targets: str = "labels", **options: Any) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        "fashion-mnist-subset" (the 7,000 + 1,000 images that ship with the package), "fashion-mnist", "cifar10",
        "cifar100", "imagenet" (any pictures in its folders); "uci:NAME", "csv:FILE:TARGET" or "npz:FILE" (see
        `tables`); "idx:FOLDER" of images in the format of MNIST (see `idx_folder`); or "package.module:callable" of
        your own: it is called with `data_dir`, if there is one, and the options, and returns a `Dataset`, or
        ((inputs, labels), (inputs, labels)) of the training and the test set (see `examples.as_dataset`).
    data_dir : path, optional
        Where the files are (see `load` of `fashion_mnist`, `cifar` and `imagenet`); the subset takes none.
    targets : {"labels", "numbers", "standardised", "any"}
        What the likelihood takes.
    **options
        Of a table or of a callable of your own.

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
    given: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    if choices.takes_argument("data set", name):
        given["targets"] = targets
    return as_dataset(name, choices.make("data set", name, **given, **options), targets)
