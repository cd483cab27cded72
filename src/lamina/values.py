"""Dataclasses whose fields are checked against their types and ranges, and stored as JSON.

Supported types: ``int``, ``float``, ``bool``, ``str``, ``Literal``, dataclasses, and tuples, dicts
and unions of them. ``Annotated`` adds a :class:`Range`, or a text that describes the type in
messages.
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

KEYWORD = inspect.Parameter.KEYWORD_ONLY
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


class _MismatchError(ValueError):
    """The problem of a value, or of its part at ``path``."""

    def __init__(self, problem: str, path: str = "", hint: str = "") -> None:
        super().__init__(path + problem)
        self.problem = problem
        self.path = path
        self.hint = hint

    def inside(self, part: str) -> _MismatchError:
        return _MismatchError(self.problem, part + self.path, self.hint)


def explain_arguments(
    error: type[LaminaError], hint: str = "", elsewhere: Sequence[type] = ()
) -> Callable[[type[Value]], type[Value]]:
    """Make a dataclass raise ``error`` for wrong arguments, as it does for invalid values.

    ``hint`` is added if several arguments do not match. ``elsewhere`` lists dataclasses whose
    fields the caller may have meant.
    """

    def change(kind: type[Value]) -> type[Value]:
        changed: Any = kind
        init = changed.__init__
        signature = inspect.signature(init)
        parameters = list(signature.parameters.values())[1:]

        @wraps(init)
        def checked(self: object, *by_place: object, **by_name: object) -> None:
            try:
                signature.bind(self, *by_place, **by_name)
            except TypeError as mismatch:
                problem = _explain_unknown(by_name, parameters, elsewhere)
                if not problem:
                    accepts = [f"{item.name}{'=' * (item.kind is KEYWORD)}" for item in parameters]
                    problem = f"{mismatch}. Its arguments are: {', '.join(accepts) or 'none'}."
                    problem += f" {hint}" * bool(hint and len(by_place) + len(by_name) > 1)
                raise error(f"{kind.__name__}: {problem}") from None
            init(self, *by_place, **by_name)

        changed.__init__ = checked
        return kind

    return change


def _explain_unknown(
    arguments: Iterable[str], parameters: Sequence[inspect.Parameter], elsewhere: Sequence[type]
) -> str:
    """Name an argument that does not exist, and suggest another; empty if all exist."""
    known = [parameter.name for parameter in parameters]
    for name in arguments:
        if name in known:
            continue
        advice = "It accepts no arguments."
        if known:
            advice = suggest(name, known)
        for kind in elsewhere:
            if name in _field_types(kind):
                advice = f"It is an argument of {kind.__name__}."
        return f"unknown argument {reprlib.repr(name)}. {advice}"
    return ""


def check_fields(value: Any, error: type[LaminaError], prefix: str = "") -> None:
    """Convert and check a frozen dataclass's fields, in ``__post_init__``; or raise ``error``."""
    names = [field.name for field in dataclasses.fields(value)]
    values = {name: getattr(value, name) for name in names}
    for name, item in check_values(type(value), values, error, prefix).items():
        object.__setattr__(value, name, item)


def check_values(
    kind: type, values: Mapping[str, Any], error: type[LaminaError], prefix: str = ""
) -> dict[str, Any]:
    """Check the values of some fields as :func:`check_fields` does, and return them converted."""
    checked = {}
    for name, value in values.items():
        try:
            checked[name] = _convert(_field_types(kind)[name], value)
        except _MismatchError as mismatch:
            message = f"{prefix}{mismatch.inside(name)}.{mismatch.hint}"
            raise error(message, field=name) from None
    return checked


