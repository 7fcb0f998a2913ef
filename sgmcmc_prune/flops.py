"""Multiply-adds of one input under a mask: a weight that is masked costs nothing, wherever it lies."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sgmcmc_prune.predict import class_probabilities


def multiply_adds(model: nn.Module, inputs: Tensor, mask: Mapping[str, Tensor] | None = None) -> int:
    r"""Count :math:`\sum_l R_l K_l`: the R positions at which a layer works, times the K weights that it keeps.

    Linear and Conv2d layers count; biases, normalisation and the products inside attention do not. At the border of a
    padded image all of a kernel's weights count.

    Parameters
    ----------
    model : Module
    inputs : Tensor, shape (n, ...)
        The first is counted.
    mask : mapping of str to bool Tensor, optional
        Layers without a mask are dense.
    """
    names = {id(module): name for name, module in model.named_modules()}
    mask, total = mask or {}, 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        kept = mask.get(f"{names[id(module)]}.weight".lstrip("."), torch.ones_like(weight, dtype=torch.bool))
        total += int(kept.sum()) * (output.numel() // len(weight))

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        class_probabilities(model, inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return total
