"""How each kind of layer couples the channels that it reads to those that it makes: the table that cutting follows.

A *mixing* layer reads all channels for each one that it makes: they are dimensions of its weight. A *channelwise* one
makes a channel out of that channel alone, perhaps with values of its own for each. A *recurrent* one has several
weights, each of which mixes: its *parts*, such as 'hh_l0', which reads the states that 'ih_l0' and itself make. Of any
other kind nothing is known: what stands before it and behind it stays.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from sgmcmc_prune.models.normalisation import FilterResponseNorm, ThresholdedLinear
from sgmcmc_prune.models.recurrent import num_gates


@dataclass(frozen=True)
class Coupling:
    """How one layer couples channels.

    Attributes
    ----------
    mixes : bool
        Whether each channel that it makes reads all of them.
    own : bool
        Whether it has values of its own for each channel: then these are dimension 0 of all its parameters.
    axis : int, optional
        The dimension of its values along which the channels lie; None: any.
    ndims : tuple of int
        How many dimensions its values must have for that; empty: any number.
    outputs, inputs : int
        The dimensions of a mixing layer's weight that are the channels made and read.
    made, read : tuple of str
        Attributes that hold their numbers.
    groups : int
        In how many groups of neighbours the channels are normalised together, which go together or not at all; 0: each
        is for itself.
    suffix : str
        What the names of its weight and bias end with, as "_hh_l0".
    """

    mixes: bool = False
    own: bool = False
    axis: int | None = None
    ndims: tuple[int, ...] = ()
    outputs: int = 0
    inputs: int = 1
    made: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    groups: int = 0
    suffix: str = ""

    def matrix(self, layer: nn.Module) -> Tensor:
        """A view of a mixing layer's weight, of shape (made, read, ...)."""
        weight = layer.get_parameter(f"weight{self.suffix}")
        return weight if self.outputs == 0 else weight.transpose(0, 1)

    def bias(self, layer: nn.Module) -> Tensor | None:
        """A mixing layer's bias, if it has one."""
        return getattr(layer, f"bias{self.suffix}", None)


_ELEMENTWISE = Coupling()
_ANY_IMAGES = Coupling(axis=1)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def _spatial(k: int) -> Coupling:
    """Of images of k dimensions."""
    return Coupling(axis=1, ndims=(k + 2,))


def _convolution(layer: nn.Module) -> Coupling | None:
    """Of one group it mixes; of as many groups as channels it is channelwise; of others it is not followed."""
    assert isinstance(layer, _ConvNd)
    rule, sizes = _spatial(len(layer.kernel_size)), ("in_channels", "out_channels", "groups")
    if layer.groups == 1:
        outputs = int(isinstance(layer, _ConvTransposeNd))
        return replace(rule, mixes=True, outputs=outputs, inputs=1 - outputs, made=sizes[1:2], read=sizes[:1])
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    return replace(rule, own=True, made=sizes) if depthwise else None


def _norm(layer: nn.Module, rule: Coupling = _ANY_IMAGES) -> Coupling:
    values = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    return replace(rule, own=any(value.ndim > 0 for value in values), made=("num_features",))


def _group_norm(layer: nn.Module) -> Coupling | None:
    assert isinstance(layer, nn.GroupNorm)
    if not layer.affine:  # a file would not say how many channels it has left
        return None
    return replace(_ANY_IMAGES, own=True, made=("num_channels",), groups=layer.num_groups)


def _prelu(layer: nn.Module) -> Coupling:
    assert isinstance(layer, nn.PReLU)
    return _ELEMENTWISE if layer.num_parameters == 1 else Coupling(own=True, axis=1, made=("num_parameters",))


