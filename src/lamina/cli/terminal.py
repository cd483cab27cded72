"""What a command says and where: a table and a bar for people, plain lines for a pipe, JSON lines for a program."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

Options = TypeVar("Options")


def parse_options(
    kind: type[Options], command: str, arguments: Sequence[str], default: Options | None = None
) -> Options:
    """Read a command's arguments into its dataclass; wrong ones end the process with status 2 and a message."""
    return tyro.cli(
        kind,
        prog=f"lamina {command}",
        args=list(arguments),
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


@dataclass(frozen=True)
class Terminal:
    """Where a command's words go: figures to stdout, remarks and progress to stderr.

    Attributes:
        as_json: one JSON object a line on stdout, and nothing else there.
        command: the words that were typed.
    """

    as_json: bool = False
    command: tuple[str, ...] = ()
    out: Console = field(default_factory=lambda: Console(soft_wrap=True, highlight=False, markup=False, emoji=False))
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, markup=False, emoji=False))

    def remark(self, text: str) -> None:
        """Tell a person something beside the figures."""
        self.err.print(Text(text), soft_wrap=True)

    def say(self, text: str) -> None:
        """Tell a figure; in JSON the same is in an event."""
        if not self.as_json:
            self.out.print(Text(text))

    def emit(self, event: str, **values: Any) -> None:
        """Tell a program something; people are told by other words."""
        if self.as_json:
            print(json.dumps({"event": event, **values}, ensure_ascii=False), flush=True)

    def tabulate(self, heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> None:
        """A table whose first ``texts`` columns are words and whose others are figures; tabs between them in a pipe."""
        if self.as_json:
            return
        if not self.out.is_terminal:
            for row in [heads, *rows]:
                self.out.print(Text("\t".join(row)))
            return
        table = Table(header_style="bold", pad_edge=False)
        for place, head in enumerate(heads):
            table.add_column(head, justify="left" if place < texts else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self.out.print(table)

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A bar on a person's screen while the block works; call what it gives with (what, done, total)."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=self.err, transient=True, disable=not self.err.is_terminal)
        task = bar.add_task("", total=None, visible=False)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total, visible=True)

        with bar:
            yield show


@contextmanager
def warnings_as_remarks(terminal: Terminal) -> Iterator[None]:
    """Show lamina's warnings as one line each for people, in place of Python's two with a file and a line number."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        terminal.remark(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", category=UserWarning)
        warnings.showwarning = show
        yield
