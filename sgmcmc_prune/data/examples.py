"""A user's own examples: tensors of any shape with their labels become a data set."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.data.image_data import Dataset, Images


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs that are given to the network as they are, and their labels.

    Attributes
    ----------
    values : Tensor, float32, shape (n, ...)
    labels : Tensor, int64, shape (n,)
    """

    values: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def subset(self, index: Tensor) -> "Examples":
        """Those with the given positions."""
        return Examples(self.values[index], self.labels[index])

    def inputs(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> Tensor:
        """The values; they are not normalised here."""
        return self.values.to(device)


def as_dataset(name: str, found: Any) -> Dataset:
    """What a loader returned, as a data set.

    Parameters
    ----------
    name : str
    found : Dataset, or ((inputs, labels), (inputs, labels))
        Training and test set, as tensors or arrays. Images of type uint8, (n, channels, height, width), are normalised
        by the mean and standard deviation of each channel of the training set; any other inputs are taken as they are.

    Raises
    ------
    ValueError
        If it is none of these, inputs are not finite, or labels are no integers from 0 on.
    """
    if isinstance(found, Dataset):
        return found
    try:
        (train, train_labels), (test, test_labels) = found
        parts = [torch.as_tensor(part) for part in (train, train_labels, test, test_labels)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"data {name!r} gave {type(found).__name__}; it must give a Dataset, or "
            "((inputs, labels), (inputs, labels)) of the training and the test set"
        ) from error
    for split, inputs, labels in (("training", parts[0], parts[1]), ("test", parts[2], parts[3])):
        if labels.dtype.is_floating_point or labels.dtype == torch.bool or labels.ndim != 1:
            raise ValueError(
                f"data {name!r}: {split} labels are {labels.dtype} of shape {tuple(labels.shape)}; give "
                "integers of shape (n,), the class of each example"
            )
        if inputs.is_complex() or inputs.ndim < 2:
            raise ValueError(
                f"data {name!r}: {split} inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; give real numbers "
                "of shape (n, ...)"
            )
        if len(inputs) != len(labels):
            raise ValueError(f"data {name!r}: there are {len(inputs)} {split} inputs and {len(labels)} labels")
        if bad := (~inputs.float().isfinite()).flatten(1).any(1).nonzero().flatten().tolist():
            raise ValueError(f"data {name!r}: {split} example {bad[0]} is not finite")
    inputs, labels, test, test_labels = (part.detach() for part in parts)
    if inputs.shape[1:] != test.shape[1:] or inputs.dtype != test.dtype:
        raise ValueError(
            f"data {name!r}: training examples are {inputs.dtype} of shape {tuple(inputs.shape[1:])}, test examples "
            f"{test.dtype} of shape {tuple(test.shape[1:])}; give both alike, scaled alike"
        )
    labels, test_labels = labels.long(), test_labels.long()
    classes = int(labels.max()) + 1 if len(labels) else 0
    if missing := sorted(set(range(classes)) - set(labels.tolist())):
        raise ValueError(f"data {name!r}: no training example has label {missing[0]}; give classes 0 to {classes - 1}")
    provenance = {"source": name, "licence": "", "official": False, "files": {"tensors": _digest(parts)}}
    if inputs.dtype == torch.uint8 and inputs.ndim == 4:
        pixels = inputs.double() / 255
        mean = tuple(pixels.mean((0, 2, 3)).tolist())
        std = tuple(pixels.std((0, 2, 3)).clamp(min=1e-6).tolist())
        train_set, test_set = Images(inputs, labels), Images(test, test_labels)
        return Dataset(name, train_set, test_set, classes, mean, std, provenance)
    train_part, test_part = Examples(inputs.float(), labels), Examples(test.float(), test_labels)
    return Dataset(name, train_part, test_part, classes, (0.0,), (1.0,), provenance)


def _digest(parts: list[Tensor]) -> str:
    """SHA-256 of all values: a run says which data it had."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
