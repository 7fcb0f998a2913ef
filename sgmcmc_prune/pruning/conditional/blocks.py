"""How the weights of a layer fall into blocks, and the precision of each block, made a few blocks at a time.

A block is a row of a layer with its bias, (w_o, b_o), of d = inputs + 1; or, where a size is given, so many
consecutive weights of the flattened tensor. A bias moves with its row, and is never removed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sgmcmc_prune.models.layers import Layer

#: Numbers of float64 in the precisions that are in memory together: a few megabytes stay in the processor's cache.
AT_ONCE = 2**21


@dataclass(frozen=True)
class Layout:
    """The blocks of one layer; `size` None is one block for each row, with the bias if there is one.

    Attributes
    ----------
    layer : Layer
    size : int or None
    """

    layer: Layer
    size: int | None = None

    def split(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, d) from a weight-shaped tensor and one shaped like the bias; what is padded is zero."""
        rows = weight.flatten(1)
        if self.size is None:
            return rows if bias is None else torch.cat([rows, bias[:, None]], 1)
        return F.pad(rows.flatten(), (0, -rows.numel() % self.size)).view(-1, self.size)

    def kept(self, mask: Tensor, bias: bool) -> Tensor:
        """(B, d) from a weight's mask; biases as is said, and nothing of what is padded."""
        return self.split(mask, None if self.layer.bias is None else torch.full_like(mask.flatten(1)[:, 0], bias))

    def examples(self, gradients: Tensor) -> Tensor:
        """(n, B, d) from the gradients (n, outputs, inputs or inputs + 1) of n examples."""
        if self.size is None:
            return gradients
        flat = gradients[:, :, : self.layer.module.weight[0].numel()].flatten(1)
        return F.pad(flat, (0, -flat.shape[1] % self.size)).view(len(flat), -1, self.size)

    def join(self, blocks: Tensor) -> dict[str, Tensor]:
        """The parameters again, by name, from (B, d)."""
        weight = self.layer.module.weight
        if self.size is not None:
            return {self.layer.weight: blocks.flatten()[: weight.numel()].view(weight.shape)}
        found = {self.layer.weight: blocks[:, : weight[0].numel()].reshape(weight.shape)}
        return found | ({self.layer.bias: blocks[:, -1]} if self.layer.bias else {})


@dataclass(frozen=True)
class Blocks:
    """The curvature of a layer in blocks: H_b = scale_b * matrix_b, or one matrix for all.

    Attributes
    ----------
    layout : Layout
    matrix : Tensor, shape (B, d, d) or (1, d, d), float64
        Of the summed negative log-likelihood of all training examples.
    scale : Tensor, shape (B,), float64
    """

    layout: Layout
    matrix: Tensor
    scale: Tensor

    def precision(self, prior: Tensor, chosen: slice) -> Tensor:
        """P = H + diag(prior) of some blocks, with a prior of (B, d)."""
        matrix = self.matrix if len(self.matrix) == 1 else self.matrix[chosen]
        return self.scale[chosen, None, None] * matrix + torch.diag_embed(prior[chosen])

    def slices(self) -> Iterator[slice]:
        """Blocks that are worked on together."""
        step = max(1, AT_ONCE // self.matrix.shape[1] ** 2)
        yield from (slice(start, start + step) for start in range(0, len(self.scale), step))
