r"""A chain goes on in a smaller network, and its draws are put back where they were.

A mask that empties nodes leaves two kinds of weights that go on moving: those into a node that nobody reads, which do
nothing, and those out of a node that reads nothing, which together are one more bias of the next layer. `cut` *closes*
the mask: it takes them, too, and the biases and scales of such nodes, after what a node without inputs sent on has been
moved to the next layers' biases. The network's function is the same at that moment, and the target has changed, as it
does whenever a mask grows: the running averages restart. From then on the chain under the closed mask and the chain on
the cut network are one chain. With P the positions of the weights that stay,

    w_small(t) = w_large(t)[P]        for every step t: the same minibatches, and xi_small = xi_large[P].

So the noise of a kept weight is the number that it has in the masked chain, at every temperature. It is made at full
size and picked, which costs what it costs the masked chain; gradients, prior and EM cost what the small network does.

Sampler state, prior, EM statistics and masks are cut. The running averages stay with the large chain, which sees every
draw at full shape: averages, stores, probes and evaluation know nothing of the cut.

Where a constant cannot be moved exactly (the next layer pads, has no bias, or a batch normalisation stands between) the
node stays; `stays` says so.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sgmcmc_prune.chains.chain import Chain
from sgmcmc_prune.chains.forward import minibatch_nll
from sgmcmc_prune.chains.rehearsal import ROUNDING, relative
from sgmcmc_prune.chains.schedules import Plan
from sgmcmc_prune.models.coupling import coupling_of_tensor, set_sizes
from sgmcmc_prune.models.recurrent import num_gates
from sgmcmc_prune.models.state import load_network_state, network_state
from sgmcmc_prune.priors.base import Prior
from sgmcmc_prune.priors.em import EM, ScaleEM
from sgmcmc_prune.priors.spike_slab import SpikeSlab
from sgmcmc_prune.pruning.prunable import prunable, trainable
from sgmcmc_prune.pruning.shrink import Shrunk, shrink
from sgmcmc_prune.samplers import Sampler

#: By the name of a parameter or buffer that is smaller now, where each of its entries was, counted along the whole.
Positions = dict[str, Tensor]


class Place(NamedTuple):
    """Where the entries of a tensor were, counted along a whole of this shape."""

    positions: Tensor
    shape: tuple[int, ...]


#: By name, for its weights and for its groups.
Places = Mapping[str, list[Place]]


def cut(chain: Chain) -> "SmallerChain":
    """The chain on the network without the nodes that its mask empties; the chain's own mask is closed.

    Parameters
    ----------
    chain : Chain
        Its mask must not grow any more, and its mass matrix not adapt.

    Returns
    -------
    SmallerChain

    Raises
    ------
    ValueError, TypeError
        If the chain still changes, the network cannot be traced (see `shrink`), the prior cannot be cut, or the smaller
        network trains otherwise than the masked one: one that draws noise of its own, as dropout does. The chain is as
        it was then.
    """
    _check(chain)
    shrunk = shrink(chain.model, chain.mask, chain.stream.batch(chain.step)[0][:2], trains=True)
    positions = _positions(chain.model, shrunk)
    before, state = _outputs(chain), copy.deepcopy(Chain.state_dict(chain))
    try:
        _close(chain, shrunk.model, positions)
        if relative(before, _outputs(chain)) > ROUNDING:
            raise ValueError(_TRAINS_OTHERWISE)
        return SmallerChain(chain, positions, shrunk.obstacles)
    except (ValueError, TypeError):
        Chain.load_state_dict(chain, state)
        raise


class SmallerChain(Chain):
    """The chain on a cut network: `advance` it instead of the large one.

    Parameters
    ----------
    large : Chain
        Under a closed mask. It keeps the running averages, and is brought up to date at every draw; `put_back` does so
        at any other step.
    positions : mapping of str to int Tensor
        By the name of a parameter or buffer that is smaller now, where each entry was, counted along the whole.
    obstacles : mapping of str to str
        Layers none of whose nodes could go, and why.

    Attributes
    ----------
    stays : dict of str to str
        By layer, how many nodes that read nothing are still there, and why.
    """

    def __init__(self, large: Chain, positions: Positions, obstacles: Mapping[str, str]) -> None:
        model = _laid_out_like(large.model, _narrowed(large.model, positions))
        self.large, self.positions, self.places = large, positions, _places(large, positions)
        parameters: dict[str, Tensor] = dict(model.named_parameters())
        prior = None if large.prior is None else large.prior.cut(parameters, positions)
        super().__init__(
            large.index,
            model,
            _sampler(large.sampler, parameters, prior),
            large.schedule,
            large.stream,
            large.likelihood,
            _em(large.em, prior),
            adapt=large.adapt,
            indicator_every=large.indicator_every,
            precision=large.precision,
            compiled=large.network is not large.model,
        )
        self.inclusion, self.moments = {}, {}  # the large chain's
        _load(self, _cut(_state(large), self.places))
        self.sampler.take_noise_of(_noise_places(large.sampler, positions))
        self.step, self.draws, self._loss = large.step, large.draws, large._loss
        self.mask = _cut(large.mask, self.places)
        self.stays = _staying(model, self.mask, obstacles)
        if relative(_cut_gradient(large, self.places), _cut_gradient(self, {})) > ROUNDING:
            raise ValueError(_TRAINS_OTHERWISE)

    def move(self, plan: Plan) -> None:
        """The sampler's step and EM; what is a number is the large chain's at once."""
        large = self.large
        self._dot, self._dots = large._dot, large._dots
        super().move(plan)
        large.step, large._loss, large._dot, large._dots = self.step, self._loss, self._dot, self._dots

    def keep(self, plan: Plan) -> None:
        """Put a draw back, and have the large chain keep it."""
        if plan.collect or plan.end_of_cycle:
            self.put_back()
            self.large.keep(plan)
            self.draws = self.large.draws

    def put_back(self) -> None:
        """Give the large chain the state of this one; what was cut out stays as it is there."""
        large = self.large
        _load(large, _scattered(_state(self), _state(large), self.places))
        gradients = {name: p.grad for name, p in self.parameters.items()}
        for name, gradient in _scattered(gradients, {}, self.places).items():
            large.parameters[name].grad = gradient


class CuttingChain(Chain):
    """A chain that goes on in the cut network by itself, from the first step under the last mask of its pruner.

    A network that cannot be cut goes on masked, with a warning that says why.

    Attributes
    ----------
    small : SmallerChain or None
        The chain that takes the steps, once there is one.
    """

    small: SmallerChain | None = None
    tried: bool = False

    def advance(self) -> Plan:
        """Take one step, in whichever network is the smaller."""
        if not self.tried and self.pruner is not None and self.pruner.finished:
            self.tried = True
            try:
                self.small = cut(self)
            except (ValueError, TypeError) as error:
                warnings.warn(f"chain {self.index} goes on in the masked network: {error}", stacklevel=2)
        return super().advance() if self.small is None else self.small.advance()

    def settle(self) -> None:
        """Bring the state up to date, which is behind while the small chain takes the steps."""
        if self.small is not None:
            self.small.put_back()

    def state_dict(self) -> dict[str, Any]:
        """As of a chain, and what was cut out."""
        self.settle()
        cut_out = None if self.small is None else self.small.positions
        return {**super().state_dict(), "cut": {"tried": self.tried, "positions": cut_out}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.tried, positions = state["cut"]["tried"], state["cut"]["positions"]
        if positions is not None:
            device = next(iter(self.parameters.values())).device
            self.small = SmallerChain(self, {name: at.to(device) for name, at in positions.items()}, {})


_TRAINS_OTHERWISE = (
    "cut, the network has other outputs or gradients in training than the masked one; that is so if it draws noise of "
    "its own, as dropout does. Go on with the masked network"
)


def _check(chain: Chain) -> None:
    """Refuse a chain that still changes, or that cannot be followed."""
    if isinstance(chain, SmallerChain):
        raise ValueError("the chain was cut before; put its state back, and cut the large chain")
    if chain.ranks.size > 1:
        raise ValueError(f"the chain is shared by {chain.ranks.size} ranks; cut one that has a process to itself")
    if chain.pruner is not None and not chain.pruner.finished:
        raise ValueError("the mask still grows; cut the network when it has reached the last target")
    if any(group["adapting"] for group in chain.sampler.param_groups):
        raise ValueError("the mass matrix still adapts, by all weights; cut the network after the burn-in")
    for name, p in prunable(chain.model).items():
        kept = chain.mask.get(name, torch.ones_like(p, dtype=torch.bool))
        if bool(((p == 0) & kept).any()):
            raise ValueError(f"kept weights of {name!r} are exactly zero, as if nobody read by them; take a step first")


def _narrowed(model: nn.Module, positions: Positions) -> nn.Module:
    """A copy of a network with what stays of its tensors."""
    small = copy.deepcopy(model)
    for name, at in positions.items():
        path, _, own = name.rpartition(".")
        layer = small.get_submodule(path)
        whole = getattr(layer, own)
        part = whole.detach().flatten()[at]
        setattr(layer, own, nn.Parameter(part, whole.requires_grad) if isinstance(whole, nn.Parameter) else part)
        rule = coupling_of_tensor(layer, own)
        if rule is not None and (part.ndim > 1 or not rule.mixes):
            set_sizes(layer, own, part.shape)
    return small


def _positions(model: nn.Module, shrunk: Shrunk) -> Positions:
    values = {name: value for name, value in network_state(model).items() if name in shrunk.kept}
    return shrunk.select({name: torch.arange(v.numel(), device=v.device).view(v.shape) for name, v in values.items()})


def _close(chain: Chain, small: nn.Module, positions: Positions) -> None:
    """Mask whatever belongs to nodes that were cut out, and take over the biases of the cut network."""
    closed = dict(chain.mask)
    for name, p in chain.parameters.items():
        if name in positions:
            stays = torch.zeros(p.numel(), dtype=torch.bool, device=p.device)
            stays[positions[name].flatten()] = True
            closed[name] = stays.view(p.shape) & closed.get(name, torch.ones_like(p, dtype=torch.bool))
    if closed.keys() != chain.mask.keys() or any(not torch.equal(closed[n], m) for n, m in chain.mask.items()):
        chain.set_mask(closed)
    whole = network_state(chain.model)
    places = {name: [Place(at, tuple(whole[name].shape))] for name, at in positions.items()}
    load_network_state(chain.model, _scattered(network_state(small), whole, places))


def _places(large: Chain, positions: Positions) -> Places:
    """Of every tensor that is smaller now, the places of its weights, and of its groups."""
    whole = network_state(large.model)
    places = {name: [Place(at, tuple(whole[name].shape))] for name, at in positions.items()}
    if isinstance(large.prior, SpikeSlab):
        for name, layer in large.prior.layers.items():
            if name in places:
                places[name].append(Place(layer.groups.cut(positions[name])[1], (layer.groups.num_groups,)))
    return places


def _noise_places(sampler: Sampler, positions: Positions) -> Positions:
    """Where the weights that stay are in the large chain's noise."""
    found = {}
    for group in sampler.param_groups:
        start = group["offset"]
        for name, p in zip(group["param_names"], group["params"], strict=True):
            everywhere = torch.arange(p.numel(), device=p.device).view(p.shape)
            found[name] = start + positions.get(name, everywhere)
            start += p.numel()
    return found


