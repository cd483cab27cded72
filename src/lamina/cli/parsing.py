"""A command's options: flags that tyro makes of the command's dataclass, and their help."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from lamina.errors import LaminaError, plural
from lamina.values import check_values, read_texts

Options = TypeVar("Options")
_HELP_ALL: Any = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Further:
    """Marks an option that ``--help`` leaves out, and ``--help-all`` shows in this group."""

    group: str


class Given(dict[str, Any]):
    """Flags for a dataclass's fields, of which ``--help`` shows those in ``shown``; it holds those given, checked."""

    kind: ClassVar[type]
    error: ClassVar[type[LaminaError]]
    shown: ClassVar[tuple[str, ...]]
    flags: ClassVar[Mapping[str, Any]] = {}  # ``tyro.conf.arg`` for some

    @classmethod
    def check(cls, **values: Any) -> Given:
        """Those that are given."""
        defaults = {field.name: field.default for field in dataclasses.fields(cls.kind)}
        given = cls()
        for name, value in values.items():
            if value is not None:
                try:
                    given |= check_values(cls.kind, {name: value}, cls.error)
                except LaminaError as error:
                    flag, default = cls({name: value}).flags_of(), defaults[name]
                    advice = f"Try {flag} {default}." if default else f"Leave out {flag} for the default."
                    raise cls.error(f"{error} {advice}") from None
        return given

    def flags_of(self, names: Collection[str] | None = None) -> str:
        """The flags of those given, or of those among ``names``, in words."""
        wanted = [name for name in self if names is None or name in names]
        own = [getattr(self.flags.get(name), "name", None) or name.replace("_", "-") for name in wanted]
        return " and ".join(f"--{flag}" for flag in own)


class _Box:
    """Options that are shown together."""

    fields: ClassVar[tuple[StructFieldSpec, ...]]


def parse_options(kind: type[Options], command: str, arguments: Sequence[str]) -> Options:
    """Read a command's arguments into its dataclass; ``LaminaError`` for invalid ones."""
    width = shutil.get_terminal_size().columns
    # tyro does not wrap a description, and joins its lines unless they begin with a space.
    text = _join_lines(inspect.getdoc(kind) or "")
    description = textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ")
    shows_all = "--help-all" in arguments
    asks_help = shows_all or not {"-h", "--help"}.isdisjoint(arguments)
    registry = ConstructorRegistry()
    registry.primitive_rule(_read_optional)
    registry.struct_rule(partial(_read_struct, shows_further=shows_all if asks_help else None))
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                kind,
                prog=f"lamina {command}",
                description=description,
                args=["--help"] if asks_help else list(arguments),
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
                registry=registry,
            )
    except SystemExit as end:
        if not end.code:  # of --help
            raise
        raise LaminaError(_explain(box.getvalue(), command)) from None


def _explain(box: str, command: str) -> str:
    """What tyro says in a box, as one message."""
    text = _join_lines(re.sub(r"[│╭╮╰╯]", "", box.partition("\n")[2]))  # without its title
    problem, *others = filter(None, (part.strip() for part in re.split("[─-]{8,}", text)))
    if found := re.match(r"Unrecognized options: ([^\s,]+)", problem):
        nearest = re.search(r"--[\w-]+", others[0]) if "Perhaps" in others[0] else None
        what = "option" if found[1].startswith("-") else "place for"
        problem = f"There is no {what} {found[1]}." + (f" Did you mean {nearest[0]}?" if nearest else "")
    elif found := re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*?),?\)", problem):
        problem = f"{found[2]} was {found[1]!r}, but takes one of {found[3]}."
    elif found := re.match(r"Error parsing (\S+): .*?(int\(\)|float).*: ('.*')", problem):
        problem = f"{found[1]} was {found[3]}, but takes a {'whole ' * (found[2] == 'int()')}number."
    elif found := re.match(r"Missing from (lamina \w+): (\S+) (.*) \(required\)", problem):
        problem = f"{found[1]} needs {found[2]}: {found[3]}."
    elif found := re.match(r"Missing value for argument '(.*)'\. Expected (\d+)", problem):
        problem = f"{found[1]} takes {plural(int(found[2]), 'value', 'values')}, got fewer."
    return f"{problem} Type lamina {command} --help for the options."


def _read_optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """What tyro is to know of a type or ``None``: the same as of the type, as nobody types None."""
    inner, *others = get_args(info.type) or (None,)
    if others != [NoneType]:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(inner, info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(spec, is_instance=lambda _: True, str_from_instance=lambda value: [str(value)])


def _read_struct(info: StructTypeInfo, *, shows_further: bool | None) -> StructConstructorSpec | None:
    """What tyro is to know of a dataclass; for help, ``shows_further`` says whether all options are in it."""
    kind: Any = info.type
    if not isinstance(kind, type):
        return None
    if issubclass(kind, _Box):
        return StructConstructorSpec(dict, kind.fields)
    if issubclass(kind, Given):
        shown = [field for field in _list_given(kind) if shows_further is not False or field.name in kind.shown]
        return StructConstructorSpec(kind.check, tuple(shown))
    if not dataclasses.is_dataclass(kind):
        return None
    fields = _list_fields(kind)
    if shows_further is None:
        return StructConstructorSpec(kind, tuple(field for field, _ in fields))
    shown = [field for field, group in fields if group is None]
    groups = dict.fromkeys(group for _, group in fields if group is not None)
    if groups or any(isinstance(field.default, Given) for field in shown):
        shown.append(StructFieldSpec("help_all", _HELP_ALL, False, "show all options"))
    for name in groups if shows_further else ():
        box = type(name, (_Box,), {"fields": tuple(field for field, group in fields if group == name)})
        shown.append(StructFieldSpec(name, box, tyro.MISSING_NONPROP, ""))
    return StructConstructorSpec(kind, tuple(shown))


def _list_fields(kind: Any) -> list[tuple[StructFieldSpec, str | None]]:
    """A dataclass's fields as tyro reads them, but each text on one line; and the groups of those in ``--help-all``."""
    types, texts = get_type_hints(kind, include_extras=True), read_texts(kind)
    found = []
    for field in dataclasses.fields(kind):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default is dataclasses.MISSING:
            default = tyro.MISSING_NONPROP
        notes = getattr(types[field.name], "__metadata__", ())
        group = next((note.group for note in notes if isinstance(note, Further)), None)
        shown = types[field.name]
        if _is_unset(default):
            shown = Annotated[shown, tyro.conf.arg(help_behavior_hint="")]
        found.append((StructFieldSpec(field.name, shown, default, texts.get(field.name)), group))
    return found


def _list_given(kind: type[Given]) -> list[StructFieldSpec]:
    """The fields of the dataclass that ``kind`` is for, none of them given."""
    types, texts = get_type_hints(kind.kind, include_extras=True), read_texts(kind.kind)
    found = []
    for field in dataclasses.fields(kind.kind):
        hint = "" if _is_unset(field.default) else f"(default: {field.default})"
        notes = (tyro.conf.arg(help_behavior_hint=hint), kind.flags.get(field.name))
        optional: Any = Annotated[types[field.name] | None, *notes]
        found.append(StructFieldSpec(field.name, optional, None, texts[field.name]))
    return found


def _is_unset(default: object) -> bool:
    """Whether a default says nothing that the option's text does not say."""
    return default is None or default is False or default == ()


def _join_lines(text: str) -> str:
    return " ".join(text.split())
