"""Pictures in one folder per class: found, put in a fixed random order, decoded and cut to squares.

Names that begin with a dot are nobody's classes and pictures (`.ipynb_checkpoints`, `._picture.jpg`). Pictures may lie
in folders below that of their class.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmcmc_prune.data.seeding import seeded_generator

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
#: The EXIF tag.
_ORIENTATION = 0x0112


def list_classes(folder: Path) -> tuple[str, ...]:
    """The names of the class folders in a folder, sorted; ValueError if there is none."""
    inside = folder.iterdir() if folder.is_dir() else ()
    classes = tuple(sorted(p.name for p in inside if p.is_dir() and not p.name.startswith(".")))
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
        found = sorted(_pictures(folder / name))
        if not found:
            raise ValueError(f"{folder / name} has no pictures; expected files named *{', *'.join(_SUFFIXES)}")
        files += found
        labels += [label] * len(found)
    order = torch.randperm(len(files), generator=seeded_generator("class folders"))
    return [files[i] for i in order.tolist()], torch.tensor(labels)[order]


def _pictures(folder: Path) -> Iterator[Path]:
    """Every picture in a folder and below it, in any order."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(root, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.suffix.lower() in _SUFFIXES)


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """Decode a picture, scale its shorter side to `size` (bicubic) and cut the square in the middle out.

    It is read as a viewer shows it: turned as its EXIF entry says, transparent parts over white, 16 bits a pixel scaled
    to 8, the first image of several.

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
            square = ImageOps.fit(_rgb(_upright(picture)), (size, size), Image.Resampling.BICUBIC)
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable picture ({error})") from error
    return np.asarray(square)


def _upright(picture: "Image") -> "Image":
    """Turn a picture as its EXIF entry says; one that cannot be read says nothing."""
    from PIL.Image import Transpose as T

    turns: dict[object, T] = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE}
    turns |= {6: T.ROTATE_270, 7: T.TRANSVERSE, 8: T.ROTATE_90}
    try:
        turn = turns.get(picture.getexif().get(_ORIENTATION))
    except SyntaxError:
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: "Image") -> "Image":
    """Three channels of 8 bits; Pillow's own conversion cuts 16 bits off at 255 and forgets what is transparent."""
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.asarray(picture)
        if picture.mode == "F" or not 0 <= int(values.min()) <= int(values.max()) < 2**16:
            raise ValueError("its pixels are numbers of no known range; expected 8 or 16 bits for each")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def read_all(files: Sequence[Path], size: int) -> Tensor:
    """Decode pictures into memory: uint8, shape (n, 3, size, size); ValueError names one that cannot be read."""
    pictures = np.empty((len(files), size, size, 3), np.uint8)
    with ThreadPoolExecutor() as pool:  # decoding leaves the interpreter free
        for i, pixels in enumerate(pool.map(partial(read_picture, size=size), files)):
            pictures[i] = pixels
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