def _sampler(large: Sampler, parameters: Mapping[str, Tensor], prior: Prior | None) -> Sampler:
    """A sampler of the same kind, settings and key for other parameters of the same names."""
    first, groups = large.param_groups[0], []
    for group in large.param_groups:
        settings = {key: group[key] for key in ("lr", "temperature", *large.own)}
        # Triton's kernel makes noise in order, and not at places.
        tier = "reference" if group["implementation"] == "triton" else group["implementation"]
        named = [(name, parameters[name]) for name in group["param_names"]]
        groups.append({"params": named, "implementation": tier, **settings})
    shared = {key: first[key] for key in ("lr", "num_data", "seed", "chain", "noise")}
    return type(large)(groups, prior=prior, preconditioner=copy.deepcopy(large.preconditioner), **shared)


def _em(large: Any, prior: Prior | None) -> Any:
    if large is None:
        return None
    if not isinstance(large, EM | ScaleEM):
        raise TypeError(
            f"how {type(large).__name__} learns in a smaller network is not known; go on with the masked one"
        )
    small = copy.copy(large)
    small.prior = prior  # type: ignore[assignment]
    return small


def _laid_out_like(large: nn.Module, small: nn.Module) -> nn.Module:
    """The small network with channels last if the large one has them."""
    images = [p for p in large.parameters() if p.ndim == 4 and not p.is_contiguous()]
    if any(p.is_contiguous(memory_format=torch.channels_last) for p in images):
        small = small.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return small


