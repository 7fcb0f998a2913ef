"""Networks by name: the papers' own, or a user's by dotted path."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from sgmcmc_prune import choices
from sgmcmc_prune.models.lenet import LeNet
from sgmcmc_prune.models.linear import LinearModel
from sgmcmc_prune.models.mlp import MLP
from sgmcmc_prune.models.mlp_mixer import MLPMixer
from sgmcmc_prune.models.vit import VisionTransformer

__all__ = ["MLP", "LeNet", "LinearModel", "MLPMixer", "VisionTransformer", "build", "in_fast_layout", "num_parameters"]

#: How one gives a network that has the options which ours lacks.
OF_YOUR_OWN = "; a network of your own takes its own: --model.name package.module:callable --model.options NAME=VALUE"
#: Networks that were returned, as long as they live.
_BUILT: WeakSet[nn.Module] = WeakSet()


def build(
    name: str | Callable[..., nn.Module], input_shape: tuple[int, ...], num_classes: int, *, seed: int, **options: Any
) -> nn.Module:
    """Build a network with initial weights that depend on `seed` alone; the global generators are left as they were.

    Parameters
    ----------
    name : str or callable
        One of `choices.OURS["network"]`, or "package.module:callable" for your own: a callable that takes
        (input_shape, num_classes, **options) and returns a module. Or the callable itself.
    input_shape : tuple of int
        Shape of one example, such as (1, 28, 28).
    num_classes : int
        Number of outputs.
    seed : int
        0 <= seed < 2^64.
    **options
        Of the network: `widths` and `activation` of `mlp`, `bias` of `linear`, `normalisation` of a convolutional one.

    Returns
    -------
    nn.Module
        On the CPU (a callable of your own may choose otherwise).

    Raises
    ------
    ValueError
        If the name, the shape, the seed or an option is not as above; if your callable fails, or returns a network that
        it has returned before, which every chain would train on.
    TypeError
        If an option is unknown to the network, or your callable returns no module.
    """
    factory = name if callable(name) else choices.load_callable("network", name)
    if isinstance(factory, nn.Module):
        raise ValueError(f"network {name!r} is a network already; it must be callable, and make a network")
    name = name if isinstance(name, str) else getattr(name, "__name__", type(name).__name__)
    if not input_shape or min(input_shape) < 1 or num_classes < 1:
        raise ValueError(f"input_shape is {tuple(input_shape)} and num_classes {num_classes}; both must be positive")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; choose 0 to 2^64 - 1")
    ours = name in choices.OURS["network"]
    choices.check_options(name, factory, options, positional=2, instead=OF_YOUR_OWN if ours else "")
    # Only the CPU generator is forked and seeded (torch.manual_seed would reseed every GPU), so build on the CPU.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        try:
            model = factory(input_shape, num_classes, **options)
        except Exception as error:
            if ours:
                raise
            call = f"{name}({tuple(input_shape)}, {num_classes})"
            raise ValueError(f"the call {call} of your network fails: {choices.in_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} returned an object of type {type(model).__name__}; it must return a torch.nn.Module")
    if model in _BUILT:
        raise ValueError(
            f"{name} returned the same network twice; it must make a new one at every call, for every chain"
        )
    _BUILT.add(model)
    return model


def in_fast_layout(name: str, model: nn.Module, precision: str = "float32") -> nn.Module:
    """A network of this library with channels last, which makes convolutions faster on a CPU and changes no value.

    In bfloat16 only one with batch normalisation: with the others, channels last was found to be the slower order.
    A user's own, "package.module:callable", is left alone: it may ask for the order of its memory, by `view`.
    """
    slower = precision == "bfloat16" and not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    return model if slower or ":" in name else model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def num_parameters(model: nn.Module) -> int:
    """Number of weights and biases in a network."""
    return sum(parameter.numel() for parameter in model.parameters())
