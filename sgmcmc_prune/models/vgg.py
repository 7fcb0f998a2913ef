"""VGG-16 for CIFAR: thirteen 3x3 convolutions with normalisation and one linear layer.

Source: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
configuration D. As everywhere on CIFAR, one linear layer takes the place of the three of the ImageNet network.
"""

from torch import Tensor, nn

from sgmcmc_prune.models.normalisation import check_images, he_normal, layers

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each ending in a max-pooling, and a linear layer.

    With batch normalisation on (3, 32, 32) in ten classes it has 14,724,042 parameters (14,728,266 in versions that
    keep the convolutions' biases, which batch normalisation cancels).

    Parameters
    ----------
    input_shape : tuple of int
        (channels, height, width), at least 32 pixels high and wide.
    num_classes : int
    normalisation : {"batch", "group", "filter_response", "filter_response_swish"}

    Raises
    ------
    ValueError
        If the input is no image or too small, or the normalisation is unknown.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, normalisation: str = "batch") -> None:
        super().__init__()
        inputs, parts = check_images("vgg16", input_shape, smallest=32), layers(normalisation)
        stack: list[nn.Module] = []
        for width, count in _STAGES:
            for _ in range(count):
                conv = nn.Conv2d(inputs, width, 3, padding=1, bias=parts.bias)
                stack += [conv, parts.norm(width), parts.activation(width)]
                inputs = width
            stack.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*stack)
        self.linear = nn.Linear(inputs, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        return self.linear(self.features(x).mean((2, 3)))


NETWORKS = {"vgg16": VGG}
