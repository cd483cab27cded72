"""Prints training progress: a line per epoch, and a progress bar in a terminal or notebook."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.text import Text

from lamina.evaluation.report import Report
from lamina.markup import show
from lamina.text import escape, make_bar
from lamina.training.events import Diagnosis, Epoch, Event, FeatureProgress, Step, Trying

AnyEvent = TypeVar("AnyEvent")
Bar: TypeAlias = Callable[[str, int, int], None]
"""Shows a text and how many steps of a total are done; only the text if the total is 0."""

NOTEBOOK_SECONDS = 0.2  # between updates of a notebook's bar, which go to the browser


def show_progress(events: Iterable[AnyEvent], console: Console | None = None) -> Iterator[AnyEvent]:
    """Print training events and pass them on.

    Prints a line per event, except for steps, which a progress bar shows in a terminal or notebook.

    Args:
        events: A ``Training``, or the iterator from ``Run.iter_train``.
        console: Where to print; by default stdout or the notebook.

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
    show_bar = _show_notebook_bar if (console or Console()).is_jupyter else _show_terminal_bar
    console = console or Console(force_jupyter=False)
    final: Report | None = None
    with show_bar(console) as update:
        for event in events:
            match event:
                case Step():
                    update(f"epoch {event.epoch}", event.step, event.steps)
                case FeatureProgress():
                    update("features", event.done, event.images)
                case Trying():
                    update(str(event), 0, 0)
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
                        console.print(Text(escape(line)), soft_wrap=True)
            yield event
    if final is not None:
        console.print(Text(escape(f"{final.split} {final.score}")))


@contextmanager
def _show_terminal_bar(console: Console) -> Iterator[Bar]:
    with make_bar(console, is_shown=console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda text, done, total: bar.update(
            task, description=escape_markup(escape(text)), completed=done, total=total
        )


@contextmanager
def _show_notebook_bar(_: Console) -> Iterator[Bar]:
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
