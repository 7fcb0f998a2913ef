"""Images that no training set holds: street numbers (SVHN), CIFAR-10 spoilt in nineteen ways (CIFAR-10-C), and others.

Sources: Y. Netzer et al., "Reading digits in natural images with unsupervised feature learning", NIPS workshop 2011,
http://ufldl.stanford.edu/housenumbers; D. Hendrycks, T. Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019, https://zenodo.org/record/2535967.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgmcmc_prune import choices
from sgmcmc_prune import data as datasets
from sgmcmc_prune.data.idx import read_idx
from sgmcmc_prune.data.image_data import Dataset, Images, LabelledImages

SEVERITIES = 5
#: Foreign sets that are no data sets of their own here.
READERS = ("svhn", "cifar10-c:CORRUPTION:SEVERITY", "idx")


def foreign_inputs(name: str, data_dir: Path | None, native: Dataset, shape: tuple[int, ...], device: str) -> Any:
    """Test images of another data set as a network's inputs, normalised as those it was trained on.

    Parameters
    ----------
    name : str
        "svhn"; "cifar10-c:fog:3", say, for one corruption at one severity; "idx" for the images in
        `t10k-images-idx3-ubyte` or `t10k-images-idx3-ubyte.gz`, the format of MNIST and its relatives; or the name of a
        data set.
    data_dir : Path, optional
        Folder with the files. The first three need it.
    native : Dataset
        What the network was trained on.
    shape : tuple of int
        Shape of its inputs.
    device : str

    Returns
    -------
    Tensor, shape (n, *shape)

    Raises
    ------
    ValueError
        If the name is unknown, the folder is missing or lacks a file, a file is corrupt, or the images have another
        shape.
    """
    found = _foreign_images(name, data_dir)
    if not len(found):
        raise ValueError(f"ood set {name} in {data_dir} has no images")
    if isinstance(found, Images) and tuple(found.images.shape[1:]) != shape:
        raise ValueError(
            f"images of {name} have shape {tuple(found.images.shape[1:])}, those of {native.name} {shape}; choose "
            "another ood set"
        )
    return found.inputs(native.mean, native.std, device)


def _foreign_images(name: str, data_dir: Path | None) -> LabelledImages:
    if name in choices.OURS["data set"] or choices.is_own(name):
        return datasets.load(name, data_dir).test
    if name not in ("svhn", "idx") and not name.startswith("cifar10-c:"):
        raise ValueError(f"ood is {name!r}; choose one of {', '.join((*READERS, *choices.OURS['data set']))}")
    if data_dir is None:
        raise ValueError(f"ood is {name!r}, whose files are never downloaded; give their folder as --ood-dir")
    if name == "svhn":
        return load_svhn(data_dir)
    if name == "idx":
        return load_idx(data_dir)
    _, corruption, *severity = name.split(":")
    if len(severity) != 1 or severity[0] not in map(str, range(1, SEVERITIES + 1)):
        raise ValueError(f"ood is {name!r}; write cifar10-c:CORRUPTION:SEVERITY, as in cifar10-c:fog:3 (1 to 5)")
    return load_cifar10_c(data_dir, corruption, int(severity[0]))


def load_idx(data_dir: str | Path) -> Images:
    """Read the test images of MNIST, or of a relative in its file format; their labels are left out.

    Parameters
    ----------
    data_dir : path
        The folder with `t10k-images-idx3-ubyte`, plain or as `.gz`.

    Returns
    -------
    Images
        Shape (n, 1, height, width); all labels are 0.

    Raises
    ------
    ValueError
        If there is no such file, or it is corrupt.
    """
    folder = Path(data_dir).expanduser()
    paths = [folder / f"t10k-images-idx3-ubyte{ending}" for ending in (".gz", "")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ValueError(f"{folder} holds neither {paths[0].name} nor {paths[1].name}")
    images = read_idx(path, 3).unsqueeze(1)
    return Images(images, torch.zeros(len(images), dtype=torch.int64))


def load_svhn(data_dir: str | Path, split: str = "test") -> Images:
    """Read cropped street numbers from `train_32x32.mat`, `test_32x32.mat` or `extra_32x32.mat`.

    Parameters
    ----------
    data_dir : path
    split : {"test", "train", "extra"}

    Returns
    -------
    Images
        Shape (n, 3, 32, 32); the label is the digit (the files call a zero 10).

    Raises
    ------
    ValueError
        If the file is missing, corrupt, or not of this layout.
    """
    from scipy.io import loadmat  # SciPy is needed for nothing else here
    from scipy.io.matlab import MatReadError

    path = Path(data_dir).expanduser() / f"{split}_32x32.mat"
    try:
        content = loadmat(path, variable_names=("X", "y"))
        pixels, labels = content["X"], content["y"].ravel()
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError, zlib.error) as error:
        raise ValueError(f"{path} is not a readable SVHN file with X and y ({error!r})") from error
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(labels)) or not len(labels):
        raise ValueError(f"{path}: X is {pixels.dtype} {pixels.shape}, expected uint8 (32, 32, 3, {len(labels)})")
    if labels.dtype.kind not in "iuf" or not np.isin(labels, range(11)).all():
        raise ValueError(f"{path}: y holds something else than the digits 1 to 9 and 10, which stands for 0")
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
    return Images(images, torch.from_numpy(labels.astype(np.int64) % 10))


def corruptions(data_dir: str | Path) -> tuple[str, ...]:
    """The corruptions that a folder of CIFAR-10-C holds, sorted: `NAME.npy` beside `labels.npy`."""
    return tuple(sorted(p.stem for p in Path(data_dir).expanduser().glob("*.npy") if p.stem != "labels"))


def load_cifar10_c(data_dir: str | Path, corruption: str, severity: int) -> Images:
    """Read one corruption of the CIFAR-10 test images at one severity.

    Parameters
    ----------
    data_dir : path
        The folder `CIFAR-10-C` with `labels.npy` and one `.npy` file per corruption: five blocks of n images each, in
        the order of severity.
    corruption : str
        Such as "gaussian_noise".
    severity : int
        1 to 5.

    Returns
    -------
    Images
        Shape (n, 3, 32, 32), n = 10,000 in the official files.

    Raises
    ------
    ValueError
        If the corruption or the severity does not exist, or a file is corrupt.
    """
    folder = Path(data_dir).expanduser()
    if corruption not in corruptions(folder) or not 1 <= severity <= SEVERITIES:
        held = ", ".join(corruptions(folder)) or "no .npy file"
        raise ValueError(f"corruption {corruption!r} at severity {severity} not found: {folder} holds {held} (1 to 5)")
    images, labels = _array(folder / f"{corruption}.npy"), _array(folder / "labels.npy")
    if images.shape[1:] != (32, 32, 3) or labels.shape != images.shape[:1] or len(images) % SEVERITIES:
        raise ValueError(
            f"{folder / corruption}.npy has shape {images.shape} and labels.npy {labels.shape}; expected "
            "(5 n, 32, 32, 3) and (5 n,)"
        )
    count = len(images) // SEVERITIES
    block = slice((severity - 1) * count, severity * count)
    pixels = np.ascontiguousarray(images[block].transpose(0, 3, 1, 2))
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels[block].astype(np.int64)))


def _array(path: Path) -> np.ndarray:
    """Map a file of unsigned bytes into memory."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy file of unsigned bytes") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        held = array.dtype if isinstance(array, np.ndarray) else "several arrays (.npz)"
        raise ValueError(f"{path} holds {held}, expected uint8")
    return array
