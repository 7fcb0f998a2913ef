"""Fashion-MNIST from the four official files, and a small real subset that ships with the package.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747, 2017. Licence: MIT, Zalando SE.
"""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch

from sgmcmc_prune.data.download import download
from sgmcmc_prune.data.idx import read_idx
from sgmcmc_prune.data.image_data import Dataset, Images
from sgmcmc_prune.data.places import cache_dir, named_folders

#: File name -> sha256 of the uncompressed file: train and test, images and labels.
FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
#: The same for the subset, as tools/make_fashion_mnist_subset.py prints it.
SUBSET_FILES = {
    "train-images-idx3-ubyte.gz": "d470acbc03694eba60b7954a4da964c3df51a299aa7ee4a75c38481ede5a07ce",
    "train-labels-idx1-ubyte.gz": "5e0faa0c945ddf85bcaeaca6826ecc4dba8067a00edfe57c3c6473319375ce1e",
    "t10k-images-idx3-ubyte.gz": "7a6d8e07ea021ec5bc73135ebd0a5770799557ec6f8242d8749c4f32a3cf4643",
    "t10k-labels-idx1-ubyte.gz": "b40abac7ec8228f434940f579deb7cf7b6e3103b5274cb91d1545771f5ef1c8b",
}
#: The classes in the order of their labels.
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
#: Of the 60,000 official training images, pixels divided by 255; used for the subset too.
MEAN, STD = (0.286041,), (0.353024,)

_SYSTEM_DIR = Path("/usr/share/datasets/fashion-mnist")  # the Debian package dataset-fashion-mnist
# The S3 website has no https; the checksum is what vouches for a file, from either mirror.
_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def load(data_dir: str | Path | None = None) -> Dataset:
    """Load the official 60,000 training and 10,000 test images.

    Parameters
    ----------
    data_dir : path, optional
        A folder with the four official `.gz` files, directly or in `fashion-mnist/`. Without it they are looked for
        in `$SGMCMC_PRUNE_DATA`, in `/usr/share/datasets/fashion-mnist` and in the user's cache folder
        (`$XDG_CACHE_HOME` or `~/.cache`), and downloaded to the last (31 MB) if they are in none.

    Returns
    -------
    Dataset
        Images of shape (n, 1, 28, 28).

    Raises
    ------
    ValueError
        If `data_dir` is given and lacks a file, or a file is corrupt or not the official one.
    RunError
        If the files have to be downloaded and no mirror answers.
    """
    directory = _given(Path(data_dir).expanduser()) if data_dir is not None else _found() or _downloaded()
    return _read("fashion-mnist", directory, FILES, {"official": True, "directory": str(directory)})


def subset(data_dir: str | Path | None = None) -> Dataset:
    """The 7,000 training and 1,000 test images of Fashion-MNIST that ship with the package; takes no folder."""
    if data_dir is not None:
        raise ValueError(
            f"data_dir is {str(data_dir)!r}, but fashion-mnist-subset ships with the package; leave data_dir out"
        )
    return load_subset()


def load_subset() -> Dataset:
    """Load the subset that ships with the package: the first 7,000 training and first 1,000 test images.

    Returns
    -------
    Dataset
        Images of shape (n, 1, 28, 28); `mean` and `std` are those of the full training set.

    Raises
    ------
    ValueError
        If a file of the installed package is corrupt.
    """
    directory = resources.files("sgmcmc_prune.data") / "fashion_mnist_subset"
    selection = "the first 7,000 training and the first 1,000 test images"
    return _read("fashion-mnist-subset", directory, SUBSET_FILES, {"official": False, "selection": selection})


def _read(name: str, directory: Traversable, files: dict[str, str], provenance: dict[str, Any]) -> Dataset:
    """Read and verify four files named like the official ones."""
    values = [read_idx(directory / file, 3 if "idx3" in file else 1, sha256) for file, sha256 in files.items()]
    train, test = (Images(values[i].unsqueeze(1), values[i + 1].to(torch.int64)) for i in (0, 2))
    source = {"source": "https://github.com/zalandoresearch/fashion-mnist", "licence": "MIT, Zalando SE 2017"}
    found = source | provenance | {"files": dict(files)}
    return Dataset(name, train, test, len(CLASSES), MEAN, STD, found, classes=CLASSES)


def _holder(root: Path) -> Path | None:
    """The folder with all four files: `root`, `root/fashion-mnist`, or none."""
    folders = (root, root / "fashion-mnist")
    return next((folder for folder in folders if all((folder / file).is_file() for file in FILES)), None)


def _given(data_dir: Path) -> Path:
    """The folder the caller named: what it lacks is an error, for looking elsewhere would hide a mistake."""
    directory = _holder(data_dir)
    if directory is None:
        folders = (data_dir, data_dir / "fashion-mnist")
        missing = [file for file in FILES if not any((folder / file).is_file() for folder in folders)]
        raise ValueError(
            f"{data_dir} lacks {', '.join(missing) or 'one folder with all four files'}; data_dir must hold the "
            "official Fashion-MNIST files, directly or in fashion-mnist/"
        )
    return directory


def _found() -> Path | None:
    """The first of the usual places that has all four files."""
    return next(filter(None, map(_holder, [*named_folders(), _SYSTEM_DIR, _cache_dir()])), None)


def _downloaded() -> Path:
    """The user's cache folder, after fetching what it lacks."""
    directory = _cache_dir()
    for file, sha256 in FILES.items():
        if not (directory / file).is_file():
            download([mirror + file for mirror in _MIRRORS], directory / file, sha256)
    return directory


def _cache_dir() -> Path:
    return cache_dir("fashion-mnist")
