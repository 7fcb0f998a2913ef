"""Minibatches as a pure function of the step."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sgmcmc_prune.data.seeding import seeded_generator

#: Changes the inputs of a step, such as `augmentation.Augmentation`: (inputs, step, place of the first in the batch).
Transform = Callable[[Tensor, int, int], Tensor]
#: All positions of a batch.
WHOLE = slice(None)


class Augmented(NamedTuple):
    """Training examples that a network sees augmented, never as they are.

    Attributes
    ----------
    inputs, targets : Tensor, shape (n, ...)
    augment : callable
        A stream's (seed, chain) to what it does to its minibatches.
    """

    inputs: Tensor
    targets: Tensor
    augment: Callable[[int, int], Transform]


#: What a network is trained on: inputs and targets, as they are or augmented.
TrainSet = tuple[Tensor, Tensor] | Augmented


def minibatches(train: TrainSet, batch_size: int, seed: int, chain: int) -> "MinibatchStream":
    """The minibatches of training examples (see `MinibatchStream`), augmented where these say so."""
    return MinibatchStream(train[0], train[1], batch_size, seed, chain, _transform(train, seed, chain))


def chosen(train: TrainSet, index: Tensor | slice, seed: int, chain: int, step: int) -> tuple[Tensor, Tensor]:
    """Some of the training examples, as a minibatch of a stream would show them.

    Parameters
    ----------
    train : TrainSet
    index : Tensor, shape (k,), or slice
        Places of the examples, on their device.
    seed, chain, step : int
        Of the augmentation.
    """
    inputs, targets, transform = train[0][index], train[1][index], _transform(train, seed, chain)
    return inputs if transform is None else transform(inputs, step, 0), targets


def _transform(train: TrainSet, seed: int, chain: int) -> Transform | None:
    return train.augment(seed, chain) if isinstance(train, Augmented) else None


class MinibatchStream:
    """Shuffled minibatches that depend on (seed, chain, step) alone.

    Epoch e has its own random permutation of the n examples, and batch t is positions [tB, (t+1)B) of all the
    permutations laid end to end. So every batch has exactly B examples, each example occurs once per epoch, and a
    resumed chain sees the batches it would have seen. A batch across the end of an epoch may hold an example twice.

    Parameters
    ----------
    inputs : Tensor, shape (n, ...)
        Images or features, as the model takes them.
    targets : Tensor, shape (n, ...)
        Labels or regression targets, on the device of `inputs`.
    batch_size : int
        B, 1 <= B <= n. With B = n every batch is the data themselves, in their own order and not copied.
    seed, chain : int
        Any integers; different ones shuffle independently.
    transform : callable, optional
        Takes the inputs of a part of a batch, its step and the part's first position; returns new inputs, each a
        function of its input, step and position alone.

    Raises
    ------
    ValueError
        If there are no examples, inputs and targets differ in number or device, one holds a number that is not finite,
        or `batch_size` is out of range.
    TypeError
        If `batch_size`, `seed` or `chain` is not an integer.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int,
        seed: int,
        chain: int,
        transform: Transform | None = None,
    ) -> None:
        if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(
                f"inputs have shape {tuple(inputs.shape)} and targets {tuple(targets.shape)}; "
                "give the same number of examples, at least one, in the first dimension"
            )
        if inputs.device != targets.device:
            raise ValueError(f"inputs are on {inputs.device} and targets on {targets.device}; use one device")
        for name, value in {"batch_size": batch_size, "seed": seed, "chain": chain}.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}; give an integer")
        if not 1 <= batch_size <= len(inputs):
            raise ValueError(f"batch_size is {batch_size}; choose 1 to {len(inputs)}, the number of examples")
        for name, values in {"inputs": inputs, "targets": targets}.items():
            if isinstance(values, Tensor):  # pictures on disk are bytes
                check_finite(name, values)
        self.inputs, self.targets = inputs, targets
        self.batch_size, self.seed, self.chain, self.transform = batch_size, seed, chain, transform
        self._permutations: dict[int, Tensor] = {}

    @property
    def num_data(self) -> int:
        """Number of examples, n."""
        return len(self.inputs)

    @property
    def steps_per_epoch(self) -> float:
        """Batches in one pass over the data, n / B: not an integer in general."""
        return self.num_data / self.batch_size

    def batch(self, step: int, part: slice = WHOLE) -> tuple[Tensor, Tensor]:
        """Give batch number `step`, counted from 0.

        Parameters
        ----------
        step : int
        part : slice
            The positions that are wanted, when processes share the batch.

        Returns
        -------
        inputs, targets : Tensor, shape (B, ...)
            On the data's device. Not to be changed in place: a full batch is the data themselves.

        Raises
        ------
        ValueError
            If `step` is negative.
        """
        if step < 0:
            raise ValueError(f"step is {step}; steps are counted from 0")
        inputs, targets = self._batch(step, part)
        return (inputs if self.transform is None else self.transform(inputs, step, part.start or 0)), targets

    def _batch(self, step: int, part: slice) -> tuple[Tensor, Tensor]:
        if self.batch_size == self.num_data:
            return (self.inputs, self.targets) if part == WHOLE else (self.inputs[part], self.targets[part])
        epoch, start = divmod(step * self.batch_size, self.num_data)
        index = self._permutation(epoch)[start : start + self.batch_size]
        if len(index) < self.batch_size:
            rest = self._permutation(epoch + 1)[: self.batch_size - len(index)]
            index = torch.cat([index, rest])
        return self.inputs[index[part]], self.targets[index[part]]

    def _permutation(self, epoch: int) -> Tensor:
        """The order of one epoch, on the data's device; at most two are kept, for a batch spans at most two."""
        if epoch not in self._permutations:
            generator = seeded_generator("batches", self.seed, self.chain, epoch)
            order = torch.randperm(self.num_data, generator=generator).to(self.inputs.device)
            last = dict(list(self._permutations.items())[-1:])
            self._permutations = last | {epoch: order}
        return self._permutations[epoch]


def check_finite(name: str, values: Tensor) -> None:
    """ValueError that names the first example with a number that is not finite."""
    if bool(values.sum(dtype=torch.float64 if values.dtype.is_floating_point else None).isfinite()):
        return  # one pass, without a mask as large as the data
    rows = (~values.isfinite()).reshape(len(values), -1).any(1).nonzero().flatten()
    if len(rows):
        raise ValueError(f"{name} of example {int(rows[0])} hold a number that is not finite")
