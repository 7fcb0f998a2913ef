"""LeNet-5 in its modern reading: tanh, average pooling, a full second stage."""

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """Three 5x5 convolutions (6, 16, 120 channels) and two linear layers (84, classes); tanh throughout.

    The 28x28 input is padded to 32x32 by the first convolution: with zeros, which in normalised images is the mean
    pixel and not black. With one channel and ten classes it has 61,706 parameters.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
    Proc. IEEE 86(11), 1998; without its trainable pooling, sparse second stage and RBF outputs.

    Parameters
    ----------
    input_shape : tuple of int
        (channels, 28, 28).
    num_classes : int

    Raises
    ------
    ValueError
        If the images are not 28x28.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        if len(input_shape) != 3 or tuple(input_shape[1:]) != (28, 28):
            raise ValueError(f"lenet takes images of shape (channels, 28, 28), not {tuple(input_shape)}")
        self.conv1 = nn.Conv2d(input_shape[0], 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, 28, 28) to logits (n, classes)."""
        x = F.avg_pool2d(self.conv1(x).tanh(), 2)
        x = F.avg_pool2d(self.conv2(x).tanh(), 2)
        x = self.conv3(x).tanh().flatten(1)
        return self.fc2(self.fc1(x).tanh())
