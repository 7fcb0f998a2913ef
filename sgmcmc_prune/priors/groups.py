"""Which weights share one indicator: weight, kernel, filter, node, input feature, head, or a user's index map."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

#: For each kind, the dimensions of a weight (out, in, ...) with so many dimensions that a group spans.
_SPANNED: dict[str, Callable[[int], tuple[int, ...]]] = {
    "weight": lambda dims: (),
    "kernel": lambda dims: tuple(range(2, dims)),
    "filter": lambda dims: tuple(range(1, dims)),
    "node": lambda dims: tuple(range(1, dims)),
    "input": lambda dims: (0, *range(2, dims)),
}
GROUP_KINDS = tuple(_SPANNED)


class GroupMap:
    """A partition of one weight tensor into groups.

    Parameters
    ----------
    kind : {"weight", "kernel", "filter", "node", "input"}
        `kernel` is one spatial kernel per (output, input) pair, `filter` and `node` all weights into one output,
        `input` all weights out of one input feature or channel. For a linear layer `kernel` means `weight`.
    shape : tuple of int
        Shape of the weight: (out, in) of a linear layer, (out, in, height, width) of a convolution, or another with
        two dimensions or more.

    Attributes
    ----------
    num_groups : int
        G.
    group_size : Tensor, shape (G,)
        Number of weights in each group.
    """

    def __init__(self, kind: str, shape: tuple[int, ...]) -> None:
        if kind not in _SPANNED:
            raise ValueError(f"group is {kind!r}; choose one of {', '.join(GROUP_KINDS)}, or GroupMap.from_index")
        if len(shape) < 2:
            raise ValueError(f"group {kind!r} needs a weight with 2 dimensions or more, not shape {tuple(shape)}")
        self.kind = kind
        self.shape = tuple(shape)
        self._index: Tensor | None = None
        self._sizes: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._spanned = _SPANNED[kind](len(shape))
        self._kept_shape = tuple(1 if d in self._spanned else n for d, n in enumerate(shape))
        self.num_groups = int(torch.Size(self._kept_shape).numel())
        self._each = torch.Size(self.shape).numel() / max(self.num_groups, 1)
        self.group_size = torch.full((self.num_groups,), self._each)

    @classmethod
    def from_index(cls, index: Tensor) -> "GroupMap":
        """Groups from an integer tensor shaped like the weight; the values 0..G-1 all occur."""
        if index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool:
            raise TypeError(f"a group index map must hold integers, not {index.dtype}")
        sizes = torch.bincount(index.flatten()) if index.numel() and int(index.min()) >= 0 else torch.zeros(1)
        if int(sizes.min()) == 0:
            raise ValueError("a group index map must use every value 0..G-1 at least once")
        self = cls.__new__(cls)
        self.kind, self.shape, self._index = "index", tuple(index.shape), index.flatten().long()
        self.num_groups, self.group_size = len(sizes), sizes.float()
        self._sizes = {}
        return self

    @classmethod
    def heads(cls, shape: tuple[int, ...], count: int) -> "GroupMap":
        """The weights of a projection, of shape (out, in), that read each of so many heads: neighbouring columns."""
        if len(shape) != 2 or count < 1 or shape[1] % count:
            raise ValueError(f"a projection of shape {tuple(shape)} does not read {count} heads")
        columns = torch.arange(shape[1]) // (shape[1] // count)
        return cls.from_index(columns.expand(shape))

    def sizes(self, like: Tensor) -> Tensor:
        """`group_size` with the type and on the device of another tensor; once it was there, nothing is copied."""
        if self._index is None:  # all alike
            return like.new_full((1,), self._each).expand(self.num_groups)
        key = (like.dtype, like.device)
        if key not in self._sizes:
            self._sizes[key] = self.group_size.to(like)
        return self._sizes[key]

    def cut(self, positions: Tensor) -> tuple["GroupMap", Tensor]:
        """The groups of a part of the weight: rows, columns or both.

        Parameters
        ----------
        positions : int Tensor, shaped like the part
            Where each of its weights is in the whole, counted along it.

        Returns
        -------
        GroupMap
            Its `group_size` is that of the whole groups: what is not in the part still belongs to them.
        Tensor, shape (groups of the part,)
            The numbers that these groups have in the whole.
        """
        numbers = self.expand(torch.arange(self.num_groups, device=positions.device)).reshape(-1)[positions]
        found, index = numbers.unique(return_inverse=True)
        part = GroupMap.from_index(index) if self._index is not None else GroupMap(self.kind, tuple(positions.shape))
        part.group_size = self.group_size[found.to(self.group_size.device)]
        if self._index is None:
            part._each = self._each
        return part, found

    def labels(self) -> list[str]:
        """The place of each group: "[output, input]" of a weight, "[output]" of a node, "[g]" of an index map."""
        shape = (self.num_groups,) if self._index is not None else self._kept_shape
        kept = [d for d in range(len(shape)) if self._index is not None or d not in self._spanned]
        return [str([place[d] for d in kept]) for place in product(*map(range, shape))]

    def sum(self, values: Tensor) -> Tensor:
        """Sum a weight-shaped tensor over each group, giving shape (G,)."""
        if self._index is not None:
            zeros = torch.zeros(self.num_groups, dtype=values.dtype, device=values.device)
            return zeros.index_add_(0, self._index_on(values.device), values.flatten())
        if not self._spanned:
            return values.flatten()
        return values.sum(dim=self._spanned).flatten()

    def expand(self, values: Tensor) -> Tensor:
        """Give each weight its group's value: shape (G,) to the weight's shape (a view where possible)."""
        if self._index is not None:
            return values[self._index_on(values.device)].view(self.shape)
        return values.view(self._kept_shape).expand(self.shape)

    def _index_on(self, device: torch.device) -> Tensor:
        """The index map, on a device once it was asked for there."""
        assert self._index is not None
        if self._index.device != device:
            self._index = self._index.to(device)
        return self._index
