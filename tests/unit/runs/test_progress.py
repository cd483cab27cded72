from __future__ import annotations

import io
from types import SimpleNamespace

import IPython.display
import pytest
from rich.console import Console

from lamina import Epoch, Recipe, Step, Training, evaluate, show_progress
from lamina.runs import progress
from support.runs import DATA, NET

HIDE_CURSOR = "\x1b[?25l"  # as a bar does first
RECIPE = Recipe(epochs=2, batch_size=4, precision="fp32", seed=7)


def events_of_a_run():
    training = Training(NET, DATA.train, RECIPE, steps_per_record=1)
    yield from training
    yield evaluate(training.model, DATA.test)


def test_progress_prints_a_line_an_epoch_and_passes_events_on():
    expected = list(Training(NET, DATA.train, RECIPE, steps_per_record=1))
    printed = io.StringIO()
    events = list(show_progress(events_of_a_run(), Console(file=printed, width=200)))
    assert list(map(type, events[:-1])) == list(map(type, expected))
    first, second, score = printed.getvalue().splitlines()
    assert first.startswith("epoch 1/2  train loss ")
    assert second.startswith("epoch 2/2  train loss ")
    assert score == f"test {events[-1].score}"


def test_in_a_terminal_there_is_a_bar():
    printed = io.StringIO()
    list(show_progress(events_of_a_run(), Console(file=printed, width=200, force_terminal=True)))
    assert "━" in printed.getvalue()


@pytest.fixture
def notebook(monkeypatch):
    """What a notebook prints, and the texts of its bar."""
    printed = io.StringIO()
    shown = []
    bar = SimpleNamespace(update=lambda content, **_: shown.append(content["text/plain"]))
    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: bar)
    consoles = [SimpleNamespace(is_jupyter=True), Console(file=printed, width=200)]
    monkeypatch.setattr(progress, "Console", lambda **_: consoles.pop(0))
    monkeypatch.setattr(progress, "NOTEBOOK_SECONDS", 0)
    return printed, shown


def test_a_notebook_has_lines_and_a_bar(notebook):
    printed, shown = notebook
    events = []
    for epoch in (1, 2):
        events.append(Step(epoch=epoch, step=1, steps=2, loss=2.0))
        events.append(Epoch(epoch, 2, 1.5, None, 1.0, 100.0, 0.1))
    assert list(show_progress(events)) == events
    assert printed.getvalue().splitlines() == [
        f"epoch {epoch}/2  train loss 1.5000  1.0 s  100 images/s" for epoch in (1, 2)
    ]
    assert shown == ["epoch 1 1/2", "epoch 2 1/2", ""]
