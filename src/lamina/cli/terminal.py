"""Output: tables and progress bars for people, plain lines for a pipe, JSON lines for a program."""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from lamina.errors import RecipeError
from lamina.text import build_table, escape, make_bar

QUIET_SECONDS = 2.0  # time before a progress bar is shown, in commands that are usually done by then


def read_seconds(flag: str, text: str) -> float:
    """A flag's time, such as ``60s``, ``5m`` or ``1h``, in seconds.

    >>> read_seconds("--save-every", "1.5m")
    90.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text, re.ASCII)
    if found is None:
        raise RecipeError(f"{flag} was {text!r}, but takes a time such as 30s, 5m or 1h.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


class PlainConsole(Console):
    """A console that prints text as it is, and raises on a broken pipe instead of ending the process."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to ``main``: rich would end the process as if lamina had failed."""
        raise BrokenPipeError


class Terminal:
    """Where a command's output goes: results to stdout, remarks, warnings and progress to stderr.

    ``as_json`` allows only JSON objects, one per line, on stdout; ``command`` is what was typed. All text is escaped: a
    name from data cannot start a line of its own, or reach the terminal as a command. One that ``is_quiet`` prints
    nothing, as of the processes that train together all but one.
    """

    def __init__(self, *, as_json: bool = False, command: Sequence[str] = (), is_quiet: bool = False) -> None:
        self.as_json = as_json
        self.command = tuple(command)
        self.is_quiet = is_quiet
        self._err = PlainConsole(stderr=True)
        # On one screen all text shares a console, which draws it around the progress bar.
        share_screen = sys.stdout.isatty() and self._err.is_terminal
        self._out = self._err if share_screen and not as_json else PlainConsole()
        self._shows_progress = not is_quiet and self._err.is_terminal and not (share_screen and as_json)
        # One line each, without the file and line number that Python adds.
        warnings.simplefilter("always", category=UserWarning)
        warnings.showwarning = lambda message, *_, **__: self.remark(f"warning: {message}")

    def remark(self, text: str) -> None:
        """Print a line on stderr."""
        if self.is_quiet:
            return
        self._err.print(Text(escape(text)))

    def say(self, *lines: str) -> None:
        """Print lines of results; nothing with ``--json``."""
        if not (self.as_json or self.is_quiet):
            for line in lines:
                self._out.print(Text(escape(line)))

    def emit(self, event: str, **values: Any) -> None:
        """Print a JSON object; nothing without ``--json``."""
        if self.as_json and not self.is_quiet:
            print(json.dumps({"event": event, **values}), flush=True)

    def tabulate(
        self, heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1, top: int | None = None
    ) -> None:
        """Print a table, or its first ``top`` rows: columns of text, then numbers; separated by tabs in a pipe."""
        with self.table(heads, texts) as add:
            for row in rows[:top]:
                add(row)
        if top is not None and len(rows) > top:
            self.say(f"and {len(rows) - top:,} more (--top N, --json)")

    @contextmanager
    def table(self, heads: Sequence[str], texts: int = 1) -> Iterator[Callable[[Sequence[str]], None]]:
        """A table, if any rows come; call what this gives with each: printed at once in a pipe, else at the end."""
        if self.as_json:
            yield lambda _: None
        elif not self._out.is_terminal:
            unprinted = [heads]

            def add(row: Sequence[str]) -> None:
                for line in (*unprinted, row):
                    print("\t".join(map(escape, line)))  # rich would turn the tabs into spaces
                unprinted.clear()

            yield add
        else:
            rows: list[Sequence[str]] = []
            yield rows.append
            if rows:
                self._out.print(build_table(heads, rows, texts))

    @contextmanager
    def progress(self, quiet_seconds: float = 0.0) -> Iterator[Callable[[str, int, int], None]]:
        """A bar on a screen, from ``quiet_seconds`` on; call what this gives with (what, done, total)."""
        bar = make_bar(self._err, is_shown=self._shows_progress)
        task = bar.add_task("", total=None, visible=False)
        shown_from = time.perf_counter() + quiet_seconds

        def show(what: str, done: int, total: int) -> None:
            if time.perf_counter() >= shown_from:
                bar.update(task, description=what, completed=done, total=total, visible=True)

        with bar:
            yield show
