"""Labelled images in memory: what a data set is, how it is normalised and how a validation split is held out."""

from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from sgmcmc_prune.data.seeding import seeded_generator


class LabelledImages(Protocol):
    """What a split must offer: `Images` in memory do, and `pictures.Pictures` on disk."""

    @property
    def labels(self) -> Tensor:
        """Classes, int64, shape (n,); or targets that are numbers, float32, (n,) or (n, k)."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def subset(self, index: Tensor) -> Self:
        """Those with the given positions."""
        ...

    def inputs(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> Any:
        """What a network takes: a tensor (n, channels, height, width), or what is indexed and split like one."""
        ...


#: No normalised pixel is as large.
PIXELS = 30.0
Split = TypeVar("Split", bound=LabelledImages)


@dataclass(frozen=True, eq=False)
class Images:
    """Images and their labels, in memory.

    Attributes
    ----------
    images : Tensor, uint8, shape (n, channels, height, width)
    labels : Tensor, int64, shape (n,)

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape differs from the above.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Check dtypes and shapes."""
        if self.images.dtype != torch.uint8 or self.labels.dtype != torch.int64:
            raise TypeError(f"images are {self.images.dtype} and labels {self.labels.dtype}; give uint8 and int64")
        if self.images.ndim != 4 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"images have shape {tuple(self.images.shape)} and labels {tuple(self.labels.shape)}; "
                "give (n, channels, height, width) and (n,)"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def subset(self, index: Tensor) -> "Images":
        """Those with the given positions."""
        return Images(self.images[index], self.labels[index])

    def inputs(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> Tensor:
        """Normalised images on a device, as `normalise` gives them."""
        return normalise(self.images, mean, std).to(device)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set of images.

    Attributes
    ----------
    name : str
    train, test : Images, or Pictures
    num_classes : int
        Labels are 0..num_classes-1; 0 where targets are numbers.
    mean, std : tuple of float, one per channel
        Of the pixels divided by 255, for `normalise`.
    provenance : dict
        What JSON can hold: `source`, `licence`, `official` (whether these are the official training and test sets),
        `files` (name -> sha256 of the uncompressed file).
    centre, unit : float
        Targets that are numbers have had this subtracted, and were divided by that. They are 0 and 1 of several
        targets, which are standardised one by one: by `centres` and `units`.
    input_centre, input_scale : tuple of float, one for each feature, or empty
        The same of features, where a table was standardised.
    centres, units : tuple of float, one for each target, or empty
        As `centre` and `unit`, of several targets.
    classes : tuple of str
        Names in the order of the labels, or empty where they are not known.
    columns, target_names : tuple of str
        Names of the features and of the targets, in their order; empty where they are not known.
    positions : Tensor, int64, shape (n,), optional
        Of the training examples in the set that they were taken from; by default they are the whole of it, in order.

    Raises
    ------
    ValueError
        If a set is empty, there is but one class, a label is not below `num_classes`, or names or positions do not fit.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: dict[str, Any]
    centre: float = 0.0
    unit: float = 1.0
    input_centre: tuple[float, ...] = ()
    input_scale: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    positions: Tensor | None = None
    centres: tuple[float, ...] = ()
    units: tuple[float, ...] = ()
    columns: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()

    @property
    def origin(self) -> dict[str, Any]:
        """What a table of results says of the data: the name, and whether these are the official files."""
        return {"name": self.name, "official": self.provenance["official"]}

    @property
    def digest(self) -> str | None:
        """SHA-256 of all examples, of a set made of tensors; None where it is not known."""
        found: str | None = self.provenance.get("files", {}).get("tensors")
        return found

    def as_inputs(self, values: Any) -> Tensor:
        """Examples in the units of the user's data as the network takes them.

        Parameters
        ----------
        values : Tensor or array, shape (n, ...)
            Features in the units of the file, images of type uint8 where the training set has such (or normalised as
            those are), and anything else as it was given.

        Raises
        ------
        ValueError
            If examples have another shape than those of the training set, are not finite, or look like raw pixels.
        """
        x = torch.as_tensor(values)
        own = self.train.subset(torch.zeros(1, dtype=torch.long)).inputs(self.mean, self.std, "cpu")[:]
        if x.ndim < 2 or x.shape[1:] != own.shape[1:] or not len(x):
            raise ValueError(
                f"inputs have shape {tuple(x.shape)}; give (n, {', '.join(map(str, own.shape[1:]))}), as the network "
                "was sampled on"
            )
        images = self.std != (1.0,)  # their pixels were normalised
        if x.dtype == torch.uint8 and images:
            return normalise(x, self.mean, self.std)
        if not own.is_floating_point():
            if x.is_floating_point() or x.is_complex():
                raise ValueError(f"inputs are {x.dtype}; the network was sampled on integers")
            return x.long()
        x = x.float()
        if not bool(x.isfinite().all()):
            raise ValueError("inputs hold a number that is not finite")
        if images and float(x.abs().max()) > PIXELS:
            raise ValueError("inputs look like raw pixels in floating point; give images of type uint8")
        if self.input_centre:
            x = (x - torch.tensor(self.input_centre)) / torch.tensor(self.input_scale)
        return x

    @property
    def target_width(self) -> int:
        """Numbers that describe a target: the classes of a label, or its k components."""
        return self.num_classes or self.train.labels[:1].unsqueeze(-1).flatten(1).shape[1]

    def __post_init__(self) -> None:
        """Check the sizes and the labels."""
        numbers = self.num_classes == 0 and self.train.labels.is_floating_point()
        if not len(self.train) or not len(self.test) or (self.num_classes < 2 and not numbers):
            raise ValueError(
                f"{self.name}: {len(self.train)} training and {len(self.test)} test images of "
                f"{self.num_classes} classes; it takes at least one image in each set, and two classes"
            )
        labels = torch.cat([self.train.labels, self.test.labels])
        if not numbers and labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < self.num_classes):
            raise ValueError(
                f"{self.name}: labels run from {int(labels.min())} to {int(labels.max())}, "
                f"expected 0 to {self.num_classes - 1}"
            )
        if self.classes and not len(self.classes) == len(set(self.classes)) == self.num_classes:
            raise ValueError(
                f"{self.name}: {len(self.classes)} names of classes ({len(set(self.classes))} different ones) for "
                f"{self.num_classes} classes; give one name for each"
            )
        if self.positions is not None and len(self.positions) != len(self.train):
            raise ValueError(f"{self.name}: {len(self.positions)} positions of {len(self.train)} training examples")


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Scale pixels to mean zero and unit variance: (x / 255 - mean) / std, per channel.

    Parameters
    ----------
    images : Tensor, uint8, shape (n, channels, height, width)
    mean, std : tuple of float, one per channel
        In units of the full pixel range (0 to 1).

    Returns
    -------
    Tensor, float32, shaped like `images` and on its device

    Raises
    ------
    TypeError
        If `images` is not uint8 (it may have been normalised already).
    ValueError
        If `mean` or `std` does not have one value per channel, or a standard deviation is not positive.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"normalise takes uint8 images (0 to 255), not {images.dtype}")
    channels = images.shape[1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(f"mean is {mean} and std {std}; give one value per channel ({channels}), std positive")
    centre = torch.tensor(mean, device=images.device).view(-1, 1, 1)
    scale = torch.tensor(std, device=images.device).view(-1, 1, 1)
    return images.float().div_(255).sub_(centre).div_(scale)


def hold_out(images: Split, size: int, seed: int) -> tuple[Split, Split]:
    """Split a random validation set off; the same arguments give the same split.

    Parameters
    ----------
    images : Images, or Pictures
        The n training images.
    size : int
        Number of validation images, 0 <= size < n.
    seed : int
        Any integer.

    Returns
    -------
    train, validation : like `images`
        Of n - size and `size` images, each in the original order.

    Raises
    ------
    ValueError
        If `size` is out of range.
    """
    if not 0 <= size < len(images):
        raise ValueError(
            f"validation size is {size}; choose 0 to {len(images) - 1}, for there are {len(images)} images"
        )
    held = held_out(len(images), size, seed)
    return images.subset((~held).nonzero().flatten()), images.subset(held.nonzero().flatten())


def held_out(count: int, size: int, seed: int) -> Tensor:
    """Which of `count` images `hold_out` takes for validation: bool, shape (count,)."""
    order = torch.randperm(count, generator=seeded_generator("hold_out", seed))
    return torch.zeros(count, dtype=torch.bool).index_fill_(0, order[:size], True)
