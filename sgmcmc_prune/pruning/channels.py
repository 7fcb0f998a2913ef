"""Which channels of a network stand or fall together, who reads each, and which are constant.

Every row of a layer's weight makes one channel. Channels are followed through a traced network with the values of one
pass, as labels in the place of the values: operations that move values move labels, too. Where two tensors are summed
or multiplied, the channels that meet are one *class*: all rows that make it, all normalisation values on its way, and
all columns that read it are cut together or not at all. A concatenation puts channels side by side. What reaches an
operation whose coupling is not known (`models/coupling.py` has those that are) is pinned: it stays.

A channel *varies* with the network's input unless all that it is made of is constant: rows of zeros, or weights that
read constants alone. A unit of a recurrent layer begins at zero, and a constant one would change from step to step: it
varies unless it is zero at every step (`models/recurrent.py`).
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from sgmcmc_prune.errors import first_line
from sgmcmc_prune.models.coupling import Coupling, coupling, coupling_of_function, is_weighted, layer_of
from sgmcmc_prune.models.recurrent import directions, has_computed_weights, num_gates, zero_units
from sgmcmc_prune.models.vit import Attention
from sgmcmc_prune.pruning.graph import Values, asks_shape, module_of, moved, moves, trace, where_it_ends

#: What makes each channel of one tensor out of that channel of all tensors.
_MEETING = (
    *(torch.add, torch.sub, torch.mul, operator.add, operator.sub, operator.mul, operator.iadd, operator.imul),
    *("add", "add_", "sub", "sub_", "mul", "mul_"),
)
_CONCATENATING = (torch.cat, torch.concat, torch.concatenate)
#: The channel of everything that is no layer's: inputs, parameters outside layers, outputs of unknown operations.
FOREIGN = 0
#: Labels differ by more where they are not the same.
_CLOSE = 1e-12


@dataclass
class Followed:
    """A tensor of the network: of which channel each of its values is (by label), and whether it varies (> 0)."""

    labels: Tensor
    varies: Tensor


#: What a node gives: a tensor, or of a recurrent layer a pair, whose second may be a pair.
Given = Followed | tuple[Any, ...]


@dataclass
class Channels:
    """All channels of a network, by number; `FOREIGN` is none of a layer's.

    Attributes
    ----------
    tags : Tensor
        The label of each channel: ascending, at random, so that no average of some is the label of another.
    parent : list of int
        Channels of one class lead to the same root.
    pinned : dict of int to str
        Channels that must stay, and why.
    rows, own, columns : dict of str to int Tensor
        By layer (of a recurrent one by part, as "rnn.hh_l0"), the channels that its rows make, that it has a value of
        its own for, and that its columns read.
    constants : dict of str to Tensor
        By layer, what each column reads if that is the same for every input at every place; NaN elsewhere.
    normed : set of int
        Channels that go through a batch normalisation.
    alike : dict of str to list of int Tensor
        By recurrent layer, the units of each of its depths and directions, of which as many must stay.
    whole : dict of str to str
        Recurrent layers that are not followed, and why.
    """

    tags: Tensor
    parent: list[int]
    pinned: dict[int, str] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    normed: set[int] = field(default_factory=set)
    alike: dict[str, list[Tensor]] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)

    def root(self, channel: int) -> int:
        """The number of a channel's class."""
        while self.parent[channel] != channel:
            channel = self.parent[channel]
        return channel

    def roots(self, channels: Tensor) -> Tensor:
        """The numbers of their classes."""
        return torch.tensor([self.root(c) for c in channels.tolist()], dtype=torch.long)

    def pinned_roots(self) -> dict[int, str]:
        """The classes that must stay, and why."""
        found = {self.root(channel): why for channel, why in reversed(self.pinned.items())}
        return found | {self.root(FOREIGN): "no layer's"}

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Rows, own values and columns."""
        return self.rows, self.own, self.columns

    def unite(self, rows: Tensor) -> None:
        """Let the channels of each row be of one class."""
        for first, *others in rows.tolist():
            for channel in others:
                self.join(first, channel)

    def join(self, first: int, second: int) -> None:
        """Let two channels be of one class."""
        self.parent[self.root(first)] = self.root(second)

    def pin(self, labels: Tensor, why: str) -> None:
        """Let the channels of some labels stay; the first reason counts."""
        for channel in self.numbers(labels).unique().tolist():
            self.pinned.setdefault(channel, why)

    def numbers(self, labels: Tensor) -> Tensor:
        """Channels by their labels; -1 for what is none."""
        at = torch.bucketize(labels.contiguous(), (self.tags[1:] + self.tags[:-1]) / 2)
        return at.masked_fill((self.tags[at] - labels).abs() > _CLOSE, -1)


def channels_of(model: nn.Module, example: Tensor) -> tuple[fx.GraphModule, Channels]:
    """Trace a network that is in evaluation mode, and follow its channels in one pass over a few different inputs.

    Raises
    ------
    ValueError
        If it cannot be traced, or fails on such inputs.
    """
    graph = trace(model, whole=(Attention,))
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)
    try:
        interpreter.run(example)
    except Exception as error:  # a user's forward may raise anything
        raise ValueError(
            f"{type(model).__name__} fails on inputs of shape {tuple(example.shape)}: {first_line(error)}"
        ) from error
    return graph, follow(graph, interpreter.env)


def follow(graph: fx.GraphModule, values: Values) -> Channels:
    """Follow the channels of a traced network.

    Parameters
    ----------
    graph : GraphModule
    values : mapping of Node to value
        Of one pass over a few different inputs, in evaluation mode.
    """
    nodes = list(graph.graph.nodes)
    count = 1 + sum(_num_nodes(module) for node in nodes if (module := module_of(graph, node)) is not None)
    tags = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort().values
    walk = _Walk(graph, values, Channels(tags, list(range(count))))
    for node in nodes:
        walk.step(node)
    return walk.channels


def nonzero(matrix: Tensor) -> Tensor:
    """Which rows of a weight of shape (made, read, ...) read which columns."""
    return (matrix != 0).reshape(*matrix.shape[:2], -1).any(2)


def _num_nodes(module: nn.Module) -> int:
    """How many channels a module makes by weights."""
    if isinstance(module, Attention):
        return _num_nodes(module.qkv) + _num_nodes(module.proj)
    if isinstance(module, nn.RNNBase):
        return module.hidden_size * sum(map(len, directions(module)))
    if not is_weighted(module):
        return 0
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)  # type: ignore[arg-type]


def _tensors(given: Given) -> list[Followed]:
    """All that a node gives."""
    return [given] if isinstance(given, Followed) else [found for part in given for found in _tensors(part)]


class _Walk:
    """Goes through the nodes in their order."""

    def __init__(self, graph: fx.GraphModule, values: Values, channels: Channels) -> None:
        self.graph, self.values, self.channels = graph, values, channels
        self.followed: dict[fx.Node, Given] = {}
        self.made = 1

    def step(self, node: fx.Node) -> None:
        """Find the channels of one node's value; an unknown operation makes foreign ones, and pins what it reads."""
        if asks_shape(node):
            return
        value, found = self.values[node], self._given(node)
        if found is None or (isinstance(found, Followed) and found.labels.shape != value.shape):
            # Another shape: of a tensor that is concatenated twice.
            why = self.channels.whole.get(str(node.target)) or where_it_ends(node, module_of(self.graph, node))
            self._pin_inputs(node, why)
            found = self._foreign(value) if isinstance(value, Tensor) else None
        if found is not None:
            self.followed[node] = found

    def _given(self, node: fx.Node) -> Given | None:
        """What it gives, where the operation is known; parts of what a recurrent layer gives are taken one by one."""
        layer = module_of(self.graph, node)
        if isinstance(layer, nn.RNNBase):
            return self._recurrent(node, layer)
        given = self.followed.get(node.all_input_nodes[0]) if node.target is operator.getitem else None
        if isinstance(given, tuple):
            part: Any = node.args[1]
            return cast(Given, given[part])
        return self._known(node) if isinstance(self.values[node], Tensor) and node.op != "output" else None

    def _known(self, node: fx.Node) -> Followed | None:
        """Its channels, where the operation is known."""
        if node.op in ("placeholder", "get_attr"):
            return self._foreign(self.values[node])
        inputs = [f for n in node.all_input_nodes if isinstance(f := self.followed.get(n), Followed)]
        if len(inputs) != len([n for n in node.all_input_nodes if isinstance(self.values[n], Tensor)]) or not inputs:
            return None
        module = module_of(self.graph, node)
        rule = coupling_of_function(node.target) if module is None else coupling(module)
        if len(inputs) > 1:
            return self._several(node, inputs)
        if isinstance(module, Attention):
            return self._attended(node, module, inputs[0])
        if module is not None and rule is not None and rule.mixes:
            made, varies = self._mixed(str(node.target), module, inputs[0], self.values[node.all_input_nodes[0]])
            return self._laid(self.values[node].shape, rule, made, varies)
        if moves(self.graph, node, self.values):
            return self._moved(node, inputs[0])
        if rule is not None and node.op != "get_attr":
            return self._channelwise(node, module, rule, inputs[0])
        return None

    def _foreign(self, value: Tensor) -> Followed:
        labels = self.channels.tags[FOREIGN].expand(value.shape).contiguous()
        return Followed(labels, torch.ones(value.shape, dtype=torch.float64))

    def _pin_inputs(self, node: fx.Node, why: str) -> None:
        for source in node.all_input_nodes:
            for found in _tensors(self.followed.get(source, ())):
                self.channels.pin(found.labels, why)

    def _line(self, found: Followed, rule: Coupling) -> tuple[Tensor, Tensor] | None:
        """Channel and variation at each place where a layer looks for channels; None if they do not lie so."""
        labels = found.labels
        if rule.axis is None or labels.ndim < 2 or (rule.ndims and labels.ndim not in rule.ndims):
            return None
        lines = labels.movedim(rule.axis, 0).flatten(1)
        numbers = self.channels.numbers(lines[:, 0])
        if not bool(((lines - lines[:, :1]).abs() <= _CLOSE).all()) or bool((numbers < 0).any()):
            return None
        return numbers, found.varies.movedim(rule.axis, 0).flatten(1).amax(1)

    def _laid(self, shape: torch.Size, rule: Coupling, numbers: Tensor, varies: Tensor) -> Followed:
        places = [1] * len(shape)
        places[rule.axis if rule.axis is not None else -1] = len(numbers)
        lines = (line.view(places).expand(shape).contiguous() for line in (self.channels.tags[numbers], varies))
        return Followed(*lines)

    def _mixed(self, name: str, layer: nn.Module, found: Followed, value: Tensor) -> tuple[Tensor, Tensor]:
        """The channels that a layer makes that reads all channels for each of them, and which of them vary."""
        rule = coupling(layer)
        assert rule is not None
        weight, varies = rule.matrix(layer).detach().cpu(), self._read(name, found, value)
        self.channels.rows[name] = made = self._new(len(weight))
        return made, (nonzero(weight).double() * varies).amax(1)

    def _new(self, count: int) -> Tensor:
        """The numbers of so many channels that are made."""
        self.made += count
        return torch.arange(self.made - count, self.made)

    def _read(self, name: str, found: Followed, value: Tensor) -> Tensor:
        """Note which channels the columns of a layer (or a part of one) read; return which columns vary."""
        _, layer, rule = layer_of(self.graph, name)
        size, line = rule.matrix(layer).shape[1], self._line(found, rule)
        if line is None or len(line[0]) != size or not self._in_order(line[0]):
            why = f"{name!r} reads its nodes in another order, or flattened together with others"
            self.channels.pin(found.labels, why)
            return torch.ones(size, dtype=torch.float64)
        self.channels.columns[name], varies = line
        self.channels.constants[name] = self._constants(value, rule, varies)
        return varies

    def _recurrent(self, node: fx.Node, layer: nn.RNNBase) -> Given | None:
        """The units of a recurrent layer, which are its states at every step and its last ones; None: it stays."""
        name = str(node.target)
        if why := self._why_whole(node, layer):
            self.channels.whole[name] = f"{name!r} ({type(layer).__name__}) stays as it is: {why}"
            return None
        source = node.all_input_nodes[0]
        found, value = self.followed[source], self.values[source]
        output, last = self.values[node]
        assert isinstance(found, Followed)
        lines = list[tuple[Tensor, Tensor]]()
        for ends in directions(layer):
            lines += (made := [self._cell(name, layer, end, found, value) for end in ends])
            numbers, varies = (torch.cat(parts) for parts in zip(*made, strict=True))
            found = self._laid(output.shape, Coupling(axis=-1), numbers, varies)
            value = torch.zeros_like(output)  # what it is where it does not vary
        numbers, varies = (torch.stack(parts) for parts in zip(*lines, strict=True))
        self.channels.alike[name] = list(numbers)
        shape = (last if isinstance(last, Tensor) else last[0]).shape
        places = (len(numbers), *[1] * (len(shape) - 2), layer.hidden_size)
        states = Followed(*(line.view(places).expand(shape) for line in (self.channels.tags[numbers], varies)))
        return found, (states if isinstance(last, Tensor) else (states, states))

    def _cell(self, name: str, layer: nn.RNNBase, end: str, found: Followed, value: Tensor) -> tuple[Tensor, Tensor]:
        """The units of one depth and direction, and which of them vary."""
        channels, reads, states = self.channels, f"{name}.ih_{end}", f"{name}.hh_{end}"
        varies = self._read(reads, found, value)
        inputs = channels.constants.get(reads, torch.full_like(varies, torch.nan))
        zero, units = zero_units(layer, end, inputs), self._new(layer.hidden_size)
        channels.rows |= dict.fromkeys((reads, states), units.repeat(num_gates(layer)))
        channels.columns[states] = units
        channels.constants[states] = torch.zeros(len(units)).where(zero, torch.nan).to(value)
        return units, (~zero).double()

    def _why_whole(self, node: fx.Node, layer: nn.RNNBase) -> str:
        """Say why a recurrent layer is not followed; empty if it is."""
        name, sources = str(node.target), node.all_input_nodes
        named = [str(n.target) for n in self.graph.graph.nodes if n.op in ("call_module", "get_attr")]
        if len([target for target in named if f"{target}.".startswith(f"{name}.")]) > 1:
            return "it, or a weight of it, is used in several places"
        if len(sources) != 1 or not isinstance(self.followed.get(sources[0]), Followed):
            return "it is given its first state, or something else than one tensor"
        if has_computed_weights(layer):
            return "a weight of it is computed from other parameters"
        return "it gives projections of its states (proj_size)" if layer.proj_size else ""

    def _attended(self, node: fx.Node, layer: Attention, found: Followed) -> Followed | None:
        """Queries, keys and values of each head, and a projection of what the heads give.

        The channels of a head are one class. It gives weighted means of its values over the tokens: of one that is the
        same at every token, for every input, that value itself.
        """
        name, rule, value = str(node.target), coupling(layer.proj), self.values[node.all_input_nodes[0]]
        assert rule is not None
        made, varies = self._mixed(f"{name}.qkv", layer.qkv, found, value)
        self.channels.unite(made.view(3, -1, layer.head_size).transpose(0, 1).flatten(1))
        values = layer.qkv(value).chunk(3, -1)[2]
        numbers, varies = made.chunk(3)[2], varies.chunk(3)[2]
        varies = self._constants(values, rule, varies).isnan().cpu().double()
        given = Followed(*(line.expand(values.shape).contiguous() for line in (self.channels.tags[numbers], varies)))
        return self._laid(self.values[node].shape, rule, *self._mixed(f"{name}.proj", layer.proj, given, values))

    def _in_order(self, numbers: Tensor) -> bool:
        """Whether the nodes of each layer lie in its order, each at several places side by side or all place by place.

        Another order was made by sizes that the network's forward holds, and that would be others in a smaller one.
        """
        for rows in self.channels.rows.values():
            own = numbers[torch.isin(numbers, rows)]
            apart = own.unique()
            by_place = len(apart) > 0 and len(own) % len(apart) == 0 and bool((own.view(-1, len(apart)) == apart).all())
            if len(own) and not by_place and not torch.equal(own, own.sort().values):
                return False
        return True

    def _constants(self, value: Tensor, rule: Coupling, varies: Tensor) -> Tensor:
        """What does not vary, and is the same at every place, where padding may have made a difference."""
        assert rule.axis is not None
        places = value.detach().movedim(rule.axis, 0).flatten(1)
        low, high = places.amin(1), places.amax(1)
        rounding = 100 * torch.finfo(low.dtype).eps
        same = torch.isclose(low, high, rtol=rounding, atol=rounding / 100)
        return low.where(same & (varies == 0).to(low.device), torch.nan)

    def _channelwise(self, node: fx.Node, layer: nn.Module | None, rule: Coupling, found: Followed) -> Followed | None:
        """A layer or function that makes each channel out of that channel alone."""
        if rule.axis is None and not rule.own:
            return found if found.labels.shape == self.values[node].shape else None
        line = self._line(found, rule)
        if line is None:
            return None
        numbers, varies = line
        if rule.groups:
            varies = self._together(numbers, varies, rule.groups)
        if rule.own and layer is not None:
            self.channels.own[str(node.target)] = numbers
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.ndim > 1:  # a depthwise convolution
                varies = varies * (weight.detach().cpu() != 0).flatten(1).any(1)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            self.channels.normed |= set(numbers.tolist())
        return self._laid(self.values[node].shape, rule, numbers, varies)

    def _together(self, numbers: Tensor, varies: Tensor, groups: int) -> Tensor:
        """Channels that are normalised by common statistics: they are one class, and vary if one of them does."""
        self.channels.unite(numbers.view(groups, -1))
        return varies.view(groups, -1).amax(1, keepdim=True).expand(groups, len(varies) // groups).flatten()

    def _moved(self, node: fx.Node, found: Followed) -> Followed | None:
        """An operation that only moves values, or averages over places."""
        labels, varies = (moved(self.graph, node, x, self.values) for x in (found.labels, found.varies))
        before, after = (self.channels.numbers(x.flatten()).unique() for x in (found.labels, labels))
        # An average over channels is no channel, and a part of them was chosen by sizes in the network's forward.
        whole = torch.equal(before, after) or self._picks_layers(node, found.labels)
        return Followed(labels, varies) if whole else None

    def _picks_layers(self, node: fx.Node, labels: Tensor) -> bool:
        """Whether a node takes a part along dimensions alone that hold no two channels of a layer, as depth does."""
        if node.target is not operator.getitem:
            return False
        index: Any = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
        numbers = self.channels.numbers(labels)
        if not all(isinstance(part, int | slice) for part in index) or bool((numbers < 0).any()):
            return False
        layers = torch.full((len(self.channels.tags),), -1)
        for layer, rows in enumerate(self.channels.rows.values()):
            layers[rows] = layer
        chosen = [dim for dim, part in enumerate(index) if part != slice(None)]
        lines = (layers[numbers].movedim(dim, 0).sort(0).values for dim in chosen)
        return all(bool((line.diff(dim=0) != 0).all()) for line in lines)

    def _several(self, node: fx.Node, inputs: Sequence[Followed]) -> Followed | None:
        if node.target in _CONCATENATING:
            dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
            return Followed(torch.cat([f.labels for f in inputs], dim), torch.cat([f.varies for f in inputs], dim))
        if node.target not in _MEETING or len(node.args) != 2 or node.kwargs:
            return None
        return self._meeting(self.values[node].shape, inputs)

    def _meeting(self, shape: torch.Size, inputs: Sequence[Followed]) -> Followed | None:
        """Two tensors, value by value: the channels that meet are one class."""
        first, second = (self.channels.numbers(f.labels.expand(shape).flatten()) for f in inputs)
        if bool((first == FOREIGN).any()) or bool((second == FOREIGN).any()):
            return None
        count = len(self.channels.tags)
        for pair in (first * count + second).unique().tolist():
            self.channels.join(*divmod(pair, count))
        varies = inputs[0].varies.expand(shape) + inputs[1].varies.expand(shape)
        return Followed(inputs[0].labels.expand(shape).contiguous(), varies)