_RULES: dict[type[nn.Module], Callable[[nn.Module], Coupling | None]] = {
    nn.Linear: lambda _: Coupling(mixes=True, axis=-1, made=("out_features",), read=("in_features",)),
    _ConvNd: _convolution,
    _BatchNorm: _norm,
    **{kind: partial(_norm, rule=_spatial(k)) for k, kind in enumerate(_INSTANCE_NORMS, 1)},
    nn.GroupNorm: _group_norm,
    nn.PReLU: _prelu,
    FilterResponseNorm: lambda _: Coupling(own=True, axis=1, ndims=(4,)),
    ThresholdedLinear: lambda _: Coupling(own=True, axis=1, ndims=(4,)),
}
_FIXED_MODULES: dict[type[nn.Module], Coupling] = {
    **dict.fromkeys(
        (
            *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Threshold),
            *(nn.Tanh, nn.Tanhshrink, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Softshrink),
            *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Dropout, nn.AlphaDropout, nn.Identity),
        ),
        _ELEMENTWISE,
    ),
    **{
        getattr(nn, f"{name}{k}d"): _spatial(k)
        for name in ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "Dropout", "ZeroPad", "ReflectionPad")
        for k in (1, 2, 3)
    },
    nn.Upsample: _ANY_IMAGES,
}
_FUNCTIONS: dict[object, Coupling] = {
    **dict.fromkeys(
        (
            *(torch.relu, torch.tanh, torch.sigmoid, torch.abs, torch.exp, torch.square, torch.clamp),
            *(F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid),
            *(F.tanh, F.sigmoid, F.softplus, F.dropout),
            # of one tensor and a number
            *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg),
        ),
        _ELEMENTWISE,
    ),
    **{
        getattr(F, f"{name}{k}d"): _spatial(k)
        for name in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "dropout")
        for k in (1, 2, 3)
    },
    F.interpolate: _ANY_IMAGES,
    **dict.fromkeys(("relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "abs", "clamp"), _ELEMENTWISE),
    **dict.fromkeys(("mul", "add", "sub", "div", "contiguous"), _ELEMENTWISE),
}


def coupling(layer: nn.Module) -> Coupling | None:
    """How a layer couples channels; None where that is not known."""
    for kind in type(layer).__mro__:
        if kind in _RULES:
            return _RULES[kind](layer)
        if kind in _FIXED_MODULES:
            return _FIXED_MODULES[kind]
    return None


def _part(layer: nn.RNNBase, part: str) -> Coupling:
    read = ("input_size",) if part.startswith("ih_l0") else ()
    return Coupling(mixes=True, axis=-1, made=("hidden_size",), read=read, suffix=f"_{part}")


def coupling_of_tensor(layer: nn.Module, name: str) -> Coupling | None:
    """How the part of a layer couples channels that has a parameter or buffer of this name; None if not known."""
    if not isinstance(layer, nn.RNNBase):
        return coupling(layer)
    part = name.partition("_")[2]
    return _part(layer, part) if part.startswith(("ih_", "hh_")) else None


def layer_of(model: nn.Module, name: str) -> tuple[str, nn.Module, Coupling]:
    """A layer by its name, or that of one of its parts ("rnn.hh_l0"): its path, the layer, and how it couples."""
    path, _, part = name.rpartition(".")
    layer = model.get_submodule(path)
    if isinstance(layer, nn.RNNBase):
        return path, layer, _part(layer, part)
    rule = coupling(model.get_submodule(name))
    assert rule is not None, "only layers whose coupling is known are followed"
    return name, model.get_submodule(name), rule


def coupling_of_function(target: object) -> Coupling | None:
    """The same of a function, or of a tensor's method by its name."""
    return _FUNCTIONS.get(target)


def is_weighted(layer: nn.Module) -> bool:
    """Whether a layer has nodes of its own."""
    return isinstance(layer, nn.Linear | _ConvNd)


def pads_with_zeros(layer: nn.Module) -> bool:
    """Whether what a constant input adds to a mixing layer's outputs depends on the place."""
    if not isinstance(layer, _ConvNd):
        return False
    padded = layer.padding == "same" or (not isinstance(layer.padding, str) and any(layer.padding))
    return isinstance(layer, _ConvTransposeNd) or (padded and layer.padding_mode == "zeros")


def set_sizes(layer: nn.Module, name: str, shape: torch.Size) -> None:
    """Have a layer say the sizes that its weight of this name has."""
    rule = coupling_of_tensor(layer, name)
    if rule is not None:
        set_number(layer, rule.made, shape[rule.outputs])
        if rule.read:
            set_number(layer, rule.read, shape[rule.inputs])


def set_number(layer: nn.Module, names: Sequence[str], number: int) -> None:
    """Have a layer say how many channels it makes or reads, in the attributes of these names."""
    if isinstance(layer, nn.GroupNorm):  # whole groups have gone
        layer.num_groups = layer.num_groups * number // layer.num_channels
    if isinstance(layer, nn.RNNBase) and "hidden_size" in names:  # of so many rows
        number //= num_gates(layer)
    for name in names:
        setattr(layer, name, number)
