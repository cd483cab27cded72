"""The number of threads of a training: chosen, recorded, and kept."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from lamina import Recipe, load_run, start_run, train
from lamina.errors import LaminaWarning, RecipeError
from lamina.nets import Flatten, Net, Output
from lamina.training.events import Step
from lamina.training.threads import (
    DECIDED_BY,
    Threads,
    choose_threads,
    computing_with,
    iter_computing_with,
)

SMALL = Net(Flatten(), Output())


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads that nobody has asked for."""
    monkeypatch.delenv(DECIDED_BY, raising=False)
    with computing_with(2):
        yield


def test_a_request_and_the_environment_decide(two_threads, monkeypatch):
    assert choose_threads(3) == Threads(3, 3, "as requested")
    monkeypatch.setenv(DECIDED_BY, "2")
    assert choose_threads() == Threads(2, 2, "OMP_NUM_THREADS is 2")
    assert choose_threads(1) == Threads(1, 2, "as requested")


def test_there_is_no_choice_with_one_thread(two_threads):
    with computing_with(1):
        assert choose_threads() == Threads(1, 1, "")


@contextmanager
def recording_threads() -> Iterator[set[int]]:
    """torch's numbers of threads in all modules that compute in the block."""
    numbers: set[int] = set()
    handle = register_module_forward_pre_hook(lambda *_: numbers.add(torch.get_num_threads()))
    try:
        yield numbers
    finally:
        handle.remove()


def list_threads(path: Path) -> tuple[set[int], set[int]]:
    """torch's numbers of threads while a run is trained, and between its events."""
    between = set()
    with recording_threads() as computing:
        for _ in load_run(path).iter_train():
            between.add(torch.get_num_threads())
    return computing, between


def test_a_resumed_run_computes_with_its_recorded_threads(two_threads, tmp_path):
    with computing_with(1):
        run = start_run("shapes", SMALL, Recipe(epochs=1), name="run", runs_dir=tmp_path)
    assert run.record.machine.threads == 1
    assert list_threads(run.path) == ({1}, {2})
    assert torch.get_num_threads() == 2


def count_up() -> Generator[int, None, str]:
    """torch's numbers of threads; one more, negative, after a ``LookupError`` is thrown in."""
    try:
        while True:
            yield torch.get_num_threads()
    except LookupError:
        yield -torch.get_num_threads()
    return "end"


def test_a_generator_keeps_its_number_when_an_error_is_thrown_in(two_threads):
    items = iter_computing_with(3, count_up())
    assert next(items) == 3
    assert torch.get_num_threads() == 2
    assert items.throw(LookupError()) == -3
    assert torch.get_num_threads() == 2
    with pytest.raises(StopIteration) as end:
        next(items)
    assert end.value.value == "end"


def test_an_unexpected_error_in_a_generator_reaches_its_caller(two_threads):
    inner = count_up()
    items = iter_computing_with(3, inner)
    next(items)
    with pytest.raises(KeyboardInterrupt):
        items.throw(KeyboardInterrupt())
    assert inner.gi_frame is None
    assert torch.get_num_threads() == 2


def test_a_generator_that_is_closed_is_freed_at_once(two_threads):
    inner = count_up()
    items = iter_computing_with(3, inner)
    next(items)
    freed = weakref.ref(inner)
    items.close()
    del inner, items
    assert freed() is None


def test_two_runs_in_turn_have_their_own_numbers_of_threads(two_threads, tmp_path):
    iterators = []
    for number in (1, 2):
        with computing_with(number):
            run = start_run("shapes", SMALL, Recipe(epochs=1), name=f"{number}", runs_dir=tmp_path)
        iterators.append(run.iter_train())
    with computing_with(3):
        for events, number in zip(iterators, (1, 2), strict=True):
            with recording_threads() as computing:
                next(event for event in events if isinstance(event, Step))
            assert computing == {number}
        for events in iterators:  # the first to begin is the first to end
            events.close()
        assert torch.get_num_threads() == 3


def test_the_environment_decides_for_a_resumed_run_which_warns(two_threads, monkeypatch, tmp_path):
    with computing_with(1):
        run = start_run("shapes", SMALL, Recipe(epochs=1), name="run", runs_dir=tmp_path)
    monkeypatch.setenv(DECIDED_BY, "2")
    with pytest.warns(LaminaWarning, match=r"machine\.threads was 1 and is now 2"):
        assert list_threads(run.path) == ({2}, {2})


def test_train_takes_threads_and_restores_the_previous_number(tmp_path):
    before = torch.get_num_threads()
    run = train(
        "shapes", SMALL, Recipe(epochs=1), threads=2, runs_dir=tmp_path, name="run", progress=False
    )
    assert run.record.machine.threads == 2
    assert torch.get_num_threads() == before
    for threads in (0, 1_000_000):
        with pytest.raises(
            RecipeError, match=rf"^threads is {threads}; it must be from 1 to \d+, "
        ):
            train("shapes", SMALL, threads=threads, runs_dir=tmp_path)
