"""A page for each command, from its options."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from lamina.cli import COMMANDS, DATA_COMMANDS, EXIT_STATUSES, GROUPS
from lamina.cli.options import OPTIONS
from lamina.cli.parsing import describe_options
from tools.source_links import write_if_changed

SHOWN_NOWHERE = ("help", "help_all")
GROUP_TITLES = {
    "data": "Data",
    "train": "Train",
    "study": "Compare and tune",
    "evaluate": "Evaluate",
    "use": "Use",
    "inspect": "Look inside",
}


def write_commands(folder: Path) -> None:
    for command in list_commands():
        file = folder / f"{command.replace(' ', '-')}.rst"
        write_if_changed(file, "\n".join(describe_command(command)))
    write_if_changed(folder / "index.rst", "\n".join(describe_commands()))


def list_commands() -> list[str]:
    """All commands, with those of ``lamina data`` after it."""
    commands = []
    for name in COMMANDS:
        commands.append(name)
        if name == "data":
            commands += [f"data {part}" for part in DATA_COMMANDS]
    return commands


def describe_commands() -> Iterator[str]:
    yield from title("Command line")
    yield "::"
    yield ""
    yield "    lamina COMMAND [OPTIONS]"
    yield "    lamina COMMAND --help"
    yield "    lamina --version"
    yield ""
    for group, commands in GROUPS.items():
        yield from title(GROUP_TITLES[group], "-")
        for command, meaning in commands.items():
            yield f":doc:`lamina {command} <{command}>`"
            yield f"    {escape(meaning).split('; see also')[0]}"
            yield ""
            for part in list_commands():
                if not part.startswith(f"{command} "):
                    continue
                kind = OPTIONS[part]
                meaning = (inspect.getdoc(kind) or "").split("\n\n")[0].rstrip(".")
                yield f":doc:`lamina {part} <{part.replace(' ', '-')}>`"
                yield f"    {escape(' '.join(meaning.split()))}"
                yield ""
    yield from title("Exit statuses", "-")
    for status, meaning in EXIT_STATUSES.items():
        yield status
        yield f"    {escape(meaning)}"
        yield ""
    yield ".. toctree::"
    yield "   :hidden:"
    yield ""
    for part in list_commands():
        yield f"   lamina {part} <{part.replace(' ', '-')}>"
    yield ""


def describe_command(command: str) -> Iterator[str]:
    kind = OPTIONS[command]
    parser = describe_options(kind, command)
    yield from title(f"lamina {command}")
    yield f".. program:: lamina {command}"
    yield ""
    positional = " ".join(
        show_value(action) for action in list_actions(parser) if not action.option_strings
    )
    yield "::"
    yield ""
    yield f"    lamina {command} {positional} [OPTIONS]".replace("  ", " ")
    yield ""
    for paragraph in (inspect.getdoc(kind) or "").split("\n\n"):
        text = " ".join(paragraph.split())
        example = re.match(r"Examples?: (.*)", text)
        if example:
            yield "::"
            yield ""
            yield f"    {example[1]}"
        else:
            yield escape(text)
        yield ""
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest not in SHOWN_NOWHERE]
        if not actions:
            continue
        yield from title(name_group(group.title or ""), "-")
        for action in actions:
            yield from describe_option(action)


def list_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for group in parser._action_groups for action in group._group_actions]


def name_group(text: str) -> str:
    names = {"positional arguments": "Arguments", "options": "Options"}
    return names.get(text, text.removesuffix(" options").capitalize())


def describe_option(action: argparse.Action) -> Iterator[str]:
    value = show_value(action)
    names = [f"{flag} {value}".strip() for flag in action.option_strings] or [value]
    yield f".. option:: {', '.join(names)}"
    yield ""
    text = " ".join((action.help or "").replace("%%", "%").split())
    text, default = split_default(text)
    sentence = text[:1].upper() + text[1:]
    yield f"   {escape(sentence)}{'' if sentence.endswith('.') else '.'}"
    yield ""
    if default:
        yield f"   Default: {escape(default)}."
        yield ""


def split_default(text: str) -> tuple[str, str]:
    """A help text, and the default that it ends with in parentheses."""
    match = re.fullmatch(r"(.*?)\s*\(default: (.*)\)", text)
    if match is None or match[2].count(")") > match[2].count("("):
        return text, ""
    return match[1].rstrip(), match[2]


def show_value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    value = action.metavar or ""
    if action.nargs == "*" and action.option_strings:
        return f"{value}..."
    return value


def escape(text: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def title(text: str, underline: str = "=") -> Iterator[str]:
    yield text
    yield underline * len(text)
    yield ""
