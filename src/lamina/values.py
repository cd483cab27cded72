"""Dataclasses whose fields are checked against their types and ranges, and stored as JSON.

Checked in full: ``int``, ``float``, ``bool``, ``str``, ``Literal``, dataclasses, and tuples, lists,
dicts and unions of them. Of all other types, such as ``Callable[[int], int]``, only the class is
checked. ``Annotated`` adds a :class:`Range`, or a text that describes the type in messages.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import reprlib
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from lamina.errors import LaminaError, find_nearest, suggest

Value = TypeVar("Value")

LARGEST_FLOAT = 2**1023  # integers below this are accepted where a float is expected

_NOUNS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high`` (inclusive), above ``above`` and below ``below``."""

    low: float = -math.inf
    high: float = math.inf
    below: float = math.inf
    above: float = -math.inf

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high and self.above < number < self.below

    def __str__(self) -> str:
        if self.above > -math.inf:
            return f"above {self.above:,}"
        if self.high < math.inf:
            return f"from {self.low:,} to {self.high:,}"
        if self.below < math.inf:
            return f"from {self.low:,} to below {self.below:,}"
        return f"of at least {self.low:,}"


Fraction: TypeAlias = Annotated[float, Range(0, below=1)]


class _InvalidError(ValueError):
    """A value is invalid; ``hint`` is a sentence for the user.

    ``mismatched`` is the path of a value that does not have its type, for unions.
    """

    def __init__(self, problem: str, hint: str = "", mismatched: str = "") -> None:
        super().__init__(problem)
        self.hint = hint
        self.mismatched = mismatched


def explain_arguments(
    error: type[LaminaError], hint: str = ""
) -> Callable[[type[Value]], type[Value]]:
    """Make a dataclass raise ``error`` for wrong arguments, as it does for invalid values.

    ``hint`` is added if several arguments do not match.
    """

    def change(kind: type[Value]) -> type[Value]:
        changed: Any = kind
        init = changed.__init__
        signature = inspect.signature(kind)
        names = list(signature.parameters)
        accepts = [
            f"{name}=" if parameter.kind is parameter.KEYWORD_ONLY else name
            for name, parameter in signature.parameters.items()
        ]

        @wraps(init)
        def checked(self: object, *by_place: object, **by_name: object) -> None:
            try:
                signature.bind(*by_place, **by_name)
            except TypeError as mismatch:
                problem = f"{mismatch}. Its arguments are: {', '.join(accepts) or 'none'}."
                unknown = [name for name in by_name if name not in names]
                if unknown and names:
                    name = unknown[0]
                    problem = f"unknown argument {reprlib.repr(name)}. {suggest(name, names)}"
                elif hint and len(by_place) + len(by_name) > 1:
                    problem += f" {hint}"
                raise error(f"{kind.__name__}: {problem}") from None
            init(self, *by_place, **by_name)

        changed.__init__ = checked
        return kind

    return change


def check_fields(value: Any, error: type[LaminaError], prefix: str = "") -> None:
    """Convert and check a frozen dataclass's fields, in ``__post_init__``; or raise ``error``."""
    values = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name, item in check_values(type(value), values, error, prefix).items():
        object.__setattr__(value, name, item)


def check_values(
    kind: type, values: Mapping[str, Any], error: type[LaminaError], prefix: str = ""
) -> dict[str, Any]:
    """Check the values of some fields as :func:`check_fields` does, and return them converted."""
    checked = {}
    for name, value in values.items():
        try:
            checked[name] = _convert(_field_types(kind)[name], value, name)
        except _InvalidError as invalid:
            raise error(f"{prefix}{invalid}.{invalid.hint}", field=name) from None
    return checked


