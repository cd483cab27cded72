"""A page for each command: its help."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from lamina.cli import COMMANDS, DATA_COMMANDS, EXIT_STATUSES, GROUPS
from lamina.cli.options import OPTIONS
from lamina.cli.parsing import describe_options
from tools.source_links import write_if_changed

COLUMNS = "88"
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
        with mock.patch.dict(os.environ, COLUMNS=COLUMNS):
            text = "\n".join(describe_command(command))
        write_if_changed(file, text)
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
    """What ``lamina COMMAND --help-all`` prints."""
    yield from title(f"lamina {command}")
    yield ".. code-block:: text"
    yield ""
    yield textwrap.indent(describe_options(OPTIONS[command], command).format_help(), "    ")


def escape(text: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def title(text: str, underline: str = "=") -> Iterator[str]:
    yield text
    yield underline * len(text)
    yield ""
