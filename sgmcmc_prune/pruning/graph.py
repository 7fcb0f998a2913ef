"""Which nodes of a network could be removed: its layers, found by tracing, and who reads each layer's channels.

A node (neuron or channel) can be removed if everything that its layer's output passes through until the next layers
works channel by channel: normalisation, activation, pooling, dropout, flattening. The output layer's nodes cannot be,
nor those that end in a sum or concatenation: of a residual block the *inner* channels can go. `channels.py` has the
values of one pass, and follows channels further.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from sgmcmc_prune.errors import first_line
from sgmcmc_prune.models.coupling import Coupling, coupling, coupling_of_function, is_weighted
from sgmcmc_prune.models.normalisation import FilterResponseNorm, ThresholdedLinear

#: What only moves values, or averages over places: it leaves a constant as it is.
_MOVING_FUNCTIONS = (
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.transpose, torch.permute),
    *(torch.unflatten, torch.mean, operator.getitem),
)
_MOVING_METHODS = (
    *("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten", "transpose", "permute", "mean"),
    "contiguous",
)
_MOVING_MODULES = (nn.Flatten, nn.Unflatten, nn.Dropout, nn.Identity)
_FLATTEN_METHODS = ("flatten", "view", "reshape")

Values = Mapping[fx.Node, Any]


@dataclass
class Site:
    """One layer of the network, with the normalisation that follows it.

    Attributes
    ----------
    name : str
        Of the layer; empty for a normalisation that follows no layer.
    norm : str
        Of the normalisation; empty where there is none.
    num_nodes : int
        J, outputs or channels.
    first : bool
        Whether the layer reads the network's input.
    per_channel : list of str
        All layers with values of their own for each channel on the way to the readers, the normalisation among them.
    readers : list of (str, int)
        The next layers, and how many of their input columns each channel has (more than one after flattening).
    obstacle : str
        Why its nodes cannot be removed; empty when they can.
    start, gated : fx.Node
        The layer itself, and the node after which a gate stands.
    """

    name: str
    norm: str
    num_nodes: int
    start: fx.Node
    gated: fx.Node
    first: bool = False
    per_channel: list[str] = field(default_factory=list)
    readers: list[tuple[str, int]] = field(default_factory=list)
    obstacle: str = ""


class _Tracer(fx.Tracer):
    """Takes this library's per-channel layers whole, as torch's own, and others that it is told."""

    def __init__(self, whole: tuple[type[nn.Module], ...] = ()) -> None:
        super().__init__()
        self.whole = (FilterResponseNorm, ThresholdedLinear, *whole)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)


def trace(
    model: nn.Module, supported: Sequence[type[nn.Module]] | None = None, whole: tuple[type[nn.Module], ...] = ()
) -> fx.GraphModule:
    """Trace a network symbolically.

    Parameters
    ----------
    model : Module
    supported : sequence of types, optional
        The layers that may hold parameters; a convolution must pad with zeros. Without, any may, anywhere.
    whole : tuple of types
        Modules into which the tracer does not look.

    Raises
    ------
    ValueError
        If its forward depends on values, uses a layer twice, or holds parameters in anything but the supported layers.
    """
    try:
        graph = fx.GraphModule(model, _Tracer(whole).trace(model))
    except Exception as error:  # a user's forward, run with symbols instead of tensors, may raise anything
        raise ValueError(
            f"{type(model).__name__} cannot be traced ({first_line(error)}); its forward must not branch on values"
        ) from error
    _check_shared(model)
    if supported is not None:
        _check_supported(graph, supported)
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    layers = [name for name in called if _is_cut(module := graph.get_submodule(name)) or isinstance(module, whole)]
    for name in layers:
        _check_layer(name, graph.get_submodule(name), once=layers.count(name) == 1)
    for node in graph.graph.nodes:
        if node.op == "get_attr" and str(node.target).rpartition(".")[0] in layers:
            raise ValueError(f"parameter {node.target!r} is used outside its layer, too, so that it cannot be cut")
    return graph


def _check_shared(model: nn.Module) -> None:
    first: dict[int, str] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(p), name) != name:
            raise ValueError(f"{name!r} and {first[id(p)]!r} are one parameter, so that neither can be cut alone")


def _attribute(graph: fx.GraphModule, path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(graph.get_submodule(module), name)


def _check_supported(graph: fx.GraphModule, supported: Sequence[type[nn.Module]]) -> None:
    names = ", ".join(kind.__name__ for kind in supported)
    said = f"supported are {names} (with zero padding), and layers without parameters"
    for node in graph.graph.nodes:
        if node.op == "get_attr" and isinstance(_attribute(graph, node.target), nn.Parameter):
            raise ValueError(f"parameter {node.target!r} is used outside a layer; {said}")
        module = module_of(graph, node)
        if module is None or not any(True for _ in module.parameters()):
            continue
        if not isinstance(module, tuple(supported)) or getattr(module, "padding_mode", "zeros") != "zeros":
            raise ValueError(f"{node.target!r} is a {type(module).__name__}, which cannot be converted; {said}")


def _is_cut(module: nn.Module) -> bool:
    """Whether cutting may change a layer."""
    rule = coupling(module)
    return is_weighted(module) or (rule is not None and rule.own)


def _check_layer(name: str, module: nn.Module, once: bool) -> None:
    if not isinstance(getattr(module, "weight", None), nn.Parameter | None):
        raise ValueError(f"the weight of {name!r} is computed from other parameters, so that it cannot be cut")
    if not once:
        raise ValueError(f"{name!r} is used more than once in the network; give each use a layer of its own")


def find_sites(graph: fx.GraphModule) -> list[Site]:
    """The layers of a traced network, in the order in which they run.

    No values are known: images are taken to have four dimensions, and linear layers' inputs two. Where some are,
    `channels.follow` says more.
    """
    sites: list[Site] = []
    taken: set[str] = set()
    for node in graph.graph.nodes:
        module, name = module_of(graph, node), str(node.target)
        if module is None or name in taken:
            continue
        if is_weighted(module):
            sites.append(_site(graph, node, module))
            taken |= {sites[-1].norm}
        elif isinstance(module, _BatchNorm) and module.affine:
            sites.append(Site("", name, module.num_features, node, node, obstacle="it follows no layer"))
        elif coupling(module) is None and any(p.ndim > 1 for p in module.parameters()):
            reason = f"how layers of type {type(module).__name__} couple channels is not known"
            sites.append(Site(name, "", 0, node, node, obstacle=reason))
    return sites


def _site(graph: fx.GraphModule, node: fx.Node, module: nn.Module) -> Site:
    num_nodes = int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)  # type: ignore[arg-type]
    norm, following = "", _only_reader(node)
    if following is not None and isinstance(found := module_of(graph, following), _BatchNorm) and found.affine:
        norm = str(following.target)
    site = Site(str(node.target), norm, num_nodes, node, node, first=_reads_input(graph, node))
    while (following := _only_reader(site.gated)) is not None and _follow(graph, site, following):
        site.gated = following
    _find_readers(graph, site)
    if getattr(module, "groups", 1) != 1:
        site.obstacle = "it is a grouped convolution"
    return site


def _follow(graph: fx.GraphModule, site: Site, node: fx.Node) -> bool:
    """Whether a node makes each channel out of that channel alone, in a way that needs no values to be sure of."""
    rule, layer = _channelwise(graph, node), module_of(graph, node)
    if rule is None or isinstance(layer, _ConvNd):
        return False
    if isinstance(layer, _BatchNorm) and layer.affine and node.target != site.norm:
        return False
    if rule.own:
        site.per_channel.append(str(node.target))
    return True


def _find_readers(graph: fx.GraphModule, site: Site) -> None:
    """Fill in who reads the channels, or what stands in the way: a reader must find each where it looks for it."""
    pending = _readers(site.gated)
    while pending and not site.obstacle:
        reader = pending.pop()
        layer = module_of(graph, reader)
        rule = coupling(layer) if layer is not None else None
        if layer is not None and rule is not None and rule.mixes:
            columns = rule.matrix(layer).shape[1]
            if columns % site.num_nodes:
                site.obstacle = f"{reader.target!r} reads its nodes in another order, or flattened together with others"
            site.readers.append((str(reader.target), columns // site.num_nodes))
        elif _flattens(graph, reader) or _averages_pixels(reader):
            pending += _readers(reader)
        else:
            site.obstacle = where_it_ends(reader, layer)


def where_it_ends(reader: fx.Node, layer: nn.Module | None) -> str:
    """Say why channels that reach this node, and nothing more is known of it, cannot be cut."""
    if reader.op == "output":
        return "its output goes to 'output', the network's own"
    name = repr(reader.name) if layer is None else f"{str(reader.target)!r}, a {type(layer).__name__}"
    if isinstance(layer, nn.LayerNorm):
        return f"its output goes to {name}, whose statistics are of all channels: a constant one varies behind it"
    return f"its output goes to {name}, which mixes channels or reads them along another dimension"


def moved(graph: fx.GraphModule, node: fx.Node, labels: Tensor, values: Values) -> Tensor:
    """What a node that only moves values makes of labels in the place of its first argument."""
    if node.op == "call_module":
        return graph.get_submodule(str(node.target))(labels)
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    function: Any = getattr(Tensor, str(node.target)) if node.op == "call_method" else node.target
    return function(labels, *args[1:], **kwargs)


def moves(graph: fx.GraphModule, node: fx.Node, values: Values) -> bool:
    """Whether a node only moves values of its first argument, or averages them."""
    tensors = [source for source in node.all_input_nodes if isinstance(values[source], Tensor)]
    if len(tensors) != 1 or not node.args or node.args[0] is not tensors[0]:
        return False
    if node.op == "call_module":
        return isinstance(module_of(graph, node), _MOVING_MODULES)
    return node.target in (_MOVING_METHODS if node.op == "call_method" else _MOVING_FUNCTIONS)


def _reads_input(graph: fx.GraphModule, node: fx.Node) -> bool:
    source = node.args[0]
    while isinstance(source, fx.Node) and (_flattens(graph, source) or _channelwise(graph, source)):
        source = source.all_input_nodes[0]
    return isinstance(source, fx.Node) and source.op == "placeholder"


def module_of(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The layer that a node calls, if it calls one."""
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _readers(node: fx.Node) -> list[fx.Node]:
    """Who uses a value, apart from questions about its shape."""
    return [user for user in node.users if not asks_shape(user)]


