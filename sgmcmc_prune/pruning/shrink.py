r"""A physically smaller network that computes what the masked one does.

A node (neuron or channel) is *constant* if all weights left to it read constants; it then sends on c = f(b), its bias
b after normalisation and activation, which is seldom zero. What it adds to the next layer, :math:`W_{:,j} c_j`, is

- moved to the next layers' biases, :math:`b \leftarrow b + \sum_j W_{:,j} c_j`, where they have some and pad nothing;
- else carried by one constant node d that stays, :math:`W_{:,d} \leftarrow \sum_j W_{:,j} c_j / c_d`: zeros that a
  convolution pads make the sum depend on the place.

Both are exact. Then nobody reads constant nodes any more, and every node that nobody reads is cut out, from the last
layer to the first. Nodes that are added to each other, as those of a residual stream, go together (`channels.py`), and
so do all of an attention head; what an operation reads whose coupling is not known stays (`models/coupling.py` has
those that are). Units of a recurrent layer go where nobody reads them, or where they are zero at every step
(`models/recurrent.py`).

What a layer normalisation reads stays, too. Of d channels before it, one that is c at every place adds c to their sum
and c^2 to their sum of squares, so that mean m and variance s^2 of the d could be had without it. But behind it that
channel is (c - m) / s, scaled and shifted: it varies, and could go only where nobody reads it. A network would then
hold another kind of layer than it is made with, and could not be read from its file.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from sgmcmc_prune.models.coupling import coupling, is_weighted, layer_of, pads_with_zeros, set_number
from sgmcmc_prune.models.state import copied
from sgmcmc_prune.models.vit import Attention
from sgmcmc_prune.predictive.predict import evaluation_mode
from sgmcmc_prune.pruning import masks
from sgmcmc_prune.pruning.channels import Channels, channels_of, nonzero
from sgmcmc_prune.pruning.graph import module_of

Kept = dict[str, dict[int, Tensor]]
#: By layer, the class of each of its rows or columns.
Classes = Mapping[str, Tensor]
#: Largest difference between the outputs of the masked and the smaller network, relative to their size.
TOLERANCE = 1e-5
#: The same where a network runs in float32 alone, and its sums are rounded, too.
ROUGH_TOLERANCE = 1e-4


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
def shrink(model: nn.Module, mask: Mapping[str, Tensor], example: Tensor, trains: bool = False) -> Shrunk:
    """Cut out what a mask made superfluous.

    Parameters
    ----------
    model : Module
        Left as it is; its forward must be traceable by `torch.fx` (no branching on values).
    mask : mapping of str to bool Tensor
        True = kept.
    example : Tensor, shape (n, ...)
        Some inputs: the constants are computed with it, and the result is checked on it and on others of its kind.
    trains : bool
        Whether the smaller network will be trained on, as the masked one would be. Then no constant node carries the
        constants of others, since it would need weights that are masked; and none goes past a batch normalisation,
        which in training mode computes other statistics of a constant than its running ones. Such nodes stay.

    Returns
    -------
    Shrunk
        Its network gives the masked network's outputs in evaluation mode, to rounding; in training mode, too, if it
        `trains`.

    Raises
    ------
    TypeError, ValueError
        If the mask does not fit, there is no example, the network cannot be copied or traced, has lazy layers, gives
        something else than one tensor, or shares a layer or a parameter that would have to be cut (named), or if the
        smaller network is not the same function.
    """
    _check_given(model, example)
    masked = copied(model)
    masks.apply(mask, dict(masked.named_parameters()))
    folded = copy.deepcopy(masked)
    with evaluation_mode(folded):
        graph, channels = channels_of(folded, example)
        _pass_constants_on(folded, channels, trains)
    shrunk = Shrunk(folded, _cut_classes(folded, channels), _obstacles(graph, channels))
    _check(shrunk.model, masked, example)
    return shrunk


def why_not_shrinkable(model: nn.Module, example: Tensor) -> str:
    """Say why no node can be cut out of a network; empty if nodes can."""
    try:
        shrink(model, {}, example)
    except ValueError as error:
        return str(error)
    return ""


def _check_given(model: object, example: object) -> None:
    """Refuse what is no network, a network without shapes, and what is no example."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; it must be an nn.Module")
    if not isinstance(example, Tensor):
        raise TypeError(f"example is a {type(example).__name__}; it must be a tensor of some inputs")
    if not example.numel():
        raise ValueError(f"example has shape {tuple(example.shape)}; it must hold at least one input")
    if lazy := [n for n, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]:
        raise ValueError(f"{lazy[0]!r} has no shape yet; pass one batch through the network first")


