"""The layers of a network as slices of one flat vector: what shares a scale, an inclusion rate and a row.

A layer is a module with parameters of its own: weight and bias together (and the weight and bias of a normalisation).
Row i of a layer is entry i of the first dimension of each of them: everything that flows into output unit i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One layer: the shapes of its parameters by full name, and its place [start, stop) in the flat vector."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    start: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def slice(self) -> slice:
        """Its place in the flat vector."""
        return slice(self.start, self.start + self.size)

    @property
    def rows(self) -> int:
        """Number of output units."""
        return next(iter(self.shapes.values()))[0]

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut the layer's part of a vector, shape (size,), into its parameters."""
        parts = flat.split([math.prod(shape) for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def matrix(self, flat: Tensor) -> Tensor:
        """The layer's part of a vector as (rows, fan-in), the bias as the last column."""
        return torch.cat([part.reshape(self.rows, -1) for part in self.split(flat).values()], 1)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """Undo `matrix`: from (rows, fan-in) to (size,)."""
        widths = [math.prod(shape[1:]) for shape in self.shapes.values()]
        return torch.cat([part.flatten() for part in matrix.split(widths, 1)])

    def expand(self, scale: Tensor) -> Tensor:
        """Give each weight its scale: from shape (1,) or (rows,) to (size,)."""
        if len(scale) == 1:
            return scale.expand(self.size)
        return torch.cat([scale.repeat_interleave(math.prod(shape[1:])) for shape in self.shapes.values()])


def layers_of(model: nn.Module) -> list[Layer]:
    """List the layers of a model in the order of registration; the last one is the output layer.

    Frozen parameters are in no layer: they stay as they are.

    Raises
    ------
    ValueError
        If the model has no parameters, or two parameters of one module differ in their first dimension.
    """
    layers: list[Layer] = []
    for prefix, module in model.named_modules():
        own = [(n, p) for n, p in module.named_parameters(recurse=False) if p.requires_grad]
        shapes = {f"{prefix}.{n}".lstrip("."): tuple(p.shape) for n, p in own}
        if not shapes:
            continue
        if len({shape[:1] for shape in shapes.values()}) != 1 or () in shapes.values():
            raise ValueError(f"layer {prefix!r} has parameters of shapes {shapes}; they must share the first dimension")
        layers.append(Layer(prefix or "(top)", shapes, layers[-1].slice.stop if layers else 0))
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no parameters that are trained; there is nothing to infer or to prune"
        )
    return layers


def unflatten(layers: Sequence[Layer], flat: Tensor) -> dict[str, Tensor]:
    """Cut a vector over all weights into named parameters (views)."""
    return {name: part for layer in layers for name, part in layer.split(flat[layer.slice]).items()}


def pruned_fraction(layers: Sequence[Layer], kept: Tensor) -> float:
    """Fraction of pruned entries as Markovic et al. count it.

    Biases count. The output layer itself is not pruned: of it, the weights count that leave a unit without any kept
    entry, and its bias is left out.

    Parameters
    ----------
    layers : sequence of Layer
    kept : bool Tensor, shape (size of all layers,)
    """
    *hidden, last = layers
    masked = sum(int((~kept[layer.slice]).sum()) for layer in hidden)
    total = sum(layer.size for layer in hidden)
    out, fan_in = last.rows, math.prod(next(iter(last.shapes.values()))[1:])
    if hidden and hidden[-1].rows == fan_in:
        masked += out * int((~hidden[-1].matrix(kept[hidden[-1].slice]).any(1)).sum())
    return masked / (total + out * fan_in)
