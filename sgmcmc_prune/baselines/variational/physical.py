"""Physically smaller networks: nodes that no later layer reads are cut out. Their removal changes no output."""

import copy

import torch
from torch import Tensor, nn

from sgmcmc_prune.baselines.variational.graph import Site, find_sites, trace


@torch.no_grad()
def shrink(model: nn.Module) -> nn.Module:
    """Remove nodes and channels all of whose outgoing weights are exactly zero.

    Layers are visited from the last to the first, so that what only removed nodes read goes, too. A layer that would be
    empty keeps one node, whose outgoing weights are zero.

    Parameters
    ----------
    model : Module
        Left as it is; must be traceable.

    Returns
    -------
    Module
        A copy with smaller layers.
    """
    small = copy.deepcopy(model)
    for site in reversed(find_sites(trace(small))):
        if site.readers and not site.obstacle:
            _cut(small, site)
    return small


def _cut(model: nn.Module, site: Site) -> None:
    readers = [(model.get_submodule(name), block) for name, block in site.readers]
    read = torch.stack(
        [_read_columns(layer.get_parameter("weight")).view(-1, block).any(1) for layer, block in readers]
    ).any(0)
    index = read.nonzero().flatten() if bool(read.any()) else torch.zeros(1, dtype=torch.long, device=read.device)
    layer = model.get_submodule(site.name)
    _select(layer, ("weight", "bias"), index, 0)
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(index))
    if site.norm:
        norm = model.get_submodule(site.norm)
        _select(norm, ("weight", "bias", "running_mean", "running_var"), index, 0)
        norm.num_features = len(index)  # type: ignore[assignment]
    for layer, block in readers:
        columns = (index[:, None] * block + torch.arange(block, device=index.device)).flatten()
        _select(layer, ("weight",), columns, 1)
        setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(columns))


def _read_columns(weight: Tensor) -> Tensor:
    """Which input columns have a weight that is not zero."""
    return (weight != 0).transpose(0, 1).flatten(1).any(1)


def _select(module: nn.Module, names: tuple[str, ...], index: Tensor, dim: int) -> None:
    for name in names:
        value = getattr(module, name)
        if value is not None:
            kept = value.index_select(dim, index)
            setattr(module, name, nn.Parameter(kept, value.requires_grad) if isinstance(value, nn.Parameter) else kept)


@torch.no_grad()
def multiply_adds(model: nn.Module, inputs: Tensor) -> int:
    """Multiply-adds of the linear and convolutional layers for one example (zeros counted; biases not).

    On a network made by `shrink` this counts kept inputs times kept outputs.
    """
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        positions = output[0].numel() // output.shape[1]
        total += module.get_parameter("weight").numel() * positions

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return total
