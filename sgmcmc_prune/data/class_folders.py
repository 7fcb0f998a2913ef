"""Pictures in one folder per class: found, put in a fixed random order, decoded and cut to squares."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmcmc_prune.data.seeding import seeded_generator

_SUFFIXES = (".jpg", ".jpeg", ".png")


def list_classes(folder: Path) -> tuple[str, ...]:
    """The names of the class folders in a folder, sorted; ValueError if there is none."""
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir())) if folder.is_dir() else ()
    if not classes:
        raise ValueError(f"{folder} has no class folders; expected {folder.name}/CLASS/PICTURE.jpg (or .jpeg, .png)")
    return classes


def same_classes(train: Path, validation: Path) -> tuple[str, ...]:
    """The class folders that two splits share; ValueError that names those which only one of them has."""
    classes, others = list_classes(train), list_classes(validation)
    if classes != others:
        differing = sorted(set(classes) ^ set(others))
        shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise ValueError(
            f"{train} has {len(classes)} class folders and {validation} {len(others)}; {len(differing)} differ: {shown}"
        )
    return classes


def list_pictures(folder: Path, classes: Sequence[str]) -> tuple[list[Path], Tensor]:
    """Every picture of the classes, in a random order that depends on their number alone.

    The order matters where only the first pictures are used (probes, batch-normalisation statistics): sorted by class
    they would all show the same thing.

    Parameters
    ----------
    folder : Path
        Holds one folder per class.
    classes : sequence of str
        In the order of their labels.

    Returns
    -------
    files : list of Path
    labels : Tensor, int64

    Raises
    ------
    ValueError
        If a class has no picture.
    """
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in _SUFFIXES)
        if not found:
            raise ValueError(f"{folder / name} has no pictures; expected files named *{', *'.join(_SUFFIXES)}")
        files += found
        labels += [label] * len(found)
    order = torch.randperm(len(files), generator=seeded_generator("class folders"))
    return [files[i] for i in order.tolist()], torch.tensor(labels)[order]


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """Decode a picture, scale its shorter side to `size` (bicubic) and cut the square in the middle out.

    Returns
    -------
    ndarray, uint8, shape (size, size, 3)

    Raises
    ------
    ValueError
        If the file is no readable picture (named), or Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ValueError("reading pictures needs Pillow: pip install pillow") from error
    try:
        with Image.open(path) as picture:
            square = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable picture ({error})") from error
    return np.asarray(square)


def read_all(files: Sequence[Path], size: int) -> Tensor:
    """Decode pictures into memory: uint8, shape (n, 3, size, size); ValueError names one that cannot be read."""
    pictures = np.empty((len(files), size, size, 3), np.uint8)
    with ThreadPoolExecutor() as pool:  # decoding leaves the interpreter free
        for i, pixels in enumerate(pool.map(partial(read_picture, size=size), files)):
            pictures[i] = pixels
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