def read_texts(kind: type) -> dict[str, str]:
    """Read the string below each field of a dataclass, joined into one line."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:  # a program that was packed without its source
        return {}
    texts = {}
    for field, below in itertools.pairwise(getattr(definition, "body", [])):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                value=ast.Constant(value=str(text))
            ):
                texts[name] = " ".join(text.split())
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
    try:
        return cast(Value, _convert_fields(kind, values))
    except _MismatchError as mismatch:
        raise ValueError(str(mismatch.inside(where))) from None


@cache
def _field_types(kind: Any) -> dict[str, Any]:
    types = get_type_hints(kind, include_extras=True)
    return {field.name: types[field.name] for field in dataclasses.fields(kind)}


def _convert(kind: Any, value: Any) -> Any:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    origin = get_origin(kind)
    arguments = get_args(kind)
    if origin is Annotated:
        return _convert_annotated(kind, value)
    if origin in (UnionType, Union):
        return _convert_union(kind, value)
    if origin is Literal:
        for choice in arguments:
            if type(value) is type(choice) and value == choice:
                return value
    if origin in (tuple, Sequence) and isinstance(value, tuple | list):
        kinds = arguments
        if origin is Sequence or arguments[-1] is ...:
            kinds = arguments[:1] * len(value)
        if len(kinds) == len(value):
            parts = enumerate(zip(kinds, value, strict=True))
            return tuple(_convert_part(part, item, f"[{place}]") for place, (part, item) in parts)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _convert_part(arguments[1], item, f".{key}") for key, item in value.items()}
    if kind is float and type(value) is int and abs(value) < LARGEST_FLOAT:
        return float(value)
    if kind is Any or type(value) is kind:
        return value
    # bool is a subclass of int, but True is not a size: simple types must match exactly.
    if kind not in _NOUNS and isinstance(kind, type) and isinstance(value, kind):
        return value
    if hasattr(kind, "from_json") and isinstance(value, Mapping):
        try:
            return kind.from_json(value)
        except LaminaError as error:
            raise _MismatchError(f": {str(error).removesuffix('.')}") from error
    if dataclasses.is_dataclass(kind):
        return _convert_fields(kind, value)
    raise _expected(kind, value)


def _convert_part(kind: Any, value: Any, part: str) -> Any:
    try:
        return _convert(kind, value)
    except _MismatchError as mismatch:
        raise mismatch.inside(part) from None


def _convert_annotated(kind: Any, value: Any) -> Any:
    plain_kind, *notes = get_args(kind)
    try:
        converted = _convert(plain_kind, value)
    except _MismatchError as mismatch:
        raise mismatch if mismatch.path else _expected(kind, value) from None
    for note in notes:
        if isinstance(note, Range) and converted not in note:
            raise _expected(kind, value)
    return converted


def _convert_union(kind: Any, value: Any) -> Any:
    inside = None
    for option in get_args(kind):
        try:
            return _convert(option, value)
        except _MismatchError as mismatch:
            # A problem inside a value is more specific than a mismatch of the whole.
            if mismatch.path or isinstance(value, Mapping):
                inside = inside or mismatch
    raise inside or _expected(kind, value)


def _convert_fields(kind: Any, values: Any) -> Any:
    types = _field_types(kind)
    if not isinstance(values, Mapping):
        raise _expected(kind, values)
    listed = f"; its fields are {', '.join(types)}"
    for name in values:
        if name not in types:
            raise _MismatchError(f" has no field {name!r}{listed}")
    for field in dataclasses.fields(kind):
        is_needed = field.default is field.default_factory is dataclasses.MISSING
        if is_needed and field.name not in values:
            raise _MismatchError(f" lacks the field {field.name!r}{listed}")
    parts = {name: _convert_part(types[name], item, f".{name}") for name, item in values.items()}
    try:
        return kind(**parts)
    except LaminaError as error:
        raise _MismatchError(f": {str(error).removesuffix('.')}") from error


def _expected(kind: Any, value: Any) -> _MismatchError:
    *texts, last = _alternatives(kind)
    expected = last
    if texts:
        expected = f"{', '.join(texts)} or {last}"
    choices = [text.strip("'") for text in (*texts, last) if text.startswith("'")]
    hint = ""
    if isinstance(value, str) and (nearest := find_nearest(value, choices)):
        hint = f" Did you mean {nearest}?"
    return _MismatchError(f" must be {expected}, got {reprlib.repr(value)}", hint=hint)


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
        plain_kind, note, *_ = arguments
        if isinstance(note, Range):
            return [f"{_alternatives(plain_kind)[0]} {note}"]
        return [note]
    if kind in _NOUNS:
        return [_NOUNS[kind]]
    if origin is tuple:
        return [f"a list, each item {' or '.join(_alternatives(arguments[0]))}"]
    if hasattr(kind, "__dataclass_fields__"):
        return [f"an object with the fields {', '.join(_field_types(kind))}"]
    return [f"a {getattr(kind, '__name__', 'mapping')}"]
