"""Parse a command's words with argparse, as the fields of its dataclass describe its options."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from lamina.errors import LaminaError, find_nearest, plural
from lamina.values import Range, check_values, read_texts

Options = TypeVar("Options")
METAVARS: Mapping[Any, str] = {int: "N", float: "VALUE", Path: "FILE"}
UNITS = ("PX", "FRACTION")
NUMBERS: Mapping[Any, str] = {int: "a whole number", float: "a number"}
HELP = ("-h", "--help", "--help-all")


@dataclass(frozen=True)
class Arg:
    """What a field's type, name and default do not say of an argument or option."""

    help: str = ""  # by default, the string below the field
    metavar: str = ""
    flag: str = ""  # by default, the field's name
    is_positional: bool = False


class Given(dict[str, Any]):
    """The typed values for fields of the dataclass ``kind``."""

    kind: ClassVar[type]
    group: ClassVar[str]  # its title in the help
    names: ClassVar[Collection[str]] = ()  # of the fields with a flag; by default, all
    shown: ClassVar[tuple[str, ...]]  # by ``--help``; ``--help-all`` shows all fields
    defaults: ClassVar[Mapping[str, str]] = {}  # where they are not the dataclass's
    args: ClassVar[Mapping[str, Arg]] = {}
    types: ClassVar[Mapping[str, Any]] = {}  # where they are not the dataclass's

    def flags_of(self, names: Collection[str] | None = None) -> str:
        """List the flags that were typed, or those among ``names``."""
        if names is None:
            names = list(self)
        flags = [_to_flag(name, self.args.get(name, Arg())) for name in self if name in names]
        return " and ".join(flags)


@dataclass(frozen=True)
class Option:
    """An argument or an option of a command."""

    name: str  # of its field
    flag: str  # empty for an argument
    kind: Any  # of one value
    count: int | str | None  # of values, as argparse's ``nargs``
    choices: tuple[str, ...]
    limits: tuple[Range, ...]
    default: Any
    text: str
    metavar: str
    group: str = ""
    is_further: bool = False  # only ``--help-all`` shows it

    def convert(self, text: str) -> Any:
        """Convert a typed word; raises ``LaminaError``."""
        if self.choices and text not in self.choices:
            expected = ", ".join(self.choices)
            raise LaminaError(f"{self.flag} is {text!r}; it must be one of {expected}.")
        try:
            return self.kind(text)
        except ValueError:
            expected = NUMBERS[self.kind]
            raise LaminaError(f"{self.flag} is {text!r}; it must be {expected}.") from None

    def check_range(self, value: Any) -> None:
        """Raise ``LaminaError`` for a number outside the range."""
        for limit in self.limits:
            if value not in limit:
                expected = str(limit).removeprefix("of ")
                example = self.default
                if example is None:
                    example = limit.low
                raise LaminaError(
                    f"{self.flag} is {value}; it must be {expected}. Use {self.flag} {example}."
                )


def parse_options(kind: type[Options], command: str, words: Sequence[str]) -> Options:
    """Parse a command's words into its dataclass; raise ``LaminaError`` for invalid ones."""
    if set(HELP) & set(words):
        describe_options(kind, command, shows_all="--help-all" in words).print_help()
        raise SystemExit(0)
    options = list_options(kind)
    try:
        typed = _read_words(options, words)
    except LaminaError as error:
        raise LaminaError(f"{error} Run lamina {command} --help to see the options.") from None
    for option in options:
        if option.name in typed:
            option.check_range(typed[option.name])
        elif option.default is dataclasses.MISSING:
            raise LaminaError(
                f"lamina {command} needs {option.metavar}: {option.text}. Run lamina {command}"
                " --help to see the options."
            )
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        given = _find_given(field)
        if given is not None:
            names = [part.name for part in dataclasses.fields(given.kind)]
            parts = {name: typed.pop(name) for name in names if name in typed}
            typed[field.name] = _check(given(parts))
    return kind(**typed)


