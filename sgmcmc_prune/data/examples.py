"""A user's own examples: tensors of any shape with their targets become a data set."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune.data.image_data import Dataset, Images, normalise


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs that are given to the network as they are, and their targets.

    Attributes
    ----------
    values : Tensor, float32 or int64, shape (n, ...)
    labels : Tensor, int64 class labels (n,), or float32 numbers (n,) or (n, k)
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


def as_dataset(
    name: str,
    found: Any,
    targets: str = "labels",
    centre: float = 0.0,
    unit: float = 1.0,
    features: tuple[tuple[float, ...], tuple[float, ...]] = ((), ()),
    options: dict[str, Any] | None = None,
) -> Dataset:
    """What a loader returned, as a data set.

    Parameters
    ----------
    name : str
    found : Dataset, or ((inputs, targets), (inputs, targets))
        Training and test set, as tensors or arrays. Images of type uint8, (n, channels, height, width), are normalised
        by the mean and standard deviation of each channel of the training set; any other inputs are taken as they are,
        numbers as float32, integers (such as the tokens that an embedding takes) as int64.
    targets : {"labels", "numbers", "standardised", "any"}
        What the likelihood takes: class labels, integers (n,) from 0 on; numbers (n,) or (n, k); or either.
    centre, unit : float
        How targets that are numbers were standardised.
    features : pair of tuple of float
        Centre and scale by which features were standardised, if they were.
    options : dict, optional
        What the loader was asked, for the record.

    Raises
    ------
    ValueError
        If it is none of these, something is not finite, or targets are not what the likelihood takes.
    """
    if isinstance(found, Dataset):
        if targets not in ("labels", "any") and found.num_classes:
            raise ValueError(f"data set {name!r} has class labels, and the likelihood takes numbers; use categorical")
        return found
    parts = _tensors(name, found)
    numbers = targets in ("numbers", "standardised") or (targets == "any" and not is_labels(parts[1]))
    _check_parts(name, parts, numbers)
    inputs, labels, test, test_labels = (part.detach() for part in parts)
    labels, test_labels = (part.float() if numbers else part.long() for part in (labels, test_labels))
    classes = 0 if numbers else _num_classes(name, labels)
    provenance = {
        **{"source": name, "licence": "", "official": False, "files": {"tensors": _digest(parts)}},
        **({"centre": centre, "unit": unit} if numbers else {}),
        **(options or {}),
    }
    mean, std = (0.0,), (1.0,)
    if inputs.dtype == torch.uint8 and inputs.ndim == 4:
        pixels = inputs.double() / 255
        mean = tuple(pixels.mean((0, 2, 3)).tolist())
        std = tuple(pixels.std((0, 2, 3)).clamp(min=1e-6).tolist())
        if not numbers:
            return Dataset(name, Images(inputs, labels), Images(test, test_labels), classes, mean, std, provenance)
        inputs, test = normalise(inputs, mean, std), normalise(test, mean, std)
    train_set, test_set = Examples(as_values(inputs), labels), Examples(as_values(test), test_labels)
    return Dataset(name, train_set, test_set, classes, mean, std, provenance, centre, unit, *features)


def _tensors(name: str, found: Any) -> list[Tensor]:
    """Inputs and targets of the training set, then of the test set; ValueError if a loader gave something else."""
    try:
        (train, train_labels), (test, test_labels) = found
        return [torch.as_tensor(part) for part in (train, train_labels, test, test_labels)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"data {name!r} gave {type(found).__name__}; it must give a Dataset, or "
            "((inputs, labels), (inputs, labels)) of the training and the test set"
        ) from error


def _num_classes(name: str, labels: Tensor) -> int:
    """The number of classes; ValueError if the training set lacks one."""
    classes = int(labels.max()) + 1 if len(labels) else 0
    if missing := sorted(set(range(classes)) - set(labels.tolist())):
        many = (
            " (are these numbers? then a likelihood such as gaussian takes them)" if classes > len(labels) / 4 else ""
        )
        raise ValueError(
            f"data {name!r}: no training example has label {missing[0]}; give classes 0 to {classes - 1}{many}"
        )
    return classes


def _check_parts(name: str, parts: list[Tensor], numbers: bool) -> None:
    """ValueError for inputs and targets, of the training and then of the test set, that are no examples, or unlike."""
    for split, inputs, labels in (("training", parts[0], parts[1]), ("test", parts[2], parts[3])):
        if not numbers and (labels.dtype.is_floating_point or labels.dtype == torch.bool or labels.ndim != 1):
            raise ValueError(
                f"data {name!r}: {split} labels are {labels.dtype} of shape {tuple(labels.shape)}; give "
                "integers of shape (n,), the class of each example (or, for numbers, a likelihood such as gaussian)"
            )
        if numbers and (labels.is_complex() or labels.ndim not in (1, 2)):
            raise ValueError(
                f"data {name!r}: {split} targets are {labels.dtype} of shape {tuple(labels.shape)}; give numbers of "
                "shape (n,) or (n, k)"
            )
        if inputs.is_complex() or inputs.ndim < 2:
            raise ValueError(
                f"data {name!r}: {split} inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; give real numbers "
                "of shape (n, ...)"
            )
        if len(inputs) != len(labels):
            raise ValueError(f"data {name!r}: there are {len(inputs)} {split} inputs and {len(labels)} labels")
        require_finite(f"data {name!r}: {split}", inputs, labels)
    inputs, labels, test, test_labels = parts
    if inputs.shape[1:] != test.shape[1:] or inputs.dtype != test.dtype or labels.shape[1:] != test_labels.shape[1:]:
        raise ValueError(
            f"data {name!r}: training examples are {inputs.dtype} of shape {tuple(inputs.shape[1:])}, test examples "
            f"{test.dtype} of shape {tuple(test.shape[1:])}; give both alike, scaled alike"
        )


def require_finite(which: str, inputs: Tensor, targets: Tensor) -> None:
    """ValueError that names the first example, and its column, where an input or a target is not finite."""
    for what, values in (("input", inputs), ("target", targets)):
        numbers = values if values.is_complex() else values.float()  # which is what a network gets
        if len(bad := (~numbers.isfinite()).nonzero()):
            where = f", column {', '.join(map(str, bad[0][1:].tolist()))}" if values.ndim > 1 else ""
            raise ValueError(f"{which} {what} of example {int(bad[0][0])}{where} is not finite")


def is_labels(targets: Tensor) -> bool:
    """Whether targets can be class labels: integers, one for each example."""
    return targets.ndim == 1 and not (
        targets.dtype.is_floating_point or targets.dtype.is_complex or targets.dtype == torch.bool
    )


def as_values(inputs: Tensor) -> Tensor:
    """Inputs as a network takes them: int64 where they are integers, as tokens are, and otherwise float32."""
    integers = inputs.dtype in (torch.int16, torch.int32, torch.int64)
    return inputs.long() if integers else inputs.float()


def _digest(parts: list[Tensor]) -> str:
    """SHA-256 of all values: a run says which data it had."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
