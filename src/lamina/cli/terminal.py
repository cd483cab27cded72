"""Print tables and progress to a terminal, plain lines to a pipe, JSON lines with ``--json``."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from lamina.errors import LaminaWarning, RecipeError, end_sentence
from lamina.text import build_table, escape, hide_password, make_bar, parse_seconds

EMIT_SECONDS = 0.5  # least time between two progress events, or there would be thousands
QUIET_SECONDS = 2.0  # delay of the progress bar in commands that usually finish sooner


def read_seconds(flag: str, text: str) -> float:
    """Convert the time of a flag, such as ``60s``, ``5m`` or ``1h``, to seconds."""
    seconds = parse_seconds(text)
    if seconds is None:
        raise RecipeError(
            f"{flag} is {text!r}; it must be a number followed by s, m or h. Use {flag} 5m."
        )
    return seconds


class PlainConsole(Console):
    """A console that prints text unchanged, and raises on a broken pipe instead of exiting."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """Let ``main`` handle it; rich would exit with status 1."""
        raise BrokenPipeError


class Terminal:
    """The output of a command: results on stdout; remarks, warnings and progress on stderr.

    With ``as_json``, stdout contains only JSON objects, one per line; ``emits_progress`` adds steps
    and progress. ``command`` is what the user typed. ``is_quiet`` suppresses all output, for all
    but one process of a group. Text is escaped, so that names from data can neither break lines nor
    send control sequences to the terminal.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        emits_progress: bool = False,
        command: Sequence[str] = (),
        is_quiet: bool = False,
    ) -> None:
        self.as_json = as_json
        self.emits_progress = emits_progress
        self.command = tuple(map(hide_password, command))
        self.is_quiet = is_quiet
        self.problems = 0
        self._next_emit = 0.0
        self._err = PlainConsole(stderr=True)
        # On one screen, a shared console keeps text and progress bar apart.
        share_screen = sys.stdout.isatty() and self._err.is_terminal
        self._out = self._err if share_screen and not as_json else PlainConsole()
        self._shows_progress = (
            not is_quiet and self._err.is_terminal and not (share_screen and as_json)
        )
        # One line each, without the file and line number that Python prints.
        warnings.simplefilter("always", category=UserWarning)
        # about damaged EXIF data, which do not affect pixels
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.showwarning = lambda message, *_, **__: self._warn(message)

    def remark(self, text: str, remedy: str = "") -> None:
        """Print a line on stderr; with ``--progress``, the text is also an event."""
        self.hint(f"{text} {remedy}".rstrip())
        if self.emits_progress:
            self.emit("remark", text=escape(end_sentence(text)))

    def hint(self, text: str) -> None:
        """Print what only the user of a terminal needs, such as another command."""
        if not self.is_quiet:
            self._err.print(Text(escape(text)))

    def _warn(self, warning: Warning | str) -> None:
        if isinstance(warning, LaminaWarning):
            self.remark(f"warning: {warning.problem}", warning.remedy)
        else:
            self.remark(f"warning: {warning}")

    def say(self, *lines: str) -> None:
        """Print lines of results, unless ``--json`` was given."""
        if not (self.as_json or self.is_quiet):
            for line in lines:
                self._out.print(Text(escape(line)))

    def report_problem(self, image: str, reason: str) -> None:
        """Report why an image could not be used; the command then ends with status 2."""
        self.problems += 1
        self.emit("problem", image=image, reason=reason)
        self.remark(f"lamina: {image}: {reason}")

    def emit(self, event: str, **values: Any) -> None:
        """Print a JSON object if ``--json`` was given."""
        if self.as_json and not self.is_quiet:
            print(json.dumps({"event": event, **values}), flush=True)

    def emit_progress(self, event: str, **values: Any) -> None:
        """As :meth:`emit`, if ``--progress`` was given, at most twice a second."""
        if self.emits_progress and time.perf_counter() >= self._next_emit:
            self._next_emit = time.perf_counter() + EMIT_SECONDS
            self.emit(event, **values)

    def tabulate(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[str]],
        texts: int = 1,
        top: int | None = None,
    ) -> None:
        """Print a table, or its first ``top`` rows; the first ``texts`` columns contain text."""
        with self.table(heads, texts) as add:
            for row in rows[:top]:
                add(row)
        if top is not None and len(rows) > top:
            self.say(f"and {len(rows) - top:,} more (--top N, --json)")

    @contextmanager
    def table(
        self, heads: Sequence[str], texts: int = 1
    ) -> Iterator[Callable[[Sequence[str]], None]]:
        """Yield a function that adds a row; a pipe gets rows immediately, separated by tabs."""
        if self.as_json:
            yield lambda _: None
        elif not self._out.is_terminal:
            unprinted = [heads]

            def add(row: Sequence[str]) -> None:
                for line in (*unprinted, row):
                    print("\t".join(map(escape, line)))  # rich would replace tabs with spaces
                unprinted.clear()

            yield add
        else:
            rows: list[Sequence[str]] = []
            try:
                yield rows.append
            finally:  # after Ctrl-C, too
                if rows:
                    self._out.print(build_table(heads, rows, texts))

    @contextmanager
    def progress(
        self, what: str, quiet_seconds: float = QUIET_SECONDS
    ) -> Iterator[Callable[[int, int], None]]:
        """Yield a function that updates a progress bar, called with (done, total)."""
        with self.progress_bar(quiet_seconds) as show:
            yield partial(show, what)

    @contextmanager
    def progress_bar(self, quiet_seconds: float = 0.0) -> Iterator[Callable[[str, int, int], None]]:
        """Yield a function that updates a progress bar, called with (what, done, total).

        A total of 0 stands for work that is not counted.
        """
        bar = make_bar(self._err, is_shown=self._shows_progress)
        task = bar.add_task("", total=None, visible=False)
        shown_from = time.perf_counter() + quiet_seconds

        def show(what: str, done: int, total: int) -> None:
            if time.perf_counter() >= shown_from:
                if total:
                    self.emit_progress("progress", what=what, done=done, total=total)
                bar.update(task, description=what, completed=done, total=total, visible=True)

        with bar:
            yield show
