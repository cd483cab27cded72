"""A command's options: flags that tyro makes of the command's dataclass, and their help."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict, TypeVar, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

Options = TypeVar("Options")

_REGISTRY = ConstructorRegistry()


def parse_options(kind: type[Options], command: str, arguments: Sequence[str]) -> Options:
    """Read a command's arguments into its dataclass; invalid ones end the process with status 2 and a message."""
    width = shutil.get_terminal_size().columns
    # tyro does not wrap a description, and joins its lines unless they begin with a space.
    text = _join_lines(inspect.getdoc(kind) or "")
    description = textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ")
    return tyro.cli(
        kind,
        prog=f"lamina {command}",
        description=description,
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        registry=_REGISTRY,
    )


def given_fields(kind: type, flags: Mapping[str, object] | None = None) -> Any:
    """The type of an option with the fields of the dataclass ``kind`` as flags; its value is a dict of those given.

    ``flags`` holds ``tyro.conf.arg`` for some of the fields.
    """
    types, texts = get_type_hints(kind, include_extras=True), _read_texts(kind)
    entries: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        hint = f"(default: {field.default})" if field.default not in (None, ()) else ""
        help_text = tyro.conf.arg(help=texts[field.name], help_behavior_hint=hint)
        entries[field.name] = Annotated[types[field.name], help_text, (flags or {}).get(field.name)]
    return TypedDict(kind.__name__, entries, total=False)  # type: ignore[operator]


@_REGISTRY.struct_rule
def _read_dataclass(info: StructTypeInfo) -> StructConstructorSpec | None:
    """As tyro reads dataclasses, but with each help text on one line, which tyro breaks to the terminal's width."""
    if not dataclasses.is_dataclass(info.type):
        return None
    types, texts = get_type_hints(info.type, include_extras=True), _read_texts(info.type)
    for field in dataclasses.fields(info.type):
        if field.default is False:
            types[field.name] = Annotated[types[field.name], tyro.conf.arg(help_behavior_hint="")]
    fields = tuple(
        StructFieldSpec(
            name=field.name,
            type=types[field.name],
            default=tyro.MISSING_NONPROP if field.default is dataclasses.MISSING else field.default,
            helptext=texts.get(field.name),
        )
        for field in dataclasses.fields(info.type)
    )
    return StructConstructorSpec(instantiate=info.type, fields=fields)


def _read_texts(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    texts = {}
    for field, below in itertools.pairwise(getattr(definition, "body", [])):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = _join_lines(text)
    return texts


def _join_lines(text: str) -> str:
    return " ".join(text.split())