def _state(chain: Chain) -> dict[str, Any]:
    """What moves: network, sampler, prior and EM; the sampler's by name."""
    saved = chain.sampler.state_dict()
    states = {
        name: saved["state"].get(number, {})
        for group in saved["param_groups"]
        for number, name in zip(group["params"], group["param_names"], strict=True)
    }
    return {
        "model": network_state(chain.model),
        "sampler": states,
        "groups": saved["param_groups"],
        "prior": None if chain.prior is None else chain.prior.state_dict(),
        "em": None if chain.em is None else [chain.em.state_dict()],  # sums over layers: nothing in there is cut
    }


def _load(chain: Chain, state: Mapping[str, Any]) -> None:
    numbered = {
        number: state["sampler"][name]
        for group in state["groups"]
        for number, name in zip(group["params"], group["param_names"], strict=True)
    }
    em = None if state["em"] is None else state["em"][0]
    chain.load_position({**state, "sampler": {"state": numbered, "param_groups": state["groups"]}, "em": em})


def _cut(tree: Any, places: Places, name: str = "") -> Any:
    """A nested state with every tensor that has the shape of a whole cut to what stays."""
    if isinstance(tree, Mapping):
        return {key: _cut(value, places, key if key in places else name) for key, value in tree.items()}
    for place in places.get(name, ()):
        if isinstance(tree, Tensor) and tuple(tree.shape) == place.shape:
            return tree.detach().flatten()[place.positions]
    return tree