def _read_words(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any]:
    """The values in a command's words, by the names of their fields."""
    before = list(words)
    after: list[str] = []
    if "--" in before:
        after = before[before.index("--") + 1 :]
        before = before[: before.index("--")]
    parser = _build_parser([option for option in options if option.flag])
    try:
        namespace, rest = parser.parse_known_args(map(_spell, before))
    except argparse.ArgumentError as error:
        _explain(error, options)
    unknown = [word for word in rest if word.startswith("-") and word != "-"]
    if unknown:
        flag = unknown[0].partition("=")[0]
        nearest = find_nearest(flag, [option.flag for option in options])
        advice = "" if nearest is None else f" Did you mean {nearest}?"
        raise LaminaError(f"Unknown option {flag}.{advice}")
    texts = vars(namespace)
    arguments = [*rest, *after]
    for option in options:
        if option.flag or not arguments:
            continue
        texts[option.name] = arguments
        if option.count is None:
            texts[option.name] = arguments.pop(0)
        else:
            arguments = []
    if arguments:
        raise LaminaError(f"Unexpected argument {arguments[0]}.")
    values = {}
    for option in options:
        if option.name in texts:
            values[option.name] = _convert(option, texts[option.name])
    return values


def _spell(word: str) -> str:
    """A word with hyphens in its flag: ``--label_smoothing=0.1`` is accepted, too."""
    flag, equals, value = word.partition("=")
    if not flag.startswith("--"):
        return word
    return f"{flag.replace('_', '-')}{equals}{value}"


def _convert(option: Option, texts: Any) -> Any:
    if isinstance(texts, bool):
        return texts
    if isinstance(texts, str):
        return option.convert(texts)
    return tuple(map(option.convert, texts))


def _explain(error: argparse.ArgumentError, options: Sequence[Option]) -> NoReturn:
    """Raise a ``LaminaError`` in place of argparse's message about a number of values."""
    flag = (error.argument_name or "").partition("/")[0]
    for option in options:
        if option.flag == flag and isinstance(option.count, int | None):
            needed = plural(option.count or 1, "value", "values")
            if option.kind is bool:
                needed = "no value"
            raise LaminaError(f"{flag} needs {needed}.")
    raise LaminaError("The arguments cannot be used.")


def _check(given: Given) -> Given:
    """Check the typed values of some fields."""
    checked = type(given)()
    for field in dataclasses.fields(given.kind):
        if field.name not in given:
            continue
        typed = {field.name: given[field.name]}
        try:
            checked |= check_values(given.kind, typed, LaminaError)
        except LaminaError as error:
            flag = type(given)(typed).flags_of()
            advice = f"Leave out {flag} for the default."
            if field.default:
                advice = f"Try {flag} {field.default}."
            raise LaminaError(f"{error} {advice}") from None
    return checked


def refuse(options: Any, reason: str, *names: str) -> None:
    """Raise ``LaminaError`` with a reason if options with these names were given."""
    flags: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name not in names:
            continue
        if isinstance(value, Given):
            flags += filter(None, [value.flags_of()])
        elif value is False and field.default is not False:
            flags.append(_to_flag(f"no-{field.name}", Arg()))
        elif value != field.default:
            flags.append(_to_flag(field.name, Arg()))
    if flags:
        raise LaminaError(f"{reason} Leave out {' and '.join(flags)}.")


def describe_options(
    kind: type[Any], command: str, *, shows_all: bool = True
) -> argparse.ArgumentParser:
    """A command's parser for its help: with all options, or those that most people need."""
    options = list_options(kind)
    width = shutil.get_terminal_size().columns - 2
    paragraphs = (inspect.getdoc(kind) or "").split("\n\n")
    text = "\n\n".join(textwrap.fill(" ".join(text.split()), width) for text in paragraphs)
    arguments = [option.metavar for option in options if not option.flag]
    parser = _build_parser(options, shows_all=shows_all)
    parser.usage = " ".join(["lamina", command, *arguments, "[OPTIONS]"])
    parser.description = text
    return parser


def _build_parser(options: Sequence[Option], *, shows_all: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # the dataclass has the defaults
        allow_abbrev=False,
        exit_on_error=False,
    )
    if any(option.is_further for option in options):
        parser.add_argument("--help-all", action="help", help="show all options and exit")
    boxes: dict[str, Any] = {"": parser}
    for option in options:
        if option.group not in boxes:
            boxes[option.group] = parser.add_argument_group(f"{option.group} options")
        _add(boxes[option.group], option, is_shown=shows_all or not option.is_further)
    return parser


