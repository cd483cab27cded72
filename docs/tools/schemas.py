"""JSON Schemas of dataclasses, as ``lamina.values`` stores them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from lamina.nets import Net
from lamina.targets import Kind, KindName
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel, Task
from lamina.values import Range

Schema = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
TASKS = (SingleLabel, MultiLabel, Binary, Regression)
PLAIN = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    NoneType: "null",
    dict: "object",
}


def describe_class(kind: type, title: str, *, leave_out: Sequence[str] = ()) -> Schema:
    """The schema of a dataclass, with the schemas of dataclasses in it as ``$defs``."""
    parts: dict[str, Schema] = {}
    schema = describe_fields(kind, parts, leave_out)
    return {"$schema": DRAFT, "title": title, **schema, "$defs": parts}


def describe_fields(kind: type, parts: dict[str, Schema], leave_out: Sequence[str] = ()) -> Schema:
    types = read_types(kind)
    texts = read_field_texts(kind)
    properties = {}
    required = []
    for field in dataclasses.fields(kind):
        if field.name in leave_out or field.name.startswith("_"):
            continue
        schema = describe_type(types[field.name], parts)
        if field.name in texts:
            schema = {**schema, "description": texts[field.name]}
        properties[field.name] = schema
        if field.default is field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    text = (inspect.getdoc(kind) or "").split("\n\n")[0]
    return {
        "type": "object",
        "description": " ".join(text.split()),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


class _Namespace(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Any


class Unknown(metaclass=_Namespace):
    """Stands for a class or package that only type checkers import."""


def read_types(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields; ``Unknown`` for what only type checkers import."""
    unknown: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(kind, localns=unknown, include_extras=True)
        except NameError as error:
            unknown[error.name] = Unknown


def describe_type(kind: Any, parts: dict[str, Schema]) -> Schema:
    origin = get_origin(kind)
    arguments = get_args(kind)
    if origin is Annotated:
        schema = describe_type(arguments[0], parts)
        for note in arguments[1:]:
            if isinstance(note, Range):
                schema = {**schema, **describe_range(note)}
        return schema
    if origin in (UnionType, Union):
        options = [describe_type(option, parts) for option in arguments]
        if all(list(option) == ["type"] for option in options):
            return {"type": [option["type"] for option in options]}
        return {"anyOf": options}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (tuple, list, Sequence):
        if origin is tuple and arguments[-1] is not ...:
            items = [describe_type(item, parts) for item in arguments]
            return {"type": "array", "prefixItems": items, "items": False}
        return {"type": "array", "items": describe_type(arguments[0], parts)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": describe_type(arguments[1], parts)}
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if kind is Net:
        return {"type": "string", "description": "the layers in Python, for parse_net"}
    if kind is Kind:
        return describe_type(KindName, parts)
    if kind is Task:
        return {"anyOf": [describe_task(task, parts) for task in TASKS]}
    if dataclasses.is_dataclass(kind):
        name = kind.__name__
        if name not in parts:
            parts[name] = {}
            parts[name] = describe_fields(kind, parts)
        return {"$ref": f"#/$defs/{name}"}
    return {}


def describe_task(task: type[Task], parts: dict[str, Schema]) -> Schema:
    """A task in JSON has its kind beside its fields."""
    reference = describe_type(task, parts)
    add_fields(parts[task.__name__], {"kind": {"const": task.kind.name}})
    return reference


def add_fields(schema: Schema, fields: dict[str, Schema]) -> None:
    """Add required fields before the others."""
    schema["properties"] = {**fields, **schema["properties"]}
    schema["required"] = [*fields, *schema["required"]]


def describe_range(limits: Range) -> Schema:
    names = {
        "low": "minimum",
        "high": "maximum",
        "below": "exclusiveMaximum",
        "above": "exclusiveMinimum",
    }
    values = {name: getattr(limits, field) for field, name in names.items()}
    return {name: value for name, value in values.items() if abs(value) != float("inf")}


def read_field_texts(kind: type) -> dict[str, str]:
    """What is said of each field: under Attributes or Args, below the field, or in a comment."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            texts |= read_comments(base) | read_section(inspect.getdoc(base) or "")
    return texts


def read_section(text: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    sections = re.findall(r"^(?:Attributes|Args):\n((?:    .*\n?|\n)*)", text, re.MULTILINE)
    for section in sections:
        for item in re.split(r"\n(?=    \S)", section.rstrip()):
            names, colon, meaning = item.strip().partition(":")
            if colon:
                for name in names.split(","):
                    texts[name.strip()] = " ".join(meaning.split())
    return texts


def read_comments(kind: type) -> dict[str, str]:
    """The comments beside fields or above them."""
    texts: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        comment = re.match(r"^    # (.*)", line)
        field = re.match(r"^    (\w+): [^#]*(?:# (.*))?$", line)
        if comment:
            above.append(comment[1])
            continue
        if field and (field[2] or above):
            texts[field[1]] = field[2] or " ".join(above)
        above = []
    return texts


def name_type(schema: Schema) -> str:
    """A schema in a few words, for tables."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(name_type(option) for option in schema["anyOf"])
    if "oneOf" in schema:
        return " or ".join(name_type(option) for option in schema["oneOf"])
    kind = schema.get("type", "any value")
    if isinstance(kind, list):
        return " or ".join(kind)
    if "prefixItems" in schema:
        return f"array of {len(schema['prefixItems'])}"
    if kind == "array":
        return f"array of {name_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {name_type(schema['additionalProperties'])}"
    return str(kind)
