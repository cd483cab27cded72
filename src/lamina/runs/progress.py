"""Prints training progress: a line per epoch, and a progress bar in a terminal or notebook."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TypeAlias, TypeVar

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.text import Text

from lamina.errors import check_type
from lamina.evaluation.reports import Report
from lamina.markup import show
from lamina.text import escape, make_bar
from lamina.training.events import Diagnosis, Epoch, Event, FeatureProgress, Step, Trying

AnyEvent = TypeVar("AnyEvent")
Bar: TypeAlias = Callable[[str, int, int], None]
"""Shows a text and how many steps of a total are done; only the text if the total is 0."""

NOTEBOOK_SECONDS = 0.2  # between updates of a notebook's bar, which go to the browser
_terminal = Lock()  # a terminal shows one bar, even if several threads train
_shown: list[str] = []  # names of the runs whose progress is shown


def show_progress(
    events: Iterable[AnyEvent], console: Console | None = None, name: str = ""
) -> Iterator[AnyEvent]:
    """Print training events and pass them on.

    Prints a line per event, except for steps, which a progress bar shows in a terminal or notebook.
    If several threads train in a terminal, only the first has a bar; in a notebook, each has one. A
    notebook prints fewer lines: of each kind of event, such as epochs or trials, the first ten,
    every 10th up to the 100th, then every 100th and so on, the last one, and those with a
    diagnosis. It shows any other line beside the bar until the next event.

    Args:
        events: A ``Training``, or the iterator from ``Run.iter_train``.
        console: Where to print; by default stdout or the notebook.
        name: Name of the run, which precedes lines and bar while this process shows several runs.

    Yields:
        The events, unchanged.

    >>> from lamina import Recipe, Training, load_data
    >>> from lamina.nets import Flatten, Net, Output
    >>> training = Training(
    ...     Net(Flatten(), Output()), load_data("shapes").train, Recipe(epochs=1)
    ... )
    >>> for event in show_progress(training):  # doctest: +ELLIPSIS
    ...     pass
    epoch 1/1  train loss ...
    """
    check_type(
        events,
        (Iterable,),
        "events",
        "training events, such as run.iter_train()",
        is_optional=False,
    )
    is_notebook = (console or Console()).is_jupyter
    console = console or _find_console()
    final: Report | None = None
    label = ""
    lines = _NotebookLines() if is_notebook else _AllLines()
    bar = _show_notebook_bar() if is_notebook else _show_terminal_bar(console)
    with _count(name), bar as update:
        for event in events:
            if name and len(_shown) > 1:  # from now on, even if the other runs end first
                label = f"{name}: "
            match event:
                case Step():
                    text = f"{label}epoch {event.epoch}"
                    update(" · ".join([*lines.left_out, text]), event.step, event.steps)
                case FeatureProgress():
                    update(f"{label}features", event.done, event.images)
                case Trying():
                    update(f"{label}{event}", 0, 0)
                case Report():
                    # printed at the end, unless an epoch follows, which contains the score
                    final = event
                case Diagnosis():  # printed with its epoch
                    pass
                case Event():
                    texts = [str(event)]
                    if isinstance(event, Epoch):
                        final = None
                        texts += map(str, event.diagnoses)
                    shown = [label + line for line in "\n".join(texts).split("\n")]
                    _print(console, lines.choose(event, shown))
                    if lines.left_out:
                        update(" ".join(lines.left_out), 0, 0)
            yield event
    _print(console, lines.left_out)
    if final is not None:
        console.print(Text(escape(f"{label}{final.split} {final.score}")))


def _print(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(escape(line)), soft_wrap=True)


class _AllLines:
    """Prints the lines of all events."""

    left_out: Sequence[str] = ()

    def choose(self, _: Event, lines: Sequence[str]) -> Sequence[str]:
        return lines


class _NotebookLines(_AllLines):
    """Prints few of many lines, because hundreds would hide the rest of a notebook."""

    def __init__(self) -> None:
        self._kind: object = None  # of the last event
        self._counts: Counter[object] = Counter()
        self._printed: set[str] = set()

    def choose(self, event: Event, lines: Sequence[str]) -> Sequence[str]:
        """The lines to print now; ``left_out`` are the last ones that are not printed."""
        kind = (type(event), getattr(event, "what", ""))
        chosen: list[str] = []
        if kind != self._kind:  # the last of their kind
            chosen.extend(self.left_out)
        self._kind = kind
        self._counts[kind] += 1
        self.left_out = ()
        has_diagnosis = isinstance(event, Epoch) and bool(event.diagnoses)
        if _is_round(self._counts[kind]) or has_diagnosis:
            chosen.extend(lines)
        else:
            self.left_out = lines
        new = [line for line in chosen if line not in self._printed]
        self._printed.update(new)
        return new


def _is_round(number: int) -> bool:
    """Whether a number is 1 to 10, a multiple of 10 up to 100, of 100 up to 1000, and so on."""
    power: int = 10 ** (len(str(number)) - 1)
    return number <= 10 or number % power == 0


@cache
def _find_console() -> Console:
    """One console for all runs of this process, so that lines are printed above the bar."""
    return Console(force_jupyter=False)


@contextmanager
def _count(name: str) -> Iterator[None]:
    _shown.append(name)
    try:
        yield
    finally:
        _shown.remove(name)


@contextmanager
def _show_terminal_bar(console: Console) -> Iterator[Bar]:
    has_bar = console.is_terminal and _terminal.acquire(blocking=False)
    try:
        with make_bar(console, is_shown=has_bar) as bar:
            task = bar.add_task("", total=None)
            yield lambda text, done, total: bar.update(
                task, description=escape_markup(escape(text)), completed=done, total=total
            )
    finally:
        if has_bar:
            _terminal.release()


@contextmanager
def _show_notebook_bar() -> Iterator[Bar]:
    """An HTML bar; rich's widget needs a package and captures other threads' output."""
    from IPython.display import display

    handle = display({"text/plain": ""}, raw=True, display_id=True)
    shown_at = -math.inf

    def update(text: str, done: int, total: int) -> None:
        nonlocal shown_at
        now = time.perf_counter()
        if now - shown_at >= NOTEBOOK_SECONDS:
            html: str = show(text)
            plain = text
            if total:
                html += f' <progress value="{done}" max="{total}"></progress> {done}/{total}'
                plain += f" {done}/{total}"
            content = {"text/html": html, "text/plain": plain}
            handle.update(content, raw=True)
            shown_at = now

    try:
        yield update
    finally:
        handle.update({"text/html": "", "text/plain": ""}, raw=True)
