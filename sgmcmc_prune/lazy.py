"""Names that a package offers are loaded when they are asked for: the command line answers without torch."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def attach(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562) that finds each name in its place.

    Parameters
    ----------
    package : str
        The `__name__` of the package, for the error.
    places : mapping of str to str
        The full name of the module that defines each name.
    """

    def found(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(places[name]), name)

    return found
