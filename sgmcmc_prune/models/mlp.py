"""A multilayer perceptron."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

_ACTIVATIONS = {"relu": F.relu, "tanh": F.tanh, "silu": F.silu}


class MLP(nn.Module):
    """Linear layers with biases and one activation between them; the input is flattened.

    By default 784-400-400-10 on 28x28 images in ten classes: 478,410 parameters.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one example.
    num_classes : int
        Number of outputs.
    widths : sequence of int
        Hidden units per layer; may be empty.
    activation : {"relu", "tanh", "silu"}
    bias : bool

    Raises
    ------
    ValueError
        If a width is not positive or the activation is unknown.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        widths: Sequence[int] | int = (400, 400),
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}; choose one of {', '.join(_ACTIVATIONS)}")
        widths = (widths,) if isinstance(widths, int) else widths
        if any(width < 1 for width in widths):
            raise ValueError(f"widths are {tuple(widths)}; each must be at least 1")
        sizes = [math.prod(input_shape), *widths, num_classes]
        self.layers = nn.ModuleList(nn.Linear(i, o, bias) for i, o in itertools.pairwise(sizes))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map examples (n, ...) to outputs (n, classes)."""
        *hidden, last = self.layers
        x = x.flatten(1)
        for layer in hidden:
            x = _ACTIVATIONS[self.activation](layer(x))
        return last(x)
