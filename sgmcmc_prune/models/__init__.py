"""Networks by name: the papers' own, or a user's by dotted path."""

import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from sgmcmc_prune.models import resnet, vgg, wide_resnet
from sgmcmc_prune.models.lenet import LeNet
from sgmcmc_prune.models.linear import LinearModel
from sgmcmc_prune.models.mlp import MLP
from sgmcmc_prune.models.mlp_mixer import MLPMixer
from sgmcmc_prune.models.vit import VisionTransformer

__all__ = ["MLP", "LeNet", "LinearModel", "MLPMixer", "VisionTransformer", "build", "in_fast_layout", "num_parameters"]

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet": LeNet,
    "mlp": MLP,
    "linear": LinearModel,
    "vit": VisionTransformer,
    "mlp-mixer": MLPMixer,
    **resnet.NETWORKS,
    **wide_resnet.NETWORKS,
    **vgg.NETWORKS,
}
#: Networks that were returned, as long as they live.
_BUILT: WeakSet[nn.Module] = WeakSet()


def build(
    name: str | Callable[..., nn.Module], input_shape: tuple[int, ...], num_classes: int, *, seed: int, **options: Any
) -> nn.Module:
    """Build a network with initial weights that depend on `seed` alone; the global generators are left as they were.

    Parameters
    ----------
    name : str or callable
        `lenet`, `mlp`, `linear`, `vit`, `mlp-mixer`, a residual network (`resnet.NETWORKS`,
        `wide_resnet.NETWORKS`), `vgg16`, or "package.module:callable" for your own: a callable that takes
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
    factory = name if callable(name) else find(name)
    name = name if isinstance(name, str) else getattr(name, "__name__", type(name).__name__)
    if not input_shape or min(input_shape) < 1 or num_classes < 1:
        raise ValueError(f"input_shape is {tuple(input_shape)} and num_classes {num_classes}; both must be positive")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; choose 0 to 2^64 - 1")
    _check_options(name, factory, options)
    # Only the CPU generator is forked and seeded (torch.manual_seed would reseed every GPU), so build on the CPU.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        try:
            model = factory(input_shape, num_classes, **options)
        except Exception as error:
            if name in _MODELS:
                raise
            call = f"{name}({tuple(input_shape)}, {num_classes})"
            raise ValueError(f"the call {call} of your network fails: {_in_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} returned an object of type {type(model).__name__}; it must return a torch.nn.Module")
    if model in _BUILT:
        raise ValueError(
            f"{name} returned the same network twice; it must make a new one at every call, for every chain"
        )
    _BUILT.add(model)
    return model


def find(path: str) -> Callable[..., nn.Module]:
    """What makes the network of a name, one of this library's or "package.module:callable"."""
    if path in _MODELS:
        return _MODELS[path]
    module_name, _, attribute = path.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f"model is {path!r}; choose one of {', '.join(_MODELS)}, or 'package.module:callable'")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # a user's module may raise anything, or be a script that exits
        raise ValueError(f"model {path!r} cannot be imported: {_in_one_line(error)}") from error
    if not callable(factory) or isinstance(factory, nn.Module):
        kind = "network already" if isinstance(factory, nn.Module) else type(factory).__name__
        raise ValueError(f"model {path!r} is a {kind}; it must be callable, and make a network")
    return factory


def _in_one_line(error: BaseException) -> str:
    """What went wrong in a user's code, and in which line of it."""
    text = next(iter(str(error).splitlines()), "")
    if isinstance(error, ImportError | AttributeError):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f" ({Path(place.filename).name}, line {place.lineno})"
    theirs = place.filename != __file__ and not place.filename.startswith("<")
    return f"{type(error).__name__}: {text}{where if theirs else ''}"


def _check_options(name: str, factory: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    """TypeError that names an option which the network does not have, and those it has."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.name not in ("input_shape", "num_classes")]
    for option in options:
        if option not in known:
            raise TypeError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")


def in_fast_layout(name: str, model: nn.Module) -> nn.Module:
    """A network of this library with channels last, which makes convolutions faster on a CPU and changes no value.

    A user's own, "package.module:callable", is left alone: it may ask for the order of its memory, by `view`.
    """
    return model if ":" in name else model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def num_parameters(model: nn.Module) -> int:
    """Number of weights and biases in a network."""
    return sum(parameter.numel() for parameter in model.parameters())
