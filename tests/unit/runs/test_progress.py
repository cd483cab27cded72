from __future__ import annotations

import io
import itertools
import re
from types import SimpleNamespace

import IPython.display
import pytest
from rich.console import Console

from lamina import Epoch, Recipe, Step, Training, evaluate, show_progress, start_run
from lamina.runs import progress
from lamina.studies.experiment import Decision
from lamina.training.events import Remark
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


def test_of_two_trainings_in_one_terminal_the_first_has_the_bar():
    printed = io.StringIO()
    console = Console(file=printed, width=200, force_terminal=True, color_system=None)
    first, second = (
        show_progress(events_of_a_run(), console),
        show_progress(events_of_a_run(), console),
    )
    for both in zip(first, second, strict=True):
        assert type(both[0]) is type(both[1])
    lines = re.sub(r"\x1b\[[\d?]*[a-zA-Z]", "", printed.getvalue()).replace("\r", "\n").splitlines()
    assert sum(line.startswith("epoch 2/2  train loss ") for line in lines) == 2
    assert printed.getvalue().count(HIDE_CURSOR) == 1
    list(show_progress(events_of_a_run(), console))
    assert printed.getvalue().count(HIDE_CURSOR) == 2  # the next one has a bar again


def test_lines_name_their_run_while_several_train_and_only_then(tmp_path, capsys):
    runs = [start_run(DATA, NET, RECIPE, runs_dir=tmp_path, name=name) for name in ("one", "t[w]o")]
    console = Console(file=io.StringIO(), width=200)
    first, second = (show_progress(run.iter_train(), console, run.path.name) for run in runs)
    for _ in itertools.zip_longest(first, second):
        pass
    lines = console.file.getvalue().splitlines()
    assert sorted(line.partition("  ")[0] for line in lines if "epoch" in line) == [
        "one: epoch 1/2",
        "one: epoch 2/2",
        "t[w]o: epoch 1/2",
        "t[w]o: epoch 2/2",
    ]
    assert [line for line in lines if "epoch" not in line] == [
        f"{run.path.name}: test {run.report.score}" for run in runs
    ]
    start_run(DATA, NET, RECIPE, runs_dir=tmp_path).train()
    assert "\nepoch 1/2  train loss " in capsys.readouterr().out


@pytest.fixture
def notebook(monkeypatch):
    """What a notebook prints, and the texts of its bar."""
    printed = io.StringIO()
    shown = []
    bar = SimpleNamespace(update=lambda content, **_: shown.append(content["text/plain"]))
    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: bar)
    monkeypatch.setattr(progress, "Console", lambda: SimpleNamespace(is_jupyter=True))
    monkeypatch.setattr(progress, "_find_console", lambda: Console(file=printed, width=200))
    monkeypatch.setattr(progress, "NOTEBOOK_SECONDS", 0)
    return printed, shown


def test_a_notebook_prints_some_of_many_epochs(notebook):
    printed, shown = notebook
    events = []
    for epoch in range(1, 208):
        events.append(Step(epoch=epoch, step=1, steps=2, loss=2.0))
        events.append(Epoch(epoch, 207, 1.5, None, 1.0, 100.0, 0.1))
    assert list(show_progress(events)) == events

    numbers = [int(number) for number in re.findall(r"epoch (\d+)/207", printed.getvalue())]
    assert numbers == [*range(1, 11), *range(20, 101, 10), 200, 207]
    line = "epoch 11/207  train loss 1.5000  1.0 s  100 images/s"
    assert shown[10:13] == ["epoch 11 1/2", line, f"{line} · epoch 12 1/2"]
    assert shown[-1] == ""


def test_a_notebook_repeats_no_line(notebook):
    printed, shown = notebook
    seeds = [Decision("trained", f"seed {seed}") for seed in range(1, 16)]
    list(show_progress([Remark("net: cnn"), *seeds, Remark("net: cnn"), Decision("found", "all")]))
    assert printed.getvalue().splitlines() == [
        "net: cnn",
        *(f"trained: seed {seed}" for seed in (*range(1, 11), 15)),
        "found: all",
    ]
    assert shown == [*(f"trained: seed {seed}" for seed in range(11, 16)), ""]