def asks_shape(node: fx.Node) -> bool:
    """Whether a node asks a tensor for its sizes alone."""
    by_method = node.op == "call_method" and node.target in ("size", "dim")
    return by_method or (node.op == "call_function" and node.target is getattr and node.args[1] == "shape")


def _only_reader(node: fx.Node) -> fx.Node | None:
    readers = _readers(node)
    return readers[0] if len(readers) == 1 else None


def _channelwise(graph: fx.GraphModule, node: fx.Node) -> Coupling | None:
    """How a node that makes each channel out of that channel alone couples them; None of any other."""
    if len(node.all_input_nodes) != 1:
        return None
    module = module_of(graph, node)
    if module is not None:
        rule = coupling(module)
        return None if rule is None or rule.mixes else rule
    return coupling_of_function(node.target) if node.op in ("call_function", "call_method") else None


def _flattens(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(module_of(graph, node), nn.Flatten)
    if node.op == "call_function":
        return node.target is torch.flatten
    return node.op == "call_method" and node.target in _FLATTEN_METHODS


def _averages_pixels(node: fx.Node) -> bool:
    """Whether a node averages images over height and width."""
    by_name = node.op == "call_method" and node.target == "mean"
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return (by_name or node.target is torch.mean) and dims in ((2, 3), [2, 3], (-2, -1), [-2, -1])
