"""Prints training progress: a line per epoch, and a progress bar in a terminal or notebook."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
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
from lamina.training.events import Diagnosis, Epoch, Event, FeatureProgress, Step

AnyEvent = TypeVar("AnyEvent")
Bar: TypeAlias = Callable[[str, int, int], None]
"""Shows a text and how many steps of a total are done."""

NOTEBOOK_SECONDS = 0.2  # between updates of a notebook's bar, which go to the browser
_terminal = Lock()  # a terminal shows one bar, even if several threads train
_shown: list[str] = []  # names of the runs whose progress is shown


def show_progress(
    events: Iterable[AnyEvent], console: Console | None = None, name: str = ""
) -> Iterator[AnyEvent]:
    """Print training events and pass them on.

    Prints a line per event, except for steps, which a progress bar shows in a terminal or notebook.
    If several threads train in a terminal, only the first has a bar; in a notebook, each has one.

    Args:
        events: A ``Training``, or the iterator from ``Run.iter_train`` or ``choose``.
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
    bar = _show_notebook_bar() if is_notebook else _show_terminal_bar(console)
    with _count(name), bar as update:
        for event in events:
            if name and len(_shown) > 1:  # from now on, even if the other runs end first
                label = f"{name}: "
            match event:
                case Step():
                    update(f"{label}epoch {event.epoch}", event.step, event.steps)
                case FeatureProgress():
                    update(f"{label}features", event.done, event.images)
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
                    for line in "\n".join(texts).split("\n"):
                        console.print(Text(escape(label + line)), soft_wrap=True)
            yield event
    if final is not None:
        console.print(Text(escape(f"{label}{final.split} {final.score}")))


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
            bar = f'{show(text)} <progress value="{done}" max="{total}"></progress>'
            content = {"text/html": f"{bar} {done}/{total}", "text/plain": f"{text} {done}/{total}"}
            handle.update(content, raw=True)
            shown_at = now

    try:
        yield update
    finally:
        handle.update({"text/html": "", "text/plain": ""}, raw=True)
