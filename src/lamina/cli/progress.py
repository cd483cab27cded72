"""Progress bars, and ``show_progress`` for training in a script or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from lamina.evaluation import Report
    from lamina.training.events import Epoch

Event = TypeVar("Event")


def make_bar(console: Console, *, is_shown: bool) -> Progress:
    """A bar that disappears at its end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not is_shown,
    )


def show_progress(events: Iterable[Event], console: Console | None = None) -> Iterator[Event]:
    """Pass on the events of a training, printing a line for each epoch and a progress bar in between.

    The bar is shown in a terminal, and in a notebook that has ``ipywidgets``.

    Args:
        events: a ``Training``, or what ``Run.train`` gives.
        console: where to print; by default stdout, or the notebook.

    >>> from lamina import Recipe, Training, load_data
    >>> from lamina.nets import Flatten, Net, Output
    >>> training = Training(Net(Flatten(), Output()), load_data("shapes").train, Recipe(epochs=1), device="cpu")
    >>> for event in show_progress(training):  # doctest: +ELLIPSIS
    ...     pass
    epoch 1/1  train loss ...
    """
    from lamina.evaluation import Report
    from lamina.training.events import Epoch, Step

    console = console or Console()
    report: Report | None = None
    can_update = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    with make_bar(console, is_shown=can_update) as bar:
        task = bar.add_task("", total=None)
        for event in events:
            match event:
                case Step():
                    bar.update(task, description=f"epoch {event.epoch}", completed=event.step, total=event.steps)
                case Report():
                    report = event
                case Epoch():
                    console.print(Text(format_epoch(event, report)), soft_wrap=True)
                    report = None
            yield event
    if report is not None:
        console.print(Text(f"{report.split} {report.score}"))


def format_epoch(epoch: Epoch, report: Report | None) -> str:
    """An epoch's figures on a line, with the score of the images that it was evaluated on."""
    words = [f"epoch {epoch.epoch}/{epoch.epochs}", f"train loss {epoch.train_loss:.4f}"]
    if epoch.train_accuracy is not None:
        words.append(f"train accuracy {100 * epoch.train_accuracy:.2f} %")
    if report is not None:
        words.append(f"{report.split} {report.score}")
    words += [f"{epoch.train_seconds:.1f} s", f"{epoch.images_per_second:,.0f} images/s"]
    return "  ".join(words)
