"""Residual networks: the three-stage family made for CIFAR, and the four-stage family made for ImageNet.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016: sections 4.2 (CIFAR)
and 4.1 (ImageNet).
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sgmcmc_prune.models.normalisation import Layers, check_images, he_normal, layers


class Subsample(nn.Module):
    """The shortcut without parameters ("option A"): every second pixel, and zeros for the channels that are new.

    Parameters
    ----------
    new_channels : int
        Half of them are put before the old ones and half after.
    stride : int
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Shrink images (n, channels, height, width)."""
        before = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, parts: Layers, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=parts.bias)
        self.norm1, self.activation1 = parts.norm(width), parts.activation(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=parts.bias)
        self.norm2, self.activation2 = parts.norm(width), parts.activation(width)
        self.shortcut = _shortcut(inputs, width, stride, parts, projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, inputs, height, width) to (n, width, height / stride, width / stride)."""
        y = self.activation1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.activation2(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride is at the 3x3 (the common later variant, "v1.5")."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, parts: Layers, projection: bool) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=parts.bias)
        self.norm1, self.activation1 = parts.norm(width), parts.activation(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=parts.bias)
        self.norm2, self.activation2 = parts.norm(width), parts.activation(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=parts.bias)
        self.norm3, self.activation3 = parts.norm(outputs), parts.activation(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride, parts, projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, inputs, height, width) to (n, 4 width, height / stride, width / stride)."""
        y = self.activation1(self.norm1(self.conv1(x)))
        y = self.activation2(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return self.activation3(y + self.shortcut(x))


def _shortcut(inputs: int, outputs: int, stride: int, parts: Layers, projection: bool) -> nn.Module:
    """The identity where shapes agree; else a 1x1 convolution ("option B") or a subsampling without parameters."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    if projection:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=parts.bias), parts.norm(outputs))
    return Subsample(outputs - inputs, stride)


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the mean over all pixels, and a linear layer.

    Convolutions start from He's normal distribution. With batch normalisation on (3, 32, 32) in ten classes the named
    networks have these many parameters: resnet20 269,722; resnet32 464,154; resnet20_wide 1,073,962; resnet32_wide
    1,849,898; resnet20_frn_swish 274,042; resnet18 11,173,962; resnet34 21,282,122; and resnet50 on (3, 224, 224) in
    1,000 classes 25,557,032.

    Parameters
    ----------
    input_shape : tuple of int
        (channels, height, width), at least 8 pixels high and wide.
    num_classes : int
    blocks : tuple of int
        Residual blocks per stage.
    width : int
        Channels of the first stage; each further stage has twice as many on half the height and width.
    block : {BasicBlock, Bottleneck}
    imagenet_stem : bool
        A 7x7 convolution with stride 2 and a max-pooling, instead of one 3x3 convolution.
    projection : bool
        Shortcuts between stages are 1x1 convolutions instead of subsampling without parameters.
    normalisation : {"batch", "group", "filter_response", "filter_response_swish"}

    Raises
    ------
    ValueError
        If the input is no image or too small, or the normalisation is unknown.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        blocks: tuple[int, ...],
        width: int,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        imagenet_stem: bool = False,
        projection: bool = True,
        normalisation: str = "batch",
    ) -> None:
        super().__init__()
        channels, parts = check_images("a residual network", input_shape, smallest=8), layers(normalisation)
        size, stride = (7, 2) if imagenet_stem else (3, 1)
        self.conv = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=parts.bias)
        self.norm, self.activation = parts.norm(width), parts.activation(width)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if imagenet_stem else nn.Identity()
        stages, inputs = [], width
        for stage, count in enumerate(blocks):
            for position in range(count):
                stride = 2 if stage and position == 0 else 1
                stages.append(block(inputs, width * 2**stage, stride, parts, projection))
                inputs = width * 2**stage * block.expansion
        self.blocks = nn.Sequential(*stages)
        self.linear = nn.Linear(inputs, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        x = self.pool(self.activation(self.norm(self.conv(x))))
        return self.linear(self.blocks(x).mean((2, 3)))


_cifar = partial(ResNet, projection=False)
#: The literature on pruning knows two ResNet-32: 16/32/64 channels (He et al., Deng et al., Sun et al.), and 32/64/128
#: (the tables that go back to GraSP). They are named apart here.
NETWORKS = {
    "resnet20": partial(_cifar, blocks=(3, 3, 3), width=16),
    "resnet32": partial(_cifar, blocks=(5, 5, 5), width=16),
    "resnet20_wide": partial(_cifar, blocks=(3, 3, 3), width=32),
    "resnet32_wide": partial(_cifar, blocks=(5, 5, 5), width=32),
    "resnet20_frn_swish": partial(ResNet, blocks=(3, 3, 3), width=16, normalisation="filter_response_swish"),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2), width=64),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3), width=64),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), width=64, block=Bottleneck, imagenet_stem=True),
}
