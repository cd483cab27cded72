"""Progress of a training for people: a line for each epoch and a bar in between, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from lamina.evaluation.reports import Report
from lamina.text import escape, make_bar
from lamina.training.events import Diagnosis, Epoch, Event, Step

AnyEvent = TypeVar("AnyEvent")


def show_progress(events: Iterable[AnyEvent], console: Console | None = None) -> Iterator[AnyEvent]:
    """Pass on the events of a training, and print them: a line for each but steps, which a progress bar shows.

    The bar is shown in a terminal, and in a notebook that has ``ipywidgets``.

    Args:
        events: a ``Training``, or what ``Run.iter_train`` or ``choose`` gives.
        console: where to print; by default stdout, or the notebook.

    >>> from lamina import Recipe, Training, load_data
    >>> from lamina.nets import Flatten, Net, Output
    >>> training = Training(Net(Flatten(), Output()), load_data("shapes").train, Recipe(epochs=1), device="cpu")
    >>> for event in show_progress(training):  # doctest: +ELLIPSIS
    ...     pass
    epoch 1/1  train loss ...
    """
    console = console or Console()
    can_update = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    final: Report | None = None
    with make_bar(console, is_shown=can_update) as bar:
        task = bar.add_task("", total=None)
        for event in events:
            match event:
                case Step():
                    bar.update(task, description=f"epoch {event.epoch}", completed=event.step, total=event.steps)
                case Report():
                    final = event  # the epoch that follows one on val has its score
                case Diagnosis():  # a line below its epoch, which has it too
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
        console.print(Text(f"{final.split} {final.score}"))
