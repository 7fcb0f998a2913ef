"""Pictures that stay on disk: read when they are indexed, and then as the network takes them.

A `Source` knows only how to read squares of pixels by number. `PictureInputs` makes it look like the tensor of inputs
that a small data set has, so that sampling, evaluation and probes need not know the difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgmcmc_prune.data.class_folders import read_picture
from sgmcmc_prune.data.image_data import normalise

Pixels = NDArray[np.uint8]


class Source(Protocol):
    """Squares of `size` x `size` pixels by number."""

    size: int

    def read(self, index: NDArray[np.int64]) -> Pixels:
        """Read pictures by number: uint8, shape (n, size, size, 3). Called from several threads at once."""
        ...


class DecodedPictures:
    """A source that decodes picture files each time.

    Parameters
    ----------
    files : sequence of Path
    size : int

    Raises
    ------
    ValueError
        If a file is empty, or a link to nothing.
    """

    def __init__(self, files: Sequence[Path], size: int) -> None:
        for path in files:  # a run must not find out when it comes to them
            if not path.is_file() or not path.stat().st_size:
                raise ValueError(f"{path} is not a readable picture: it is empty, or a link to nothing; remove it")
        self.files, self.size = list(files), size

    def read(self, index: NDArray[np.int64]) -> Pixels:
        """Read pictures by number; ValueError names one that cannot be decoded."""
        return np.stack([read_picture(self.files[i], self.size) for i in index])


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures of a source: the counterpart on disk of `image_data.Images`.

    Attributes
    ----------
    source : Source
    index : Tensor, int64, shape (n,)
        Their numbers in the source.
    labels : Tensor, int64, shape (n,)
    """

    source: Source
    index: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.labels)

    def subset(self, index: Tensor) -> "Pictures":
        """Those with the given positions."""
        return Pictures(self.source, self.index[index], self.labels[index])

    def inputs(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> "PictureInputs":
        """What a network takes."""
        return PictureInputs(self, mean, std, torch.device(device))


class PictureInputs:
    """Pictures that behave like a tensor of normalised images, shape (n, 3, side, side).

    The network sees the middle 7/8 of the stored square: 224 of 256 pixels. Only training with augmentation sees the
    rest.

    Parameters
    ----------
    pictures : Pictures
    mean, std : tuple of float
        As in `image_data.normalise`.
    device : torch.device
        Where batches go.
    """

    def __init__(
        self, pictures: Pictures, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
    ) -> None:
        self.pictures, self.mean, self.std, self.device = pictures, mean, std, device
        self.side = pictures.source.size * 7 // 8
        self.shape = torch.Size((len(pictures), 3, self.side, self.side))
        self.ndim = 4

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Read the middle of the pictures at these positions."""
        return centre(self.normalised(self.read(index)), self.side)

    def read(self, index: slice | Tensor) -> Tensor:
        """The stored squares at these positions, on the CPU: uint8, shape (n, size, size, 3)."""
        return torch.from_numpy(self.pictures.source.read(self.pictures.index[index].numpy()))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Stored squares as normalised images (n, 3, size, size) on the device."""
        pixels = pixels.to(self.device, non_blocking=True)
        return normalise(pixels.permute(0, 3, 1, 2), self.mean, self.std)

    def split(self, batch_size: int) -> "_Batches":
        """Consecutive batches, each read when it is taken."""
        return _Batches(self, range(0, len(self), batch_size), batch_size)


class _Batches(Sequence[Tensor]):
    """A sequence of batches that are read when taken; a slice of it reads nothing."""

    def __init__(self, inputs: PictureInputs, starts: range, batch_size: int) -> None:
        self.inputs, self.starts, self.batch_size = inputs, starts, batch_size

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "_Batches": ...
    def __getitem__(self, index: int | slice) -> "Tensor | _Batches":
        """One batch, or a shorter sequence."""
        if isinstance(index, slice):
            return _Batches(self.inputs, self.starts[index], self.batch_size)
        start = self.starts[index]
        return self.inputs[start : start + self.batch_size]


def centre(images: Tensor, side: int) -> Tensor:
    """The square in the middle of images (n, channels, height, width)."""
    top, left = ((length - side) // 2 for length in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]