def _scattered(tree: Any, whole: Any, places: Places, name: str = "") -> Any:
    """A nested state at full shape again; where nothing stays it is that of `whole`, or zero if `whole` has none."""
    if isinstance(tree, Mapping):
        wholes = whole if isinstance(whole, Mapping) else {}
        return {k: _scattered(v, wholes.get(k), places, k if k in places else name) for k, v in tree.items()}
    for place in places.get(name, ()):
        if isinstance(tree, Tensor) and tree.shape == place.positions.shape:
            # A copy in the order of the indices, in which positions count.
            full = tree.new_zeros(place.shape)
            if whole is not None:
                full.copy_(whole.detach())
            full.view(-1)[place.positions.flatten()] = tree.detach().flatten()
            return full
    return tree


def _outputs(chain: Chain) -> Tensor:
    """The outputs in training mode at the chain's next minibatch."""
    with torch.no_grad(), chain.seeded(chain.step):
        outputs: Tensor = copy.deepcopy(chain.model).train()(chain.stream.batch(chain.step)[0])
    return outputs


def _cut_gradient(chain: Chain, places: Places) -> Tensor:
    """The gradient at the chain's next minibatch with respect to the weights that stay and no mask removed."""
    model = copy.deepcopy(chain.model).train()
    batch = chain.stream.batch(chain.step)
    with torch.enable_grad():
        minibatch_nll(model, chain.likelihood, batch, "float32", chain.seeded(chain.step)).backward()
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trainable(model).items()}
    for name, kept in chain.mask.items():
        found[name] = found[name] * kept
    return torch.cat([gradient.flatten() for gradient in _cut(found, places).values()])


def _staying(model: nn.Module, mask: Mapping[str, Tensor], obstacles: Mapping[str, str]) -> dict[str, str]:
    """By layer, how many of its nodes read nothing and are still there, and why."""
    empty = Counter[str]()
    for name, kept in mask.items():
        path, _, own = name.rpartition(".")
        layer = model.get_submodule(path)
        rule = coupling_of_tensor(layer, own)
        if rule is None or kept.ndim < 2 or own != f"weight{rule.suffix}":
            continue
        read = kept.movedim(rule.outputs, 0).flatten(1).any(1)
        if isinstance(layer, nn.RNNBase):
            if "_hh_" in own:  # counted with what reads the inputs
                continue
            states = mask.get(name.replace("_ih_", "_hh_"), torch.ones(len(read), 1, dtype=torch.bool))
            read = (read | states.any(1).to(read)).view(num_gates(layer), -1).any(0)
        empty[path] += int((~read).sum())
    why = "what they send cannot be moved to biases exactly, or their layer has to keep as many"
    return {
        path: f"{count} of its nodes read nothing, and stay: {obstacles.get(path, why)}"
        for path, count in empty.items()
        if count
    }
