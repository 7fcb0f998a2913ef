"""One linear layer: the model whose posterior is known exactly."""

import math

from torch import Tensor, nn


class LinearModel(nn.Module):
    """Linear regression, or softmax regression, on the flattened input.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one example.
    num_classes : int
        Number of outputs.
    bias : bool
        Whether there is an intercept.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(input_shape), num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map examples (n, ...) to outputs (n, classes)."""
        return self.linear(x.flatten(1))
