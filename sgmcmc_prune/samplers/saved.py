"""What a saved sampler must be to be loaded: of the same chain and parameters, with a state of their shapes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sgmcmc_prune import names
from sgmcmc_prune.native.memory import laid_out

#: Settings of a parameter group that make its chain another chain when they change.
IDENTITY = ("sampler", "form", "preconditioner", "noise", "num_data", "seed", "chain")

#: Settings that schedulers of torch add to a group.
SCHEDULERS = frozenset({"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"})

Groups = Sequence[Mapping[str, Any]]


def check_same_chain(saved: Groups, groups: Groups, drawn_key: bool) -> None:
    """Refuse the saved parameter groups of another chain; ValueError names the setting that differs.

    Parameters
    ----------
    saved, groups : sequence of mappings
    drawn_key : bool
        The key of this sampler was not given, so it takes the saved one.
    """
    if len(saved) != len(groups):
        raise ValueError(f"the saved sampler has {len(saved)} parameter groups, this one {len(groups)}")
    for old, group in zip(saved, groups, strict=True):
        for field in IDENTITY:
            if old.get(field) != group.get(field) and not (drawn_key and field in ("seed", "chain")):
                raise ValueError(
                    f"the saved sampler has {field} {old.get(field)!r}, this one {group.get(field)!r}; a resumed chain "
                    "must have the same (lr, momentum and temperature may change)"
                )
        if missing := group.keys() - old.keys() - SCHEDULERS - {"places"}:
            raise ValueError(f"the saved sampler lacks the settings {names.shown(sorted(missing))}")
        _check_same_names(old["param_names"], group["param_names"])


def _check_same_names(saved: Sequence[str], present: Sequence[str]) -> None:
    """The order, too, must be the same: it gives the noise of each parameter."""
    found = names.match(saved, present)
    if [found.get(name) for name in saved] != list(present):
        raise ValueError(
            f"the saved sampler has the parameters {names.shown(saved)}, this one {names.shown(present)}; they must be "
            "the same, in the same order"
        )


def restored(name: str, p: Tensor, state: Mapping[str, Any], known: Collection[str], needed: Collection[str]) -> dict:
    """The saved state of one parameter, in copies of its type and memory order.

    Parameters
    ----------
    name : str
    p : Tensor
        The parameter.
    state : mapping of str to Tensor or number
        What was saved.
    known, needed : collection of str
        What a state of this sampler may have, and what it cannot do without.

    Raises
    ------
    ValueError, TypeError
        If the state is another sampler's, or another parameter's.
    """
    if unknown := state.keys() - known:
        raise ValueError(f"the saved state of {name!r} has {names.shown(sorted(unknown))}, which this sampler has not")
    if missing := set(needed) - state.keys():
        raise ValueError(f"the saved state of {name!r} lacks {names.shown(sorted(missing))}")
    return {key: _restored(f"the saved {key} of {name!r}", p, key, value) for key, value in state.items()}


def _restored(what: str, p: Tensor, key: str, value: Any) -> Any:
    if not isinstance(value, Tensor):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{what} is {value!r}; it must be a number")
        return value
    if (value.dtype == torch.bool) != (key == "mask") or value.is_complex():
        raise TypeError(f"{what} is {value.dtype}; it must be {'torch.bool' if key == 'mask' else p.dtype}")
    dtype = torch.bool if key == "mask" else p.dtype
    if value.dim() == 0:
        return value.detach().to(p.device, dtype, copy=True)
    if value.shape != p.shape:
        raise ValueError(f"{what} has shape {tuple(value.shape)}; the parameter has {tuple(p.shape)}")
    return laid_out(value, p, dtype)
