"""What a layer's curvature is made of: its inputs a and the gradients g at its outputs, position by position.

A linear layer sees one position per example (or one per token), a convolution one per output pixel, where its input is
the patch under the kernel. So every supported layer is z = W a + b at R positions, with a of shape (n, R, I) and dz of
shape (n, R, O), and one formula serves all of them.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """A module with a curvature rule, and the names of its parameters in the model (`bias` is None without one)."""

    module: nn.Linear | nn.Conv2d
    weight: str
    bias: str | None


def find_layers(model: nn.Module, skip: Collection[str] = ()) -> list[Layer]:
    """List the layers of a model, in order.

    Parameters
    ----------
    model : Module
    skip : collection of str
        Modules that get no curvature (and so no prior, no score), with all that is inside them.

    Returns
    -------
    list of Layer

    Raises
    ------
    ValueError
        If a module with parameters has no curvature rule, two modules share a parameter, or `skip` names no module.
    """
    modules = dict(model.named_modules())
    if unknown := sorted(set(skip) - modules.keys()):
        raise ValueError(f"skip names {unknown}, which are no modules of the model; choose from {sorted(modules)}")
    layers: list[Layer] = []
    owner: dict[int, str] = {}
    for name, module in modules.items():
        own = dict(module.named_parameters(recurse=False))
        if not own or any(name == s or name.startswith(f"{s}.") for s in skip):
            continue
        _check(name, module)
        for short, parameter in own.items():
            if id(parameter) in owner:
                raise ValueError(
                    f"{name}.{short} is also {owner[id(parameter)]}: shared weights have no curvature rule"
                )
            owner[id(parameter)] = f"{name}.{short}"
        layers.append(_layer(name, module))
    if not layers:
        raise ValueError("the model has no Linear or Conv2d layer, so there is no curvature to compute")
    return layers


def layers_with_rule(model: nn.Module) -> list[Layer]:
    """List the layers that have a curvature rule and parameters of their own; what has none is left out."""
    modules = {name: module for name, module in model.named_modules() if has_rule(module)}
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    return [
        _layer(name, module)
        for name, module in modules.items()
        if all(owners[id(p)] == 1 for p in module.parameters(recurse=False))
    ]


def has_rule(module: nn.Module) -> bool:
    """Whether a module is Linear, or Conv2d with groups=1 and zero padding given as numbers."""
    if type(module) is nn.Conv2d:
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) is nn.Linear


def _layer(name: str, module: nn.Module) -> Layer:
    prefix = f"{name}." if name else ""
    assert isinstance(module, nn.Linear | nn.Conv2d), "it has a rule"
    return Layer(module, f"{prefix}weight", f"{prefix}bias" if module.bias is not None else None)


def _check(name: str, module: nn.Module) -> None:
    if has_rule(module):
        return
    raise ValueError(
        f"layer {name!r} ({type(module).__name__}) has no curvature rule; supported are Linear, and Conv2d with "
        "groups=1 and zero padding given as numbers. Replace it, or name it in `skip`: no prior, never pruned"
    )


@contextmanager
def record(layers: Collection[Layer]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Record (input, output) of every call of the layers, by weight name, while the block runs."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {layer.weight: [] for layer in layers}

    def hook(layer: Layer):  # type: ignore[no-untyped-def]
        def forward(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls[layer.weight].append((arguments[0].detach(), output))
            return output.clone()  # an in-place activation must not overwrite what was recorded

        return forward

    handles = [layer.module.register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def positions(layer: Layer, inputs: Tensor) -> Tensor:
    """The layer's inputs at each position, (n, R, I): patches of a convolution, tokens of a linear layer."""
    module = layer.module
    if isinstance(module, nn.Linear):
        return inputs.reshape(len(inputs), -1, module.in_features)
    kernel, stride = module.kernel_size, module.stride
    return F.unfold(inputs, kernel, module.dilation, module.padding, stride).transpose(1, 2)  # type: ignore[arg-type]


def gradient_positions(layer: Layer, gradient: Tensor) -> Tensor:
    """The gradient at the layer's outputs at each position, (n, R, O)."""
    if isinstance(layer.module, nn.Linear):
        return gradient.reshape(len(gradient), -1, layer.module.out_features)
    return gradient.flatten(2).transpose(1, 2)


def sum_of_squared_gradients(a: Tensor, g: Tensor) -> Tensor:
    """Sum over examples of the squared weight gradients, (sum_r g_r a_r')^2: shape (O, I)."""
    if a.shape[1] == 1:  # one position: the square of a product is the product of the squares
        return g[:, 0].square().T @ a[:, 0].square()
    return torch.einsum("nro,nri->noi", g, a).square().sum(0)
