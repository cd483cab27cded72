"""The number of threads of a training: chosen, recorded, and kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from lamina import Recipe, load_run, start_run
from lamina.errors import LaminaWarning
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


def test_the_environment_decides(two_threads, monkeypatch):
    monkeypatch.setenv(DECIDED_BY, "2")
    assert choose_threads(has_time_limit=True) == Threads(2, 2, "OMP_NUM_THREADS is 2")


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
    """torch's number of threads, twice."""
    for _ in range(2):
        yield torch.get_num_threads()
    return "end"


def test_a_generator_computes_with_its_number_and_its_caller_with_another(two_threads):
    items = iter_computing_with(3, count_up())
    for _ in range(2):
        assert next(items) == 3
        assert torch.get_num_threads() == 2
    with pytest.raises(StopIteration) as end:
        next(items)
    assert end.value.value == "end"


def test_an_error_in_the_caller_closes_the_generator(two_threads):
    inner = count_up()
    items = iter_computing_with(3, inner)
    next(items)
    with pytest.raises(KeyboardInterrupt):
        items.throw(KeyboardInterrupt())
    assert inner.gi_frame is None
    assert torch.get_num_threads() == 2


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
