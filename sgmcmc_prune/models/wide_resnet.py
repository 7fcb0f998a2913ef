"""Wide residual networks: few layers, many channels, normalisation and activation before every convolution.

Source: S. Zagoruyko, N. Komodakis, "Wide residual networks", BMVC 2016; without dropout.
"""

from functools import partial

from torch import Tensor, nn

from sgmcmc_prune.models.normalisation import Layers, check_images, he_normal, layers


class PreactivationBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and activation; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int, parts: Layers) -> None:
        super().__init__()
        self.norm1, self.activation1 = parts.norm(inputs), parts.activation(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=parts.bias)
        self.norm2, self.activation2 = parts.norm(width), parts.activation(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=parts.bias)
        self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=parts.bias) if inputs != width else None

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, inputs, height, width) to (n, width, height / stride, width / stride)."""
        y = self.activation1(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        return shortcut + self.conv2(self.activation2(self.norm2(y)))


class WideResNet(nn.Module):
    """A 3x3 convolution, three stages of pre-activation blocks, the mean over all pixels, and a linear layer.

    WRN-28-10 with batch normalisation on (3, 32, 32) has 36,479,194 parameters in ten classes, 36,536,884 in a hundred.

    Parameters
    ----------
    input_shape : tuple of int
        (channels, height, width), at least 8 pixels high and wide.
    num_classes : int
    depth : int
        Number of convolutions along the main path, 6 k + 4.
    widening : int
        Factor on the channels 16, 32, 64 of the three stages.
    normalisation : {"batch", "group", "filter_response", "filter_response_swish"}

    Raises
    ------
    ValueError
        If the depth is not 6 k + 4, the input is no image or too small, or the normalisation is unknown.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        depth: int = 28,
        widening: int = 10,
        normalisation: str = "batch",
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4 or widening < 1:
            raise ValueError(f"depth is {depth} and widening {widening}; depth must be 10, 16, 22, ..., widening >= 1")
        channels, parts = check_images("a wide residual network", input_shape, smallest=8), layers(normalisation)
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=parts.bias)
        blocks, inputs = [], 16
        for stage in range(3):
            width = 16 * widening * 2**stage
            for position in range((depth - 4) // 6):
                blocks.append(PreactivationBlock(inputs, width, 2 if stage and position == 0 else 1, parts))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.activation = parts.norm(inputs), parts.activation(inputs)
        self.linear = nn.Linear(inputs, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        x = self.activation(self.norm(self.blocks(self.conv(x))))
        return self.linear(x.mean((2, 3)))


NETWORKS = {"wide_resnet28_10": partial(WideResNet, depth=28, widening=10)}
