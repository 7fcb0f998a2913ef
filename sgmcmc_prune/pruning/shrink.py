r"""A physically smaller network that computes what the masked one does.

A node (neuron or channel) is *constant* if all weights left to it read constants; it then sends on c = f(b), its bias
b after normalisation and activation, which is seldom zero. What it adds to the next layer, :math:`W_{:,j} c_j`, is

- moved to the next layers' biases, :math:`b \leftarrow b + \sum_j W_{:,j} c_j`, where they have some and pad nothing;
- else carried by one constant node d that stays, :math:`W_{:,d} \leftarrow \sum_j W_{:,j} c_j / c_d`: zeros that a
  convolution pads make the sum depend on the place.

Both are exact. Then nobody reads constant nodes any more, and every node that nobody reads is cut out, from the last
layer to the first. Of a residual block only the inner channels go: what enters a sum stays.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from sgmcmc_prune.models.normalisation import FilterResponseNorm, ThresholdedLinear
from sgmcmc_prune.predict import evaluation_mode
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.graph import Site, find_sites, trace

SUPPORTED = (
    *(nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm),
    *(FilterResponseNorm, ThresholdedLinear),
)

Kept = dict[str, dict[int, Tensor]]


@dataclass(frozen=True)
class Shrunk:
    """A smaller network and where its values come from.

    Attributes
    ----------
    model : Module
    kept : dict of str to dict of int to Tensor
        By name of a parameter or buffer that is smaller now, and by dimension, the positions kept.
    obstacles : dict of str to str
        By name of a layer none of whose nodes could go, the reason.
    """

    model: nn.Module
    kept: Kept
    obstacles: dict[str, str]

    def select(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut tensors shaped like the large network's (momenta, moments, a mask) to the small one's shapes."""
        return {name: _select(value, self.kept.get(name, {})) for name, value in values.items()}


@torch.no_grad()
def shrink(model: nn.Module, mask: Mapping[str, Tensor], example: Tensor) -> Shrunk:
    """Cut out what a mask made superfluous.

    Parameters
    ----------
    model : Module
        Left as it is; its forward must be traceable by `torch.fx` (no branching on values).
    mask : mapping of str to bool Tensor
        True = kept.
    example : Tensor, shape (1, ...)
        One input: the constants are computed with it, and the result is checked on it.

    Returns
    -------
    Shrunk
        Its network gives the masked network's outputs in evaluation mode, to rounding. In training mode a batch
        normalisation computes other statistics of a constant than its running ones: train the masked network instead.

    Raises
    ------
    TypeError, ValueError
        If the mask does not fit, the network cannot be traced or holds a layer that is not supported (named), or it
        rearranges channels so that the smaller network is not the same function.
    """
    masked = copy.deepcopy(model)
    masks.apply(mask, dict(masked.named_parameters()))
    graph = trace(masked, SUPPORTED)
    with evaluation_mode(masked):
        interpreter = fx.Interpreter(graph, garbage_collect_values=False)
        expected = interpreter.run(example)
        sites = find_sites(graph)
        for site, constants in _constant_nodes(masked, sites, interpreter.env):
            _pass_on(masked, site, constants)
    shrunk = remove_unread(masked)
    _check(shrunk.model, example, expected)
    return shrunk


@torch.no_grad()
def remove_unread(model: nn.Module) -> Shrunk:
    """Cut out nodes all of whose outgoing weights are exactly zero; this changes no output.

    Layers are visited from the last to the first, so that what only removed nodes read goes, too. A layer that would be
    empty keeps one node.

    Parameters
    ----------
    model : Module
        Left as it is; must be traceable.

    Returns
    -------
    Shrunk

    Raises
    ------
    ValueError
        As `shrink`.
    """
    small = copy.deepcopy(model)
    sites = find_sites(trace(small, SUPPORTED))
    kept: Kept = {}
    for site in reversed(sites):
        if _removable(site):
            _cut(small, site, kept)
    return Shrunk(small, kept, {site.name: site.obstacle for site in sites if site.name and not _removable(site)})