def _add(box: Any, option: Option, *, is_shown: bool) -> None:
    text = argparse.SUPPRESS
    if is_shown:
        text = option.text.replace("%", "%%")
    if not option.flag:
        count = option.count or "?"  # whether it may be left out is checked later
        box.add_argument(option.name, nargs=count, metavar=option.metavar, help=text)
    elif option.kind is not bool:
        metavar: Any = option.metavar
        if isinstance(option.count, int):
            metavar = tuple(metavar.split())
        box.add_argument(
            option.flag, dest=option.name, nargs=option.count, metavar=metavar, help=text
        )
    elif option.default is False:
        box.add_argument(option.flag, dest=option.name, action="store_true", help=text)
    else:
        switch = argparse.BooleanOptionalAction
        box.add_argument(option.flag, dest=option.name, action=switch, help=text)


def list_options(kind: type[Any]) -> list[Option]:
    """The arguments and options of a command, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        texts |= read_texts(base)
    groups = getattr(kind, "in_groups", {})
    further = getattr(kind, "in_help_all", ())
    options = []
    for field in dataclasses.fields(kind):
        given = _find_given(field)
        if given is not None:
            options += _list_given(given)
            continue
        option = _make_option(field, hints[field.name], texts.get(field.name, ""))
        group = groups.get(field.name, "")
        options.append(dataclasses.replace(option, group=group, is_further=field.name in further))
    return options


def _find_given(field: dataclasses.Field[Any]) -> type[Given] | None:
    """The class of a field that stands for the fields of another dataclass."""
    factory: Any = field.default_factory
    if isinstance(factory, type) and issubclass(factory, Given):
        return factory
    return None


def _list_given(given: type[Given]) -> list[Option]:
    hints = {**get_type_hints(given.kind, include_extras=True), **given.types}
    texts = read_texts(given.kind)
    options = []
    for field in dataclasses.fields(given.kind):
        if given.names and field.name not in given.names:
            continue
        hint: Any = Annotated[hints[field.name], given.args.get(field.name, Arg())]
        default = given.defaults.get(field.name, field.default)
        option = _make_option(field, hint, texts[field.name], default)
        options.append(
            dataclasses.replace(
                option,
                default=None,  # the dataclass or its recipe has it
                limits=(),  # the dataclass checks them
                group=given.group,
                is_further=field.name not in given.shown,
            )
        )
    return options


def _make_option(
    field: dataclasses.Field[Any], hint: Any, text: str, shown_default: Any = None
) -> Option:
    arg = Arg()
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, Arg):
            arg = note
    kind, count, choices = _read_type(hint)
    default = field.default if shown_default is None else shown_default
    text = text or arg.help
    if default is True:
        text = f"{text} (default: on)"
    elif default not in (None, (), dataclasses.MISSING) and default is not False:
        text = f"{text} (default: {default})"
    return Option(
        name=field.name,
        flag="" if arg.is_positional else _to_flag(field.name, arg),
        kind=kind,
        count=count,
        choices=choices,
        limits=tuple(note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Range)),
        default=field.default,
        text=text,
        metavar=arg.metavar or _name_value(field.name, kind, choices),
    )


def _read_type(hint: Any) -> tuple[Any, int | str | None, tuple[str, ...]]:
    """The type of a value, argparse's number of values, and the choices."""
    origin = get_origin(hint)
    parts = get_args(hint)
    if origin in (Annotated, Union, UnionType):
        return _read_type(parts[0])
    if origin is Literal:
        return str, None, parts
    if origin is tuple:
        return parts[0], "*" if parts[-1] is ... else len(parts), ()
    return hint, None, ()


def _name_value(name: str, kind: Any, choices: tuple[str, ...]) -> str:
    """What help shows in place of a value."""
    if choices:
        return f"{{{','.join(choices)}}}"
    word = name.rpartition("_")[2].upper()
    if word in UNITS:
        return word
    return METAVARS.get(kind, word)


def _to_flag(name: str, arg: Arg) -> str:
    return f"--{arg.flag or name.replace('_', '-')}"
