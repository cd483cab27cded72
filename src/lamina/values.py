"""Dataclasses as the plain values that JSON holds, and back, every value checked against its field's type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from lamina.errors import LaminaError

Value = TypeVar("Value")


def to_plain(value: Any) -> Any:
    """A value as ``json.dumps`` takes it: by its own ``to_json`` where it has one, else field by field.

    >>> from lamina.evaluation import Interval
    >>> to_plain((Interval(0.25, 0.75),))
    [{'low': 0.25, 'high': 0.75}]
    """
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return fields_to_plain(value)
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def fields_to_plain(value: Any) -> dict[str, Any]:
    """A dataclass's fields as plain values."""
    return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def from_plain(kind: type[Value], value: Any, where: str) -> Value:
    """The ``kind`` of which :func:`fields_to_plain` made ``value``.

    Args:
        kind: a dataclass whose fields are text, literals, numbers, dataclasses, values with a ``from_json``, and
            tuples, dicts and optional values of these.
        value: what JSON held.
        where: what to call the value in a message.

    Raises:
        ValueError: the value is none of that kind; the message says which part, and what was expected.

    >>> from lamina.evaluation import Interval
    >>> from_plain(Interval, {"low": 0.25, "high": 0.75}, "interval")
    Interval(low=0.25, high=0.75)
    """
    return cast(Value, _fields_from_plain(kind, value, where))


def _fields_from_plain(kind: Any, values: Any, where: str) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} should have the fields {', '.join(names)}, but is {values!r:.60}")
    if different := sorted(set(names) ^ set(values)):
        which = "misses" if different[0] in names else "does not know"
        raise ValueError(f"{where} {which} {different[0]}; its fields are {', '.join(names)}")
    kinds = get_type_hints(kind)
    return kind(**{name: _from_plain(kinds[name], values[name], f"{where}.{name}") for name in names})


def _from_plain(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union) and NoneType in arguments:
        return None if value is None else _from_plain(arguments[0], value, where)
    if origin is Literal and value in arguments:
        return value
    if hasattr(kind, "from_json") and isinstance(value, dict):
        try:
            return kind.from_json(value)
        except LaminaError as error:
            raise ValueError(f"{where}: {error}") from error
    if dataclasses.is_dataclass(kind):
        return _fields_from_plain(kind, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_from_plain(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _from_plain(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    raise ValueError(f"{where} should be {getattr(kind, '__name__', kind)}, but is {value!r:.60}")
