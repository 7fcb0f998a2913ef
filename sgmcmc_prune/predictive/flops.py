"""Multiply-adds of one input under a mask: a weight that is masked costs nothing, wherever it lies."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sgmcmc_prune.predictive.predict import evaluation_mode

aten = torch.ops.aten
#: Operations that torch's counter does not know, and that multiply nothing by a weight.
_FREE = {
    aten.embedding, aten.index_select, aten.index, aten.gather, aten.cat, aten.stack, aten.clone, aten.copy_,
    aten._to_copy, aten.empty_like, aten.zeros_like, aten.norm, aten.sum, aten.mean, aten.linalg_vector_norm,
    aten.native_layer_norm, aten.native_group_norm, aten.native_batch_norm, aten._native_batch_norm_legit,
    aten.cudnn_batch_norm, aten._weight_norm_interface, aten.lift_fresh,
}  # fmt: skip


def multiply_adds(model: nn.Module, inputs: Tensor, mask: Mapping[str, Tensor] | None = None) -> int | None:
    """Count the multiply-adds of one input, as torch's own counter does (`torch.utils.flop_counter`), under a mask.

    Of every product that reads a masked weight the kept share counts. At the border of a padded image all of a kernel's
    weights count; products inside attention count, too; biases and elementwise operations do not.

    Parameters
    ----------
    model : Module
    inputs : Tensor, shape (n, ...)
        The first is counted.
    mask : mapping of str to bool Tensor, optional
        Layers without a mask are dense.

    Returns
    -------
    int or None
        None where an operation reads a weight and torch's counter does not know it (recurrent layers), or where other
        weights are computed from a masked one: a number would be wrong.
    """
    device = next((p.device for p in model.parameters()), inputs.device)
    counter, inputs = _Counter(model, mask or {}), torch.cat([inputs[:1]] * 2)  # a batch of one may lose a dimension
    # With gradients, and the plain form of attention, torch fuses nothing that its counter does not know.
    with evaluation_mode(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(inputs.to(device))
    return None if counter.unknown or counter.unread else round(counter.total / len(inputs))


class _Counter(TorchDispatchMode):
    """Adds up the multiply-adds of all operations; `unknown` where one reads a weight and nobody knows its cost."""

    def __init__(self, model: nn.Module, mask: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.total, self.unknown = 0.0, False
        self.kept = {
            p.data_ptr(): float(mask[name].double().mean()) if name in mask else 1.0
            for name, p in model.named_parameters()
            if p.dim() > 1
        }
        #: Masked weights that no product has read yet: one that only other weights are made of stays here.
        self.unread = {pointer for pointer, kept in self.kept.items() if kept < 1}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry:
            with self:  # what torch makes of other operations
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        out = func(*args, **kwargs)
        read = [x.data_ptr() for x in _tensors((*args, *kwargs.values()))]
        weights = [self.kept[pointer] for pointer in read if pointer in self.kept]
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=out)
            self.total += flops / 2 * min(weights, default=1.0)
            self.unread -= set(read)
        elif weights and not (packet in _FREE or func.is_view or torch.Tag.pointwise in func.tags):
            self.unknown = True
        return out


def _tensors(arguments: Any) -> list[Tensor]:
    """All tensors among some arguments, in lists too."""
    found = []
    for x in arguments:
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, list | tuple):
            found += _tensors(x)
    return found
