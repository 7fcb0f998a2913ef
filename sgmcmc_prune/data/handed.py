"""A user's own data as it comes, a pair of tensors, a Dataset or a DataLoader, as two tensors of all its examples.

A posterior needs every example, once, and their number N. A loader that cannot promise that is refused in words.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

#: Examples that are collated at once.
CHUNK = 256
#: Examples that are asked for twice: a data set that changes them is no data.
ASKED_TWICE = 32


def as_tensors(data: Any, what: str = "data") -> tuple[Tensor, Tensor, int | None]:
    """All examples of a pair of tensors (or arrays), a Dataset or a DataLoader.

    Parameters
    ----------
    data : pair, Dataset or DataLoader
    what : str
        For errors.

    Returns
    -------
    inputs : Tensor, shape (N, ...)
    targets : Tensor, shape (N, ...)
    batch_size : int or None
        The loader's.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it has no length, may give an example twice or not at all, or gives other values when it is asked again.
    """
    if isinstance(data, DataLoader):
        _check_loader(data, what)
        collate = data.collate_fn or default_collate
        inputs, targets = _all_examples(data.dataset, what, collate)
        size = data.batch_size
        if data.drop_last and size and len(inputs) % size:
            warnings.warn(
                f"{what}: the DataLoader drops the last {len(inputs) % size} of {len(inputs)} examples of each pass "
                f"(drop_last); here all {len(inputs)} count, as the likelihood must",
                stacklevel=3,
            )
        return inputs, targets, size
    if isinstance(data, Dataset):
        return *_all_examples(data, what, default_collate), None
    if isinstance(data, tuple | list) and len(data) == 2:
        _refuse_text(data[1], what)
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(p, Tensor | np.ndarray) for p in data):
        inputs, targets = (torch.as_tensor(part).detach() for part in data)
        if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
            raise ValueError(
                f"{what}: inputs have shape {tuple(inputs.shape)} and targets {tuple(targets.shape)}; give one target "
                "for each example"
            )
        return inputs, targets, None
    raise TypeError(
        f"{what} is a {type(data).__name__}; give a pair (inputs, targets) of tensors, a torch Dataset or a DataLoader"
    )


def class_names(data: Any, count: int) -> tuple[str, ...]:
    """The names of `count` classes, where a Dataset (or that of a DataLoader or a Subset) knows them as `classes`.

    Parameters
    ----------
    data : Any
        As for `as_tensors`.
    count : int
        Labels are 0, ..., count - 1: the first names are theirs.

    Returns
    -------
    tuple of str
        Empty where `classes` is missing, or holds no names.

    Raises
    ------
    ValueError
        If there are fewer names than classes, or two of them are the same.
    """
    while not hasattr(data, "classes") and hasattr(data, "dataset"):
        data = data.dataset
    names = getattr(data, "classes", ())
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return ()
    if names and count and len(set(names[:count])) < count:
        raise ValueError(f"classes has {len(names)} names, {', '.join(names)}, for {count} labels; give each its own")
    return tuple(names[:count])


def _check_loader(loader: "DataLoader[Any]", what: str) -> None:
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        raise ValueError(
            f"{what}: the DataLoader's data set has no length, and the posterior needs N, the number of its examples; "
            "give a data set with __len__ and __getitem__, or the tensors"
        )
    if type(loader.batch_sampler) not in (BatchSampler, type(None)):
        raise ValueError(f"{what}: the DataLoader has a batch sampler of its own; give the data set, or leave it out")
    sampler: Any = loader.sampler
    size = len(loader.dataset)
    if getattr(sampler, "replacement", False):
        raise ValueError(
            f"{what}: the DataLoader draws with replacement, so that an example may count twice or not at all; leave "
            "out its sampler (minibatches are shuffled here)"
        )
    ordinary = isinstance(sampler, RandomSampler | SequentialSampler)
    if hasattr(sampler, "__len__") and (len(sampler) != size or not ordinary):
        drawn = len(sampler)
        raise ValueError(
            f"{what}: the DataLoader's sampler {type(sampler).__name__} draws {drawn} of {size} examples; say which "
            "with torch.utils.data.Subset, and leave out the sampler"
        )


def _all_examples(dataset: Any, what: str, collate: Any) -> tuple[Tensor, Tensor]:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError(f"{what}: the data set has no length, and the posterior needs N, the number of its examples")
    if not len(dataset):
        raise ValueError(f"{what}: the data set is empty")
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2 and collate is default_collate:
        inputs, targets = dataset.tensors
        return inputs.detach(), targets.detach()
    some = range(min(ASKED_TWICE, len(dataset)))
    first, again = (_pair(collate([dataset[i] for i in some]), what) for _ in range(2))
    if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
        raise ValueError(
            f"{what}: the data set gives other examples when it is asked again (augmentation?); a likelihood needs "
            "fixed examples: take the random transforms out"
        )
    chunks = [range(start, min(start + CHUNK, len(dataset))) for start in range(0, len(dataset), CHUNK)]
    parts = [_pair(collate([dataset[i] for i in chunk]), what) for chunk in chunks]
    inputs, targets = (torch.cat(each) for each in zip(*parts, strict=True))
    return inputs, targets


def _refuse_text(targets: Any, what: str) -> None:
    """A name of a class in place of its label."""
    if isinstance(targets, np.ndarray | list | tuple) and len(targets) and isinstance(targets[0], str):
        raise ValueError(
            f"{what}: targets are text, such as {str(targets[0])!r}; give labels 0, 1, ..., and their names as the "
            "`classes` of a Dataset"
        )


def _pair(batch: Any, what: str) -> tuple[Tensor, Tensor]:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        _refuse_text(batch[1], what)
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(p, Tensor) for p in batch)):
        found = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise ValueError(f"{what}: an example gives {found}; it must be (input, target), which collate to two tensors")
    return batch[0].detach(), batch[1].detach()
