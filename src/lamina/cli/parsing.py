"""Parse a command's options with tyro, which derives flags and help from a dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import textwrap
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar, get_args, get_type_hints

import tyro

# A private module, which tyro's upper bound in pyproject.toml and the tests of messages guard.
from tyro._errors import (
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    UnrecognizedArgs,
    on_parse_error,
)
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from lamina.errors import LaminaError, find_nearest, plural
from lamina.values import Range, check_values, read_texts

Options = TypeVar("Options")
METAVARS: Mapping[Any, str] = {int: "N", float: "VALUE", Path: "FILE", str: "TEXT"}
UNITS = ("PX", "FRACTION")
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
_HELP_ALL: Any = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")]


class Given(dict[str, Any]):
    """The typed values for fields of the dataclass ``kind``; each field has a flag."""

    kind: ClassVar[type]
    group: ClassVar[str]  # its title in the help
    shown: ClassVar[tuple[str, ...]]  # by ``--help``; ``--help-all`` shows all fields
    defaults: ClassVar[Mapping[str, str]] = {}  # where they are not the dataclass's
    flags: ClassVar[Mapping[str, Any]] = {}  # ``tyro.conf.arg`` for some fields
    types: ClassVar[Mapping[str, Any]] = {}  # where they are not the dataclass's

    @classmethod
    def check(cls, **values: Any) -> Given:
        """Keep the values that were typed, and check them."""
        defaults = {field.name: field.default for field in dataclasses.fields(cls.kind)}
        typed = cls()
        for name, value in values.items():
            if value is None:
                continue
            try:
                typed |= check_values(cls.kind, {name: value}, LaminaError)
            except LaminaError as error:
                flag = cls({name: value}).flags_of()
                advice = f"Leave out {flag} for the default."
                if defaults[name]:
                    advice = f"Try {flag} {defaults[name]}."
                raise LaminaError(f"{error} {advice}") from None
        return typed

    def flags_of(self, names: Collection[str] | None = None) -> str:
        """List the flags that were typed, or those among ``names``."""
        flags = []
        for name in self:
            if names is None or name in names:
                renamed = getattr(self.flags.get(name), "name", None)
                flags.append(f"--{renamed or name.replace('_', '-')}")
        return " and ".join(flags)


class _Box:
    fields: ClassVar[tuple[StructFieldSpec, ...]]


def parse_options(kind: type[Options], command: str, arguments: Sequence[str]) -> Options:
    """Parse a command's arguments into its dataclass; raise ``LaminaError`` for invalid ones."""
    width = shutil.get_terminal_size().columns
    # tyro does not wrap a description, and joins its lines unless they begin with a space.
    paragraphs = map(_join_lines, (inspect.getdoc(kind) or "").split("\n\n"))
    description = "\n".join(
        textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ")
        for text in paragraphs
    )
    words = list(arguments)
    shows_further = None
    if {"-h", "--help", "--help-all"} & set(words):
        shows_further = "--help-all" in words
        words = ["--help"]
    with on_parse_error(partial(_explain, kind, command)):
        options = tyro.cli(
            kind,
            prog=f"lamina {command}",
            description=description,
            args=words,
            config=CONFIG,
            registry=_build_registry(shows_further),
        )
    _check_ranges(options)
    return options


def describe_options(kind: type[Any], command: str) -> Any:
    """The argparse parser of a command, with all its options in their groups."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return tyro.extras.get_parser(
            kind, prog=f"lamina {command}", config=CONFIG, registry=_build_registry(True)
        )


def _build_registry(shows_further: bool | None) -> ConstructorRegistry:
    registry = ConstructorRegistry()
    registry.primitive_rule(_read_number)
    registry.primitive_rule(_read_optional)
    registry.struct_rule(partial(_read_struct, shows_further=shows_further))
    return registry


def _check_ranges(options: Any) -> None:
    """Raise ``LaminaError`` for a number outside the ``Range`` of its option."""
    for field in _list_fields(type(options)):
        value = getattr(options, field.name)
        for note in getattr(field.type, "__metadata__", ()):
            if isinstance(note, Range) and value is not None and value not in note:
                flag = _to_flag(field.name)
                expected = str(note).removeprefix("of ")
                example = field.default
                if example is None:
                    example = note.low
                raise LaminaError(
                    f"{flag} is {value}; it must be {expected}. Use {flag} {example}."
                )


def refuse(options: Any, reason: str, *names: str) -> None:
    """Raise ``LaminaError`` with a reason if options with these names were given."""
    flags = []
    for field in _list_fields(type(options)):
        value = getattr(options, field.name)
        if field.name not in names or value == field.default:
            continue
        if isinstance(value, Given):
            flags.append(value.flags_of())
        elif value is False:
            flags.append(_to_flag(f"no-{field.name}"))
        else:
            flags.append(_to_flag(field.name))
    if flags:
        raise LaminaError(f"{reason} Leave out {' and '.join(flags)}.")


def _to_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _explain(kind: Any, command: str, event: ParseErrorEvent) -> NoReturn:
    """Raise a ``LaminaError`` in place of tyro's message about invalid arguments."""
    match event:
        case UnrecognizedArgs(tokens=[token, *_]) if token.startswith("-"):
            flag = token.partition("=")[0]
            nearest = find_nearest(flag, _list_flags(kind))
            problem = f"Unknown option {flag}."
            if nearest is not None:
                problem = f"{problem} Did you mean {nearest}?"
        case UnrecognizedArgs(tokens=[token, *_]):
            problem = f"Unexpected argument {token}."
        case InvalidChoice(argument=argument, value=value, choices=choices):
            expected = ", ".join(choices)
            problem = f"{argument.display_name()} is {value!r}; it must be one of {expected}."
        case MissingArgs(missing_arguments=[missing, *_]):
            field = missing.arg.field
            text = field.argconf.help or field.helptext
            problem = f"lamina {command} needs {missing.arg.lowered.metavar}: {text}."
        case BadValue(argument=argument) if isinstance(argument.lowered.nargs, int):
            needed = plural(argument.lowered.nargs, "value", "values")
            problem = f"{argument.display_name()} needs {needed}."
        case InstantiationFailure(message=message, argument=argument) if argument is not None:
            problem = f"{argument.display_name()} {message}."
        case _:
            problem = "The arguments cannot be used."
    raise LaminaError(f"{problem} Run lamina {command} --help to see the options.")


