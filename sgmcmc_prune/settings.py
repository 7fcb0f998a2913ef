"""Settings are frozen dataclasses of the types that their annotations say: checked, changed by name, kept as JSON."""

import dataclasses
import math
import types
import typing
from numbers import Integral, Real
from pathlib import Path
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


def check_number(name: str, value: object) -> None:
    """TypeError unless a setting is a real number; a boolean is none."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} is {value!r}; it must be a number")


def check_positive(name: str, value: float) -> None:
    """TypeError unless a setting is a number, ValueError unless it is above 0 and finite."""
    check_number(name, value)
    require(0 < value < math.inf, f"{name} is {value}; it must be finite and > 0")


def check_integer(name: str, value: object, what: str = "") -> None:
    """TypeError, which may say what the setting is, unless it is an integer; a boolean is none."""
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name} is {value!r}; it must be an integer{what}")


def require(condition: bool, message: str) -> None:
    """ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def replace(config: Any, **changes: Any) -> Any:
    """`dataclasses.replace` with dotted names: replace(config, **{"sampler.lr": 0.1, "seed": 1})."""
    parts: dict[str, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        if rest:
            parts.setdefault(head, {})[rest] = value
        else:
            whole[head] = value
    nested = {head: replace(getattr(config, head), **inner) for head, inner in parts.items()}
    return dataclasses.replace(config, **whole, **nested)


def to_json(config: Any) -> Any:
    """Settings as plain JSON values."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_json(v) for v in config]
    return str(config) if isinstance(config, Path) else config


def from_json(value: Any, kind: Any, where: str = "config") -> Any:
    """Rebuild a settings dataclass from JSON values; ValueError names an unknown field or a wrong type."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        require(isinstance(value, dict), f"{where} is {value!r}; it must be an object")
        unknown = sorted(set(value) - set(hints))
        require(not unknown, f"{where} has no field {', '.join(unknown)}; it has {', '.join(hints)}")
        make: Any = kind
        return make(**{k: from_json(v, hints[k], f"{where}.{k}") for k, v in value.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        require(isinstance(value, list), f"{where} is {value!r}; it must be a list")
        return tuple(from_json(v, arguments[0], where) for v in value)
    if origin is Literal:
        require(value in arguments, f"{where} is {value!r}; choose among {', '.join(map(str, arguments))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else from_json(value, arguments[0], where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    require(type(value) is kind, f"{where} is {value!r}; it must be {getattr(kind, '__name__', kind)}")
    return value
