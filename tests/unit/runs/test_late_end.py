"""Trainings whose end is decided late: the epochs before the learning rate falls are equal."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import Dataset, Images, Recipe, load_run, start_run
from lamina.errors import LaminaWarning
from lamina.runs import course
from lamina.runs.run import make_training
from lamina.training.checkpoint import digest_tensors
from lamina.training.events import Cooldown, EarlyEnd, Epoch, Step
from lamina.training.schedule import Schedule

NET = "Flatten(), Linear(8), ReLU(), Output()"
RECIPE = Recipe(epochs=5, batch_size=8, schedule="trapezoid", lr=0.01)
STEPS_PER_EPOCH = 15


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(0)
    parts = [
        Images.from_arrays(
            generator.integers(0, 256, (count, 4, 4, 1), np.uint8),
            np.arange(count) % 2,
            split=split,
        )
        for split, count in (("train", 8 * STEPS_PER_EPOCH), ("val", 20), ("test", 20))
    ]
    return Dataset.from_images(parts[0], val=parts[1], test=parts[2])


def digest(run):
    return digest_tensors(load_run(run.path).load_model().state_dict())


def begin(tmp_path, dataset, name, recipe=RECIPE):
    return start_run(dataset, NET, recipe, runs_dir=tmp_path, name=name)


def again(run, dataset):
    return dataclasses.replace(load_run(run.path), dataset=dataset)


@given(st.integers(20, 40), st.integers(1, 40), st.integers(25, 30))
def test_no_step_before_the_fall_depends_on_the_number_of_epochs(epochs, more, steps_per_epoch):
    short, long = (
        Schedule(dataclasses.replace(RECIPE, epochs=count), steps_per_epoch)
        for count in (epochs, epochs + more)
    )
    for step in range(short.knots[2].step):
        assert short.factor(step) == long.factor(step)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 200)), min_size=1, max_size=6))
def test_the_rate_falls_smoothly_however_often_the_end_moves(moves):
    schedule, step, factors = Schedule(RECIPE, STEPS_PER_EPOCH), 60, []
    schedule.leave_open(0)
    for wait, steps in moves:
        if not schedule.is_over(step):
            schedule.start_fall(step, steps)
            factors += [
                schedule.factor(one) for one in range(step, min(step + wait, schedule.steps))
            ]
            step += wait
    factors += [schedule.factor(one) for one in range(step, schedule.steps)]
    assert factors[0] == 1
    assert all(0 < later <= earlier for earlier, later in itertools.pairwise(factors))
    start, end = schedule.knots[-2:]
    assert schedule.factor(schedule.steps - 1) <= 1 / (end.step - start.step) + 1e-12


def test_an_open_training_uses_its_time_and_can_be_repeated(tmp_path, dataset, monkeypatch):
    """The clock goes on by 5 ms each time that it is read."""
    run = begin(tmp_path, dataset, "open")
    times = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(course.time, "perf_counter", lambda: next(times) / 200)
        events = list(run.iter_train(until=time.perf_counter() + 1, is_open=True))
    (fall,) = (event for event in events if isinstance(event, Cooldown))
    assert not any(isinstance(event, EarlyEnd) for event in events)
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert epochs[0].epochs is None  # the end was not decided
    assert epochs[-1].epochs == epochs[-1].epoch == fall.epoch or epochs[-1].epoch > fall.epoch
    finished = load_run(run.path)
    assert finished.is_finished
    assert finished.epochs == len(epochs)
    assert finished.record == run.record  # it is written once
    repeated = make_training(finished, dataset)
    repeated.schedule.restore(finished.folder.read_checkpoint().standing.knots, 0)
    for _ in repeated:
        pass
    assert digest_tensors(repeated.model.state_dict()) == digest(run)


def test_a_killed_open_training_goes_on_as_its_recipe_plans(tmp_path, dataset):
    whole, killed = begin(tmp_path, dataset, "whole"), begin(tmp_path, dataset, "killed")
    whole.train(progress=False)
    for event in killed.iter_train(until=time.perf_counter() + 1000, is_open=True):
        if isinstance(event, Step) and (event.epoch, event.step) == (2, 7):
            break
    assert not load_run(killed.path).is_finished
    again(killed, dataset).train(progress=False)
    assert digest(killed) == digest(whole)
    assert load_run(killed.path).is_finished


def test_a_training_asked_to_finish_lets_the_rate_fall(tmp_path, dataset, monkeypatch):
    """The clock goes on by 0.1 s each time that it is read, which is once a step."""
    times = itertools.count()
    monkeypatch.setattr(course, "time", SimpleNamespace(perf_counter=lambda: next(times) / 10))
    run = begin(tmp_path, dataset, "run", dataclasses.replace(RECIPE, epochs=40))
    finish = threading.Event()
    events = []
    for event in run.iter_train(finish=finish):
        events.append(event)
        if isinstance(event, Step) and (event.epoch, event.step) == (3, 5):
            finish.set()
    (fall,) = (event for event in events if isinstance(event, Cooldown))
    tenth = round(0.1 * (2 * STEPS_PER_EPOCH + 5))
    assert (fall.epoch, fall.reason) == (3, "finishing on request")
    assert 1 <= fall.steps <= tenth
    assert (run.is_finished, run.end) == (True, "finished on request")
    assert "epochs 3/3" in repr(run)
    assert run.report is not None
    # the last one is cut short
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [1, 2, 3]


def test_a_run_without_the_line_of_an_epoch_can_be_finished(tmp_path, dataset):
    run = begin(tmp_path, dataset, "run")
    run.train(progress=False)
    file = run.folder.history_file
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))  # as lamina advises for a damaged line
    assert load_run(run.path).is_finished
    file.write_text("".join(lines[1:-1]))  # without the end, too
    assert not load_run(run.path).is_finished
    with pytest.warns(LaminaWarning, match="lacks 1 of 5 epochs"):
        again(run, dataset).train(progress=False)
    assert load_run(run.path).is_finished
    assert file.read_text() == "".join(lines[1:])


def test_patience_lets_the_rate_fall_before_the_end(tmp_path, dataset):
    run = begin(tmp_path, dataset, "run", dataclasses.replace(RECIPE, epochs=200, patience=2))
    events = list(run.iter_train())
    (fall,) = (event for event in events if isinstance(event, Cooldown))
    assert "(patience 2)" in fall.reason
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert epochs[-1].lr < 0.1 * RECIPE.lr < epochs[0].lr or len(epochs) < 6
    assert load_run(run.path).is_finished
