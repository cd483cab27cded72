from __future__ import annotations

import io

from rich.console import Console

from lamina import Recipe, Training, evaluate, show_progress
from small_runs import DATA, NET

RECIPE = Recipe(epochs=2, batch_size=4, precision="fp32", seed=7)


def events_of_a_run():
    training = Training(NET, DATA.train, RECIPE, device="cpu", steps_per_record=1)
    yield from training
    yield evaluate(training.model, DATA.test)


def test_progress_prints_a_line_an_epoch_and_passes_all_events_on():
    expected = list(Training(NET, DATA.train, RECIPE, device="cpu", steps_per_record=1))
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


def test_a_notebook_without_widgets_gets_lines_and_no_warning(monkeypatch):
    monkeypatch.setattr("lamina.runs.progress.find_spec", lambda _: None)
    printed = io.StringIO()
    console = Console(file=printed, width=200, force_jupyter=False)
    console.is_jupyter = True
    monkeypatch.setattr(console, "print", lambda text, **_: printed.write(f"{text}\n"))
    list(show_progress(events_of_a_run(), console))
    assert len(printed.getvalue().splitlines()) == 3
