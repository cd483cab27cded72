"""Parse a command's options with tyro, which derives flags and help from a dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from lamina.values import check_values, read_texts

Options = TypeVar("Options")
_HELP_ALL: Any = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Group:
    """A group of options in the help; if ``is_further``, only ``--help-all`` shows it."""

    name: str
    is_further: bool = False
    text: str = ""


class Given(dict[str, Any]):
    """The typed values for fields of the dataclass ``kind``; each field has a flag."""

    kind: ClassVar[type]
    error: ClassVar[type[LaminaError]]
    shown: ClassVar[tuple[str, ...]]  # by ``--help``; ``--help-all`` shows all fields
    defaults: ClassVar[Mapping[str, str]] = {}  # where they are not the dataclass's
    flags: ClassVar[Mapping[str, Any]] = {}  # ``tyro.conf.arg`` for some fields
    left_out: ClassVar[Collection[str]] = ()  # fields without a flag

    @classmethod
    def check(cls, **values: Any) -> Given:
        """Keep the values that were typed, and check them."""
        defaults = {field.name: field.default for field in dataclasses.fields(cls.kind)}
        given = cls()
        for name, value in values.items():
            if value is not None:
                try:
                    given |= check_values(cls.kind, {name: value}, cls.error)
                except LaminaError as error:
                    flag, default = cls({name: value}).flags_of(), defaults[name]
                    advice = (
                        f"Try {flag} {default}."
                        if default
                        else f"Leave out {flag} for the default."
                    )
                    raise cls.error(f"{error} {advice}") from None
        return given

    def flags_of(self, names: Collection[str] | None = None) -> str:
        """List the flags that were typed, or those among ``names``."""
        wanted = [name for name in self if names is None or name in names]
        own = [
            getattr(self.flags.get(name), "name", None) or name.replace("_", "-") for name in wanted
        ]
        return " and ".join(f"--{flag}" for flag in own)


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
    shows_all = "--help-all" in arguments
    asks_help = shows_all or not {"-h", "--help"}.isdisjoint(arguments)
    registry = ConstructorRegistry()
    registry.primitive_rule(_read_number)
    registry.primitive_rule(_read_optional)
    registry.struct_rule(partial(_read_struct, shows_further=shows_all if asks_help else None))
    with on_parse_error(partial(_refuse, kind, command)):
        return tyro.cli(
            kind,
            prog=f"lamina {command}",
            description=description,
            args=["--help"] if asks_help else list(arguments),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
            registry=registry,
        )


def _refuse(kind: Any, command: str, event: ParseErrorEvent) -> NoReturn:
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
    for field, _ in _list_fields(kind):
        fields = [field]
        if isinstance(field.default, Given):
            fields = _list_given(type(field.default))
        for listed in fields:
            notes = getattr(listed.type, "__metadata__", ())
            names = [getattr(note, "name", None) for note in notes if not isinstance(note, Group)]
            name = next(filter(None, names), listed.name)
            flags.append(f"--{name.replace('_', '-')}")
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
        return StructConstructorSpec(kind, tuple(field for field, _ in fields))
    options: list[StructFieldSpec] = []
    boxes: dict[str, list[StructFieldSpec]] = {}
    has_further = False
    for field, group in fields:
        given = type(field.default) if isinstance(field.default, Given) else None
        every = [field] if given is None else _list_given(given)
        most = [one for one in every if given is None or one.name in given.shown]
        shown = every if shows_further else [] if group.is_further else most
        has_further |= group.is_further or most != every
        (boxes.setdefault(group.name, []) if group.name else options).extend(shown)
    if has_further:
        options.append(StructFieldSpec("help_all", _HELP_ALL, False, "show all options and exit"))
    texts = {group.name: group.text for _, group in fields if group.text}
    for name, members in boxes.items():
        if members:
            box = type(name, (_Box,), {"fields": tuple(members)})
            options.append(StructFieldSpec(name, box, tyro.MISSING_NONPROP, texts.get(name, "")))
    return StructConstructorSpec(kind, tuple(options))


def _list_fields(kind: Any) -> list[tuple[StructFieldSpec, Group]]:
    """List a dataclass's fields for tyro, each with its help on one line, and their groups."""
    types, texts = get_type_hints(kind, include_extras=True), read_texts(kind)
    found = []
    for field in dataclasses.fields(kind):
        default = (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        if default is dataclasses.MISSING:
            default = tyro.MISSING_NONPROP
        notes = getattr(types[field.name], "__metadata__", ())
        group = next((note for note in notes if isinstance(note, Group)), Group(""))
        shown = types[field.name]
        if _is_unset(default) or default is True:
            hint = "(default: on)" if default is True else ""
            shown = Annotated[shown, tyro.conf.arg(help_behavior_hint=hint)]
        found.append((StructFieldSpec(field.name, shown, default, texts.get(field.name)), group))
    return found


def _list_given(kind: type[Given]) -> list[StructFieldSpec]:
    """List the fields of ``kind.kind`` for tyro, none of them typed."""
    types, texts = get_type_hints(kind.kind, include_extras=True), read_texts(kind.kind)
    found = []
    for field in dataclasses.fields(kind.kind):
        if field.name in kind.left_out:
            continue
        default = kind.defaults.get(field.name, "" if _is_unset(field.default) else field.default)
        hint = "" if default == "" else f"(default: {default})"
        notes = (tyro.conf.arg(help_behavior_hint=hint), kind.flags.get(field.name))
        optional: Any = Annotated[types[field.name] | None, *notes]
        found.append(StructFieldSpec(field.name, optional, None, texts[field.name]))
    return found


def _is_unset(default: object) -> bool:
    """Whether help leaves out a default because the option's text explains it."""
    return default is None or default is False or default == ()


def _join_lines(text: str) -> str:
    return " ".join(text.split())