def _check(small: nn.Module, example: Tensor, expected: Tensor) -> None:
    """Make sure of what tracing cannot see: fixed shapes in `view`, and channels that change places."""
    try:
        with evaluation_mode(small):
            error = float((small(example) - expected).abs().max())
    except RuntimeError as failure:
        reason = str(failure).splitlines()[0]
        raise ValueError(
            f"{type(small).__name__} cannot run with fewer channels ({reason}); write no sizes into its forward, as in "
            "flatten(1) instead of view(-1, 400)"
        ) from failure
    # Reduced-precision products on a GPU round at 1e-3; channels that changed places err by about 1.
    if not error <= 1e-2 * (1 + float(expected.abs().max())):
        raise ValueError(
            f"{type(small).__name__} rearranges channels in a way that cannot be followed: cut, its outputs differ by "
            f"{error:.2g}"
        )


def _removable(site: Site) -> bool:
    return bool(site.readers) and not site.obstacle


def _constant_nodes(model: nn.Module, sites: list[Site], values: Mapping[fx.Node, Tensor]) -> list[tuple[Site, Tensor]]:
    """Each layer whose nodes may go, and what its constant nodes send on, shape (nodes,); NaN for the others."""
    constants: list[tuple[Site, Tensor]] = []
    varying: dict[str, Tensor] = {}  # by layer, which of its inputs are not constant
    for site in filter(_removable, sites):
        weight = model.get_submodule(site.name).get_parameter("weight")
        inputs = varying.get(site.name, torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device))
        reads = (weight[:, inputs] != 0).flatten(1).any(1)
        pixels = values[site.gated][0].reshape(site.num_nodes, -1)
        low, high = pixels.amin(1), pixels.amax(1)
        # What padding has made different at the border is no constant.
        fixed = ~reads & torch.isclose(low, high, rtol=1e-5, atol=1e-7)
        constants.append((site, low.where(fixed, torch.nan)))
        varying |= {name: ~fixed.repeat_interleave(block) for name, block in site.readers}
    return constants


def _pass_on(model: nn.Module, site: Site, constants: Tensor) -> None:
    """Let the next layers get what the constant nodes send without reading them, or by reading only one of them."""
    fixed, sent = ~constants.isnan(), constants.nan_to_num()
    carrier = int(sent.abs().argmax())
    readers = [(model.get_submodule(name), block) for name, block in site.readers]
    to_bias = all(layer.bias is not None and not _pads(layer) for layer, _ in readers)
    for layer, block in readers:
        weight = layer.get_parameter("weight")
        w = weight.reshape(len(weight), site.num_nodes, block, -1)
        moved = (w * sent.view(-1, 1, 1)).sum(1)
        w = w.masked_fill(fixed.view(-1, 1, 1), 0)
        if to_bias:
            layer.get_parameter("bias").add_(moved.sum((1, 2)))
        elif sent[carrier] != 0:
            w[:, carrier] = moved / sent[carrier]
        weight.copy_(w.view_as(weight))


def _pads(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.padding not in ("valid", (0, 0))


def _cut(model: nn.Module, site: Site, kept: Kept) -> None:
    """Cut the nodes of one layer that no weight reads, everywhere that their values lie."""
    readers = [(name, model.get_submodule(name).get_parameter("weight"), block) for name, block in site.readers]
    read = torch.stack([(w != 0).transpose(0, 1).flatten(1).any(1).view(-1, block).any(1) for _, w, block in readers])
    index = read.any(0).nonzero().flatten()
    if len(index) == site.num_nodes:
        return
    if not len(index):
        index = index.new_zeros(1)
    for name in (site.name, *site.per_channel):
        _narrow(model, name, index, 0, kept)
    for name, _, block in readers:
        columns = (index[:, None] * block + torch.arange(block, device=index.device)).flatten()
        _narrow(model, name, columns, 1, kept)


def _narrow(model: nn.Module, path: str, index: Tensor, dim: int, kept: Kept) -> None:
    """Keep some nodes (dim 0) or inputs (dim 1) of one layer, and note which."""
    module = model.get_submodule(path)
    for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if value.ndim > dim:
            kept.setdefault(f"{path}.{name}", {})[dim] = index
            small = value.index_select(dim, index)
            is_parameter = isinstance(value, nn.Parameter)
            setattr(module, name, nn.Parameter(small, value.requires_grad) if is_parameter else small)
    for name in (("out_features", "out_channels", "num_features"), ("in_features", "in_channels"))[dim]:
        if hasattr(module, name):
            setattr(module, name, len(index))


def _select(value: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    for dim, index in kept.items():
        value = value.index_select(dim, index.to(value.device))
    return value