def read_texts(kind: type) -> dict[str, str]:
    """Read the string below each field of a dataclass, joined into one line."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:  # a program that was packed without its source
        return {}
    texts = {}
    for field, below in itertools.pairwise(getattr(definition, "body", [])):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            texts[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).split())
    return texts


def document_fields(kind: type[Value]) -> type[Value]:
    """Class decorator: append the strings below a dataclass's fields to its docstring."""
    lines = (
        textwrap.fill(f"{name}: {text}", 100, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, text in read_texts(kind).items()
    )
    kind.__doc__ = "\n".join([inspect.cleandoc(kind.__doc__ or ""), "", "Attributes:", *lines])
    return kind


def to_json_values(value: Any) -> Any:
    """Convert a value for ``json.dumps``: by its ``to_json`` if it has one, else field by field."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return fields_to_json(value)
    if isinstance(value, tuple):
        return [to_json_values(item) for item in value]
    return value


def fields_to_json(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    return {name: to_json_values(getattr(value, name)) for name in names}


def from_json_values(kind: type[Value], values: Any, where: str) -> Value:
    """Rebuild what :func:`fields_to_json` wrote; a ``ValueError`` names the invalid part."""
    return cast(Value, _convert_fields(kind, values, where))


@cache
def _field_types(kind: Any) -> dict[str, Any]:
    types = get_type_hints(kind, include_extras=True)
    return {field.name: types[field.name] for field in dataclasses.fields(kind)}


def _convert(kind: Any, value: Any, path: str, described: Any = None) -> Any:
    """The value as ``kind``; messages describe ``described``, the type with its range."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    origin = get_origin(kind)
    arguments = get_args(kind)
    plain_kind = origin or kind
    described = described or kind
    if origin is Annotated:
        converted = _convert(arguments[0], value, path, described)
        ranges = [note for note in arguments[1:] if isinstance(note, Range)]
        if all(converted in allowed for allowed in ranges):
            return converted
    elif origin in (UnionType, Union):
        return _convert_union(arguments, value, path, described)
    elif origin is Literal:
        if value in [choice for choice in arguments if type(choice) is type(value)]:
            return value
    elif origin in (tuple, list, Sequence):
        if isinstance(value, tuple | list):
            is_fixed = origin is tuple and arguments[-1] is not ...
            kinds = arguments if is_fixed else arguments[:1] * len(value)
            if len(kinds) == len(value):
                parts = enumerate(zip(kinds, value, strict=True))
                items = [_convert(part, item, f"{path}[{place}]") for place, (part, item) in parts]
                return items if origin is list else tuple(items)
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _convert(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    elif kind is float and type(value) is int and abs(value) < LARGEST_FLOAT:
        return float(value)
    elif kind in _NOUNS:
        # bool is a subclass of int, but True is not a size: simple types must match exactly.
        if type(value) is kind:
            return value
    elif kind is Any or not isinstance(plain_kind, type) or isinstance(value, plain_kind):
        return value
    elif isinstance(value, Mapping) and hasattr(kind, "from_json"):
        try:
            return kind.from_json(value)
        except LaminaError as error:
            raise _InvalidError(f"{path}: {str(error).removesuffix('.')}") from error
    elif isinstance(value, Mapping) and dataclasses.is_dataclass(kind):
        return _convert_fields(kind, value, path)
    raise _expected(described, value, path)


def _convert_union(options: Iterable[Any], value: Any, path: str, described: Any) -> Any:
    inside = None
    for option in options:
        try:
            return _convert(option, value, path)
        except _InvalidError as invalid:
            if invalid.mismatched != path:  # a part of the value does not match
                inside = inside or invalid
    raise inside or _expected(described, value, path)


def _convert_fields(kind: Any, values: Any, path: str) -> Any:
    if not isinstance(values, Mapping):
        raise _expected(kind, values, path)
    types = _field_types(kind)
    listed = f"its fields are {', '.join(types)}"
    for name in values:
        if name not in types:
            raise _InvalidError(f"{path} has no field {name!r}; {listed}")
    for field in dataclasses.fields(kind):
        is_needed = field.default is field.default_factory is dataclasses.MISSING
        if is_needed and field.name not in values:
            raise _InvalidError(f"{path} lacks the field {field.name!r}; {listed}")
    parts = {name: _convert(types[name], item, f"{path}.{name}") for name, item in values.items()}
    try:
        return kind(**parts)
    except LaminaError as error:
        raise _InvalidError(f"{path}: {str(error).removesuffix('.')}") from error


def _expected(kind: Any, value: Any, path: str) -> _InvalidError:
    *texts, last = _alternatives(kind)
    expected = f"{', '.join(texts)} or {last}" if texts else last
    hint = ""
    choices = [text.strip("'") for text in (*texts, last) if text.startswith("'")]
    if isinstance(value, str) and (nearest := find_nearest(value, choices)):
        hint = f" Did you mean {nearest}?"
    return _InvalidError(f"{path} must be {expected}, got {reprlib.repr(value)}", hint, path)


def _alternatives(kind: Any) -> list[str]:
    """Describe the values that ``kind`` allows, for messages."""
    origin = get_origin(kind)
    arguments = get_args(kind)
    if origin in (UnionType, Union):
        options = [_alternatives(option) for option in arguments if option is not NoneType]
        return list(itertools.chain.from_iterable(options))
    if origin is Literal:
        return [repr(choice) for choice in arguments]
    if origin is Annotated:
        note = arguments[1]
        return [f"{_alternatives(arguments[0])[0]} {note}" if isinstance(note, Range) else note]
    if origin in (tuple, list):
        return [f"a list, each item {' or '.join(_alternatives(arguments[0]))}"]
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return [f"an object with the fields {', '.join(names)}"]
    return [_NOUNS.get(kind, f"a {getattr(kind, '__name__', 'mapping')}")]