def _list_flags(kind: Any) -> list[str]:
    """The flags of a command's options."""
    flags: list[str] = []
    for field in _list_fields(kind):
        fields = [field]
        if isinstance(field.default, Given):
            fields = _list_given(type(field.default))
        for listed in fields:
            notes = getattr(listed.type, "__metadata__", ())
            names = [getattr(note, "name", None) for note in notes]
            name = next(filter(None, names), listed.name)
            flags.append(_to_flag(name))
    return flags


def _read_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Parse numbers with messages for people."""
    if info.type not in (int, float):
        return None
    kind: Any = info.type
    what = "a whole number" if kind is int else "a number"

    def parse(texts: list[str]) -> Any:
        try:
            return kind(texts[0])
        except ValueError:
            raise ValueError(f"is {texts[0]!r}; it must be {what}") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def _read_optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Make tyro parse ``T | None`` as ``T``: nobody types None."""
    inner, *others = get_args(info.type) or (None,)
    if others != [NoneType]:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(inner, info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec, is_instance=lambda _: True, str_from_instance=lambda value: [str(value)]
    )


def _read_struct(
    info: StructTypeInfo, *, shows_further: bool | None
) -> StructConstructorSpec | None:
    """List a dataclass's fields for tyro. For help, group them; ``shows_further`` includes all."""
    kind: Any = info.type
    if not isinstance(kind, type):
        return None
    if issubclass(kind, _Box):
        return StructConstructorSpec(dict, kind.fields)
    if issubclass(kind, Given):
        return StructConstructorSpec(kind.check, tuple(_list_given(kind)))
    if not dataclasses.is_dataclass(kind):
        return None
    fields = _list_fields(kind)
    if shows_further is None:
        return StructConstructorSpec(kind, tuple(fields))
    options: list[StructFieldSpec] = []
    boxes: dict[str, list[StructFieldSpec]] = {}
    further = getattr(kind, "in_help_all", ())
    groups = getattr(kind, "in_groups", {})
    has_further = False
    for field in fields:
        group = groups.get(field.name)
        listed = [field]
        shown = [field]
        if isinstance(field.default, Given):
            group = field.default.group
            listed = _list_given(type(field.default))
            shown = [member for member in listed if member.name in field.default.shown]
        if field.name in further:
            shown = []
        has_further |= shown != listed
        if shows_further:
            shown = listed
        box = options
        if group is not None:
            box = boxes.setdefault(group, [])
        box.extend(shown)
    if has_further:
        options.append(StructFieldSpec("help_all", _HELP_ALL, False, "show all options and exit"))
    for name, members in boxes.items():
        if members:
            kind = type(name, (_Box,), {"fields": tuple(members)})
            options.append(StructFieldSpec(name, kind, tyro.MISSING_NONPROP, ""))
    return StructConstructorSpec(info.type, tuple(options))


def _list_fields(kind: Any) -> list[StructFieldSpec]:
    """List a dataclass's fields for tyro, each with its help on one line."""
    types = get_type_hints(kind, include_extras=True)
    texts: dict[str, str] = {}
    for base in kind.__mro__[-2::-1]:
        texts |= read_texts(base)
    fields = []
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING:
            default = tyro.MISSING_NONPROP
        hint = None
        if default is True:
            hint = "(default: on)"
        elif _is_unset(default):
            hint = ""
        option = _annotate(types[field.name], field, hint)
        fields.append(StructFieldSpec(field.name, option, default, texts.get(field.name)))
    return fields


def _list_given(kind: type[Given]) -> list[StructFieldSpec]:
    """List the fields of ``kind.kind`` for tyro, none of them typed."""
    types = {**get_type_hints(kind.kind, include_extras=True), **kind.types}
    texts = read_texts(kind.kind)
    fields = []
    for field in dataclasses.fields(kind.kind):
        hint = ""
        if field.name in kind.defaults:
            hint = f"(default: {kind.defaults[field.name]})"
        elif not _is_unset(field.default):
            hint = f"(default: {field.default})"
        annotated: Any = Annotated[types[field.name] | None, kind.flags.get(field.name)]
        option = _annotate(annotated, field, hint)
        fields.append(StructFieldSpec(field.name, option, None, texts[field.name]))
    return fields


def _annotate(kind: Any, field: dataclasses.Field[Any], hint: str | None) -> Any:
    """The type of an option with its default in the help, and a name for its value."""
    notes = getattr(kind, "__metadata__", ())
    metavar = None
    leaf = kind
    while get_args(leaf):
        leaf = get_args(leaf)[0]
    if leaf in METAVARS and not any(getattr(note, "metavar", None) for note in notes):
        word = field.name.rpartition("_")[2].upper()
        metavar = METAVARS[leaf]
        if leaf is str or word in UNITS:
            metavar = word
        if field.default == ():
            metavar = f"{metavar}..."
    return Annotated[kind, tyro.conf.arg(help_behavior_hint=hint, metavar=metavar)]


def _is_unset(default: object) -> bool:
    """Whether help leaves out a default because the option's text explains it."""
    return default is None or default is False or default == ()


def _join_lines(text: str) -> str:
    return " ".join(text.split())