def _check(small: nn.Module, masked: nn.Module, example: Tensor) -> None:
    """Make sure of what tracing cannot see: on several inputs the smaller network gives what the masked one gives.

    Both run on a CPU, in float64 where the network can, so that only the constants are rounded.
    """
    dtype = torch.float64 if example.is_floating_point() and _runs(masked, example, torch.float64) else None
    networks = [_ready(network, dtype) for network in (masked, small)]
    for inputs in _others(example.cpu().to(dtype or example.dtype)):
        if inputs is not example and not _runs(masked, inputs, dtype):
            continue  # numbers that this network does not take
        expected = networks[0](inputs)
        if not isinstance(expected, Tensor):
            raise ValueError(f"the network returns a {type(expected).__name__}; it must return one tensor")
        try:
            error = float((networks[1](inputs) - expected).abs().max())
        except RuntimeError as failure:
            reason = str(failure).splitlines()[0]
            raise ValueError(
                f"{type(small).__name__} cannot run with fewer channels ({reason}); write no sizes into its forward, "
                "as in flatten(1) instead of view(-1, 400)"
            ) from failure
        scale = 1 + float(expected.abs().max())
        # Constants are moved to biases in the network's own type.
        rounding = max((torch.finfo(p.dtype).eps for p in small.parameters() if p.is_floating_point()), default=0.0)
        if not error <= max(TOLERANCE if dtype else ROUGH_TOLERANCE, rounding) * scale:
            raise ValueError(
                f"{type(small).__name__} uses its channels in a way that cannot be followed: cut, its outputs differ "
                f"by {error / scale:.2g} of their size"
            )


