"""Settings are of the types that their annotations say, wherever they come from: Python does not look."""

import dataclasses
import math
import types
import typing
from typing import Any, Literal


def check_types(value: Any, kind: Any, where: str = "") -> None:
    """ValueError unless a setting is what its annotation says: numbers finite, integers no booleans, choices known."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        require(isinstance(value, typing.cast(type, kind)), f"{where} is {value!r}; it must be a {kind}")
        for name, inner in typing.get_type_hints(kind).items():
            check_types(getattr(value, name), inner, f"{where}.{name}".lstrip("."))
    elif origin is tuple:
        require(isinstance(value, tuple), f"{where} is {value!r}; it must be a tuple")
        for element in value:
            check_types(element, arguments[0], where)
    elif origin is Literal:
        require(value in arguments, f"{where} is {value!r}; choose among {', '.join(map(str, arguments))}")
    elif origin in (typing.Union, types.UnionType):
        if value is not None:
            check_types(value, arguments[0], where)
    elif kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number and math.isfinite(value), f"{where} is {value!r}; it must be a finite number")
    elif kind is int:
        require(type(value) is int, f"{where} is {value!r}; it must be an integer")
    else:
        require(isinstance(value, kind), f"{where} is {value!r}; it must be of type {kind.__name__}")


def require(condition: bool, message: str) -> None:
    """ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)
