"""Whose name is this? Parameters are joined by name, and torch's wrappers put their own words into a name.

`DataParallel` and `DistributedDataParallel` call "0.weight" "module.0.weight", `torch.compile` "_orig_mod.0.weight".
"""

from collections.abc import Iterable

_COMPILED, _PARALLEL = "_orig_mod.", "module."


def plain(name: str) -> str:
    """The name of a parameter without the words of torch's wrappers."""
    name = name.replace(_COMPILED, "")
    while name.startswith(_PARALLEL):
        name = name.removeprefix(_PARALLEL)
    return name


def match(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """For each of some names the known one that it stands for, as far as there is one.

    A name stands for itself where it is known, else for the one known name that differs by a wrapper's words alone.
    """
    known = list(known)
    exact = set(known)
    by_plain: dict[str, list[str]] = {}
    for name in known:
        by_plain.setdefault(plain(name), []).append(name)
    pairs = ((name, [name] if name in exact else by_plain.get(plain(name), [])) for name in names)
    return {name: found[0] for name, found in pairs if len(found) == 1}


def shown(names: Iterable[str], most: int = 6) -> str:
    """Names for a message, on one line: 'a', 'b', ..."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "") or "none"