def _ready(network: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy on the CPU, in evaluation mode, of a type (None: its own)."""
    return copy.deepcopy(network).cpu().to(dtype=dtype).eval()


def _runs(network: nn.Module, inputs: Tensor, dtype: torch.dtype | None) -> bool:
    """Whether a network takes some inputs in a type."""
    try:
        _ready(network, dtype)(inputs.cpu().to(dtype or inputs.dtype))
    except Exception:  # a user's forward may raise anything
        return False
    return True


def _others(example: Tensor) -> list[Tensor]:
    """The example, its entries in other places, and (where they are no whole numbers) noise of their size."""
    g, flat = torch.Generator().manual_seed(0), example.flatten()
    found = [example, *(flat[torch.randint(len(flat), flat.shape, generator=g)].view_as(example) for _ in range(2))]
    if example.is_floating_point():
        noise = torch.randn(example.shape, generator=g, dtype=example.dtype)
        found.append(noise * (1 + example.std(correction=0)) + example.mean())
    return found


def _pass_constants_on(model: nn.Module, channels: Channels, trains: bool) -> None:
    """Let every layer get what constant channels send without reading them, or by reading only one of them."""
    stay, normed = channels.pinned_roots(), set(channels.roots(torch.tensor(sorted(channels.normed))).tolist())
    fixed = {}
    for name, constants in channels.constants.items():
        roots = channels.roots(channels.columns[name])
        left = [root in stay or (trains and root in normed) for root in roots.tolist()]
        fixed[name] = ~constants.isnan() & ~torch.tensor(left, device=constants.device)
    smallest = _smallest(model, channels, fixed)
    for name, columns in fixed.items():
        weight, sent = _matrix(model, name), channels.constants[name].nan_to_num().where(columns, 0)
        moved = (weight * sent.to(weight).view(1, -1, *[1] * (weight.ndim - 2))).sum(1)
        if (bias := _bias_to_add_to(model, name)) is not None:
            bias.add_(moved.reshape(len(weight), -1).sum(1))
        elif bool(sent.any()):
            if trains:
                columns = columns & (sent == 0)
            else:
                carrier = _carrier(sent, channels.roots(channels.columns[name]), smallest)
                columns = columns.clone()
                columns[carrier] = False
                weight[:, carrier] = moved / sent[carrier]
        weight.masked_fill_(columns.to(weight.device).view(1, -1, *[1] * (weight.ndim - 2)), 0)


def _smallest(model: nn.Module, channels: Channels, fixed: Mapping[str, Tensor]) -> dict[int, float]:
    """Of each class the smallest size of what it sends to layers that need a carrier."""
    found: dict[int, float] = {}
    for name, columns in fixed.items():
        if _bias_to_add_to(model, name) is None:
            sent = channels.constants[name].abs()[columns].tolist()
            for root, size in zip(channels.roots(channels.columns[name][columns.cpu()]).tolist(), sent, strict=True):
                found[root] = min(size, found.get(root, size))
    return found


def _carrier(sent: Tensor, roots: Tensor, smallest: Mapping[int, float]) -> int:
    """The column that carries the others' constants: one that can do so for all layers, if there is any."""
    common = torch.tensor([smallest.get(root, 0.0) for root in roots.tolist()], device=sent.device).where(
        sent != 0, 0.0
    )
    return int((common if bool(common.any()) else sent.abs()).argmax())


def _bias_to_add_to(model: nn.Module, name: str) -> Tensor | None:
    """The bias of a layer, if what a constant channel adds to the layer is one number for each of its nodes."""
    _, layer, rule = layer_of(model, name)
    return None if pads_with_zeros(layer) else rule.bias(layer)


def _matrix(model: nn.Module, name: str) -> Tensor:
    """A view of a mixing layer's weight, of shape (made, read, ...)."""
    _, layer, rule = layer_of(model, name)
    return rule.matrix(layer)


def _cut_classes(model: nn.Module, channels: Channels) -> Kept:
    """Cut the classes of channels that no weight reads, everywhere that their values lie."""
    rows, own, columns = ({n: channels.roots(c) for n, c in part.items()} for part in channels.parts())
    removed = _unread(model, channels, rows, columns)
    kept: Kept = {}
    for part, made in ((rows, True), (own, True), (columns, False)):
        for name, roots in part.items():
            stays = torch.tensor([root not in removed for root in roots.tolist()])
            if not bool(stays.all()):
                _narrow(model, name, stays.nonzero().flatten(), kept, made)
    return kept


def _unread(model: nn.Module, channels: Channels, rows: Classes, columns: Classes) -> set[int]:
    """Classes that nothing which stays reads, from the outputs back: some that only read one another are among them."""
    weights = {name: nonzero(_matrix(model, name)).cpu() for name in rows}
    stay = new = set(channels.pinned_roots())
    while new:
        read = set[int]()
        for name, roots in columns.items():
            read |= set(roots[weights[name][_are_in(rows[name], new)].any(0)].tolist())
        new = read - stay
        stay = stay | new
    while (needed := _needed(channels, rows, stay)) is not None:  # what it reads may go: nobody reads it
        stay.add(needed)
    return {root for roots in rows.values() for root in roots.tolist()} - stay


def _needed(channels: Channels, rows: Classes, stay: set[int]) -> int | None:
    """A class that has to stay for a layer's shape: none is empty, and a recurrent one is as wide at every depth."""
    for roots in rows.values():
        if stay.isdisjoint(roots.tolist()):
            return int(roots[0])
    for alike in channels.alike.values():
        there = [_are_in(channels.roots(units), stay) for units in alike]
        most = max(int(found.sum()) for found in there)
        for units, found in zip(alike, there, strict=True):
            if int(found.sum()) < most:
                return channels.root(int(units[~found][0]))
    return None


def _are_in(roots: Tensor, some: set[int]) -> Tensor:
    return torch.tensor([root in some for root in roots.tolist()])


def _obstacles(graph: fx.GraphModule, channels: Channels) -> dict[str, str]:
    """The layers none of whose nodes can go, and why."""
    stay, found = channels.pinned_roots(), dict[str, str]()
    for name, rows in channels.rows.items():
        reasons = [stay.get(root, "") for root in channels.roots(rows).tolist()]
        if all(reasons):
            found.setdefault(layer_of(graph, name)[0], reasons[0])
    for node in graph.graph.nodes:
        layer = module_of(graph, node)
        if layer is None or is_weighted(layer) or isinstance(layer, Attention) or coupling(layer) is not None:
            continue
        name = str(node.target)
        if name not in channels.alike and any(p.ndim > 1 for p in layer.parameters()):
            unknown = f"how layers of type {type(layer).__name__} couple channels is not known"
            found[name] = channels.whole.get(name, unknown)
    return found


def _narrow(model: nn.Module, layer: str, index: Tensor, kept: Kept, made: bool) -> None:
    """Keep some of the channels that one layer makes, or that it reads, and note which."""
    path, module, rule = layer_of(model, layer)
    for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if value.ndim < (1 if made else 2) or not name.endswith(rule.suffix):
            continue
        dim = 0 if value.ndim == 1 else rule.outputs if made else rule.inputs
        kept.setdefault(f"{path}.{name}", {})[dim] = index.to(value.device)
        small = value.index_select(dim, index.to(value.device))
        is_parameter = isinstance(value, nn.Parameter)
        setattr(module, name, nn.Parameter(small, value.requires_grad) if is_parameter else small)
    set_number(module, rule.made if made else rule.read, len(index))


def _select(value: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    for dim, index in kept.items():
        value = value.index_select(dim, index.to(value.device))
    return value
