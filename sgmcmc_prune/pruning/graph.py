"""Which nodes of a network could be removed: its layers, found by tracing, and who reads each layer's channels.

A node (neuron or channel) can be removed if everything that its layer's output passes through until the next layers
works channel by channel: normalisation, activation, pooling, dropout, flattening. The output layer's nodes cannot be,
nor those that end in a sum or concatenation: of a residual block the *inner* channels can go, the residual stream
stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sgmcmc_prune.models.normalisation import FilterResponseNorm, ThresholdedLinear

#: Layers with parameters of their own for each channel, besides batch normalisation.
_PER_CHANNEL = (FilterResponseNorm, ThresholdedLinear)
_CHANNELWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Dropout2d, nn.Identity),
)
_CHANNELWISE_FUNCTIONS = (
    *(
        torch.relu,
        torch.tanh,
        torch.sigmoid,
        F.relu,
        F.leaky_relu,
        F.elu,
        F.gelu,
        F.silu,
        F.tanh,
        F.sigmoid,
        F.softplus,
    ),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.dropout, F.dropout2d),
)
_CHANNELWISE_METHODS = ("relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "contiguous")
_FLATTEN_METHODS = ("flatten", "view", "reshape")


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
    """Takes this library's per-channel layers whole, as torch's own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _PER_CHANNEL) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module, supported: Sequence[type[nn.Module]]) -> fx.GraphModule:
    """Trace a network symbolically.

    Parameters
    ----------
    model : Module
    supported : sequence of types
        The layers that may hold parameters. A convolution must pad with zeros.

    Raises
    ------
    ValueError
        If its forward depends on values, uses a layer twice, or holds parameters in anything but the supported layers.
    """
    try:
        graph = fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # a user's forward, run with symbols instead of tensors, may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{type(model).__name__} cannot be traced ({reason}); its forward must not branch on values"
        ) from error
    _check_shared(model)
    seen: set[str] = set()
    for node in graph.graph.nodes:
        if node.op == "get_attr" and isinstance(_attribute(graph, node.target), nn.Parameter):
            raise ValueError(f"parameter {node.target!r} is used outside a layer; {_said(supported)}")
        if node.op == "call_module":
            _check_module(node.target, graph.get_submodule(node.target), supported, seen)
    return graph


def _check_shared(model: nn.Module) -> None:
    first: dict[int, str] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(p), name) != name:
            raise ValueError(f"{name!r} and {first[id(p)]!r} are one parameter, so that neither can be cut alone")


def _attribute(graph: fx.GraphModule, path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(graph.get_submodule(module), name)


def _check_module(name: str, module: nn.Module, supported: Sequence[type[nn.Module]], seen: set[str]) -> None:
    if not any(True for _ in module.parameters()):
        return
    if not isinstance(module, tuple(supported)) or getattr(module, "padding_mode", "zeros") != "zeros":
        raise ValueError(f"{name!r} is a {type(module).__name__}, which cannot be converted; {_said(supported)}")
    if not isinstance(getattr(module, "weight", None), nn.Parameter | None):
        raise ValueError(f"the weight of {name!r} is computed from other parameters, so that it cannot be cut")
    if name in seen:
        raise ValueError(f"{name!r} is used more than once in the network; give each use a layer of its own")
    seen.add(name)


def _said(supported: Sequence[type[nn.Module]]) -> str:
    names = ", ".join(kind.__name__ for kind in supported)
    return f"supported are {names} (with zero padding), and layers without parameters"


def find_sites(graph: fx.GraphModule) -> list[Site]:
    """The layers of a traced network, in the order in which they run."""
    sites: list[Site] = []
    taken: set[str] = set()
    for node in graph.graph.nodes:
        module = _module(graph, node)
        if isinstance(module, nn.Linear | nn.Conv2d):
            sites.append(_site(graph, node, module))
            taken.add(sites[-1].norm)
        elif isinstance(module, _BatchNorm) and module.affine and node.target not in taken:
            alone = Site("", node.target, module.num_features, node, node, obstacle="it follows no layer")
            sites.append(alone)
    return sites


def _site(graph: fx.GraphModule, node: fx.Node, module: nn.Linear | nn.Conv2d) -> Site:
    num_nodes = module.weight.shape[0]
    end, norm = node, ""
    following = _only_reader(end)
    if following is not None and isinstance(found := _module(graph, following), _BatchNorm) and found.affine:
        end, norm = following, str(following.target)
    site = Site(str(node.target), norm, num_nodes, node, end, first=_reads_input(graph, node))
    site.per_channel += filter(None, [norm])
    while (following := _only_reader(site.gated)) is not None and _channelwise(graph, following):
        site.gated = following
        if isinstance(_module(graph, following), (_BatchNorm, *_PER_CHANNEL)):
            site.per_channel.append(str(following.target))
    _find_readers(graph, site, module)
    return site


def _find_readers(graph: fx.GraphModule, site: Site, module: nn.Module) -> None:
    """Fill in who reads the channels, or what stands in the way."""
    pending = _readers(site.gated)
    while pending and not site.obstacle:
        reader = pending.pop()
        layer = _module(graph, reader)
        if _flattens(graph, reader) or _averages_pixels(reader):
            pending += _readers(reader)
        elif isinstance(layer, nn.Linear | nn.Conv2d) and getattr(layer, "groups", 1) == 1:
            columns = layer.weight.shape[1]
            if columns % site.num_nodes:
                site.obstacle = f"{reader.target!r} reads its channels in another shape"
            site.readers.append((str(reader.target), columns // site.num_nodes))
        else:
            site.obstacle = f"its output goes to {reader.name!r}, which mixes channels or is the network's output"
    if getattr(module, "groups", 1) != 1:
        site.obstacle = "it is a grouped convolution"


def _reads_input(graph: fx.GraphModule, node: fx.Node) -> bool:
    source = node.args[0]
    while isinstance(source, fx.Node) and (_flattens(graph, source) or _channelwise(graph, source)):
        source = source.args[0]
    return isinstance(source, fx.Node) and source.op == "placeholder"


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _readers(node: fx.Node) -> list[fx.Node]:
    """Who uses a value, apart from questions about its shape."""
    return [user for user in node.users if not _asks_shape(user)]


def _asks_shape(node: fx.Node) -> bool:
    by_method = node.op == "call_method" and node.target in ("size", "dim")
    return by_method or (node.op == "call_function" and node.target is getattr and node.args[1] == "shape")


def _only_reader(node: fx.Node) -> fx.Node | None:
    readers = _readers(node)
    return readers[0] if len(readers) == 1 else None


def _channelwise(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = _module(graph, node)
        bare_norm = isinstance(module, _BatchNorm) and not module.affine
        return bare_norm or isinstance(module, (*_CHANNELWISE_MODULES, *_PER_CHANNEL))
    if node.op == "call_function":
        return any(node.target is function for function in _CHANNELWISE_FUNCTIONS)
    return node.op == "call_method" and node.target in _CHANNELWISE_METHODS


def _flattens(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(_module(graph, node), nn.Flatten)
    if node.op == "call_function":
        return node.target is torch.flatten
    return node.op == "call_method" and node.target in _FLATTEN_METHODS


def _averages_pixels(node: fx.Node) -> bool:
    """Whether a node averages images over height and width."""
    by_name = node.op == "call_method" and node.target == "mean"
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return (by_name or node.target is torch.mean) and dims in ((2, 3), [2, 3], (-2, -1), [-2, -1])
