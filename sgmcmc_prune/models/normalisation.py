"""Normalisation and the activation that goes with it, chosen by name: batch, group or filter response.

A claim about a posterior needs a likelihood, in which an example's probability depends on nothing but the example and
the weights. Batch normalisation breaks that; group and filter response normalisation do not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CHANNELS_PER_GROUP = 16


class FilterResponseNorm(nn.Module):
    r"""Filter response normalisation, :math:`y = \gamma x / \sqrt{\nu^2 + \epsilon} + \beta`.

    :math:`\nu^2` is the mean of :math:`x^2` over the pixels of one channel of one example: no minibatch and no mean is
    subtracted. Use it before `ThresholdedLinear` in the place of batch normalisation and ReLU.

    Source: S. Singh, S. Krishnan, "Filter Response Normalization Layer", CVPR 2020, equations 1 to 3; with its
    constant epsilon of 1e-6 (the learned one is for maps of one pixel).

    Parameters
    ----------
    channels : int
    eps : float
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images (n, channels, height, width)."""
        scale = torch.rsqrt(x.square().mean((2, 3), keepdim=True) + self.eps)
        return x * scale * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


class ThresholdedLinear(nn.Module):
    r"""Thresholded linear unit, :math:`z = \max(y, \tau)` with a learned :math:`\tau` per channel, 0 at the start.

    Source: as `FilterResponseNorm`, equation 4.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Threshold images (n, channels, height, width)."""
        return torch.maximum(x, self.threshold.view(-1, 1, 1))


@dataclass(frozen=True)
class Layers:
    """What stands around a convolution: its normalisation and activation, both made from a number of channels."""

    norm: Callable[[int], nn.Module]
    activation: Callable[[int], nn.Module]
    bias: bool = False


def _group_norm(channels: int) -> nn.Module:
    """Groups of 16 channels: the setting that Y. Wu and K. He (ECCV 2018) found as good as 32 groups."""
    return nn.GroupNorm(max(1, channels // _CHANNELS_PER_GROUP), channels)


def _relu(channels: int) -> nn.Module:
    return nn.ReLU()


def _thresholded_norm(channels: int) -> nn.Module:
    return nn.Sequential(FilterResponseNorm(channels), ThresholdedLinear(channels))


def _swish(channels: int) -> nn.Module:
    return nn.SiLU()


#: "filter_response_swish" is Izmailov et al.'s (ICML 2021): thresholded everywhere, swish besides, biases before.
NORMALISATIONS = {
    "batch": Layers(nn.BatchNorm2d, _relu),
    "group": Layers(_group_norm, _relu),
    "filter_response": Layers(FilterResponseNorm, ThresholdedLinear),
    "filter_response_swish": Layers(_thresholded_norm, _swish, bias=True),
}


def layers(normalisation: str) -> Layers:
    """The layers of a normalisation by name; ValueError if there is none of that name."""
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"normalisation is {normalisation!r}; choose one of {', '.join(NORMALISATIONS)}")
    return NORMALISATIONS[normalisation]


def he_normal(model: nn.Module) -> None:
    """Draw the weights of all convolutions from He's normal distribution (fan out), in place; biases are 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_images(name: str, input_shape: tuple[int, ...], smallest: int) -> int:
    """The number of channels of an image shape; ValueError unless it is (channels, height, width), large enough."""
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{name} takes images of shape (channels, height, width), at least {smallest} pixels high and wide, "
            f"not {tuple(input_shape)}"
        )
    return input_shape[0]
