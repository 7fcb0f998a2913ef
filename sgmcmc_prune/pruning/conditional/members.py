"""Where the groups of a prior are in the blocks of a curvature: which columns, of which layer, in which rows.

| group | what is set to zero |
|---|---|
| `weight`, `kernel` | some columns of one row |
| `input`, `head` | some columns of all rows |
| `filter`, `node` | the columns of the *next* layer that read the unit, of all rows; the row that makes it follows |

Which columns read a unit is what `shrink` goes by (`pruning/channels.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgmcmc_prune.models.coupling import layer_of
from sgmcmc_prune.predictive.predict import evaluation_mode
from sgmcmc_prune.priors.groups import GroupMap
from sgmcmc_prune.pruning.channels import Channels, channels_of
from sgmcmc_prune.pruning.conditional.blocks import Blocks
from sgmcmc_prune.pruning.conditional.curvature import MAX_BYTES
from sgmcmc_prune.pruning.masks import Mask
from sgmcmc_prune.pruning.prunable import prunable

UNITS = ("filter", "node")


@dataclass(frozen=True)
class Members:
    """The groups of one weight, and the columns that go with each.

    Attributes
    ----------
    group : GroupMap
    layer : str
        The weight whose columns they are: where groups are units, that of the next layer.
    columns : int Tensor, shape (G, k)
        Of each group; where each row has groups of its own, of those of a row.
    together : bool
        Whether a group is its columns in all rows.
    """

    group: GroupMap
    layer: str
    columns: Tensor
    together: bool

    @property
    def single(self) -> bool:
        """Whether each group is one weight."""
        return not self.together and self.columns.shape[1] == 1


def single_weights(model: nn.Module) -> dict[str, Members]:
    """Every prunable weight by itself."""
    return members_of(model, {name: GroupMap("weight", tuple(p.shape)) for name, p in prunable(model).items()})


def members_of(model: nn.Module, groups: Mapping[str, GroupMap], example: Tensor | None = None) -> dict[str, Members]:
    """Find the members of all groups.

    Parameters
    ----------
    model : Module
    groups : mapping of str to GroupMap
        By name of the weight, of one kind.
    example : Tensor, shape (n, ...)
        A few different inputs, for units alone.

    Raises
    ------
    ValueError
        If units cannot be removed by the columns of one next layer, or the network cannot be traced.
    """
    if any(group.kind in UNITS for group in groups.values()):
        assert example is not None, "who reads a unit is found by running"
        with evaluation_mode(model), torch.no_grad():
            _, channels = channels_of(model, example)
        return {name: _units(model, name, group, channels) for name, group in groups.items()}
    return {name: _own(name, group, prunable(model)[name].device) for name, group in groups.items()}


def _own(name: str, group: GroupMap, device: torch.device) -> Members:
    """Columns of the weight itself: each row has the same groups, or groups of its own."""
    numbers = group.expand(torch.arange(group.num_groups)).flatten(1)
    together = group.kind not in ("weight", "kernel")
    if together and (bool((numbers != numbers[0]).any()) or len(numbers[0].bincount().unique()) > 1):
        raise ValueError(f"groups of {name!r} are not columns of all rows, as many each, which joint evidence removes")
    return Members(group, name, _by_number(numbers[0]).to(device), together)


def _by_number(numbers: Tensor) -> Tensor:
    """The places of each number, (G, k)."""
    return numbers.argsort(stable=True).view(len(numbers.unique()), -1)


def _units(model: nn.Module, name: str, group: GroupMap, channels: Channels) -> Members:
    """The columns that read the units of a layer; refused unless they are all that goes with them, and of one layer."""
    path, said = name.rpartition(".")[0], f"units of {name!r} cannot be removed by joint evidence"
    if path not in channels.rows:
        raise ValueError(f"{said}: it is no layer of which each unit reads all channels, as a grouped convolution")
    roots, stay = channels.roots(channels.rows[path]), channels.pinned_roots()
    if why := next((stay[root] for root in roots.tolist() if root in stay), ""):
        raise ValueError(f"{said}: {why}")
    made = torch.cat([channels.roots(rows) for rows in channels.rows.values()])
    if int(torch.isin(made, roots).sum()) > len(roots) or len(roots.unique()) < len(roots):
        raise ValueError(f"{said}: they are added to other units, or go in groups, as in a residual stream")
    readers = {
        reader: at for reader, c in channels.columns.items() if bool((at := _at(channels.roots(c), roots)).any())
    }
    if len(readers) != 1:
        raise ValueError(f"{said}: they are read by {len(readers)} layers ({', '.join(readers)}), not by one")
    ((reader, at),) = readers.items()
    owner, layer, rule = layer_of(model, reader)
    weight = layer.get_parameter(own := f"weight{rule.suffix}")
    if not weight.requires_grad:
        raise ValueError(f"{said}: they are read by {reader!r}, which is frozen and cannot lose its columns")
    inside = weight[0, 0].numel()  # columns of a channel, as a patch has them
    places = torch.stack([unit.nonzero().flatten() for unit in at])
    columns = (places[:, :, None] * inside + torch.arange(inside)).flatten(1)
    return Members(group, f"{owner}.{own}" if owner else own, columns.to(weight.device), True)


def _at(columns: Tensor, units: Tensor) -> Tensor:
    """Which of the units each column reads, (units, columns)."""
    return columns == units[:, None]


def left(members: Mapping[str, Members], mask: Mask, weights: Mapping[str, Tensor]) -> Mask:
    """What a mask leaves of every layer: of its own weights, and of the columns that read units."""
    found = {name: mask.get(name, torch.ones_like(w, dtype=torch.bool)) for name, w in weights.items()}
    for name, own in members.items():
        if own.layer != name:
            gone = ~mask[name].flatten(1).any(1)
            kept = found[own.layer].flatten(1).clone()
            kept[:, own.columns[gone].flatten()] = False
            found[own.layer] = kept.view(found[own.layer].shape)
    return found


def check_blocks(members: Mapping[str, Members], blocks: Mapping[str, Blocks]) -> None:
    """ValueError if a curvature has no whole rows, or too many of them, for groups of more than a weight."""
    for name, own in members.items():
        if own.single:
            continue
        layer_blocks = blocks[own.layer]
        if layer_blocks.layout.size is not None:
            raise ValueError(
                f"{name!r}: a {own.group.kind} has weights in many blocks of consecutive weights; choose the curvature "
                "gram, kfac or ggn, without size"
            )
        rows, d = len(layer_blocks.scale), layer_blocks.matrix.shape[1]
        if own.together and 8 * rows * d**2 > MAX_BYTES:
            raise ValueError(
                f"{name!r}: the rows of {own.layer!r} lose columns together, and {rows} precisions of {d} weights take "
                f"{8e-9 * rows * d**2:.0f} GB; prune single weights or kernels"
            )
