"""A machine whose cores other programs use, as ``/proc/stat`` of Linux says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from lamina.studies.forks import Jobs
from lamina.training import threads
from lamina.training.threads import (
    DECIDED_BY,
    Threads,
    choose_threads,
    computing_with,
    measure_busy_cores,
    measure_share,
)

CORES = 4


@pytest.fixture
def use_cores(tmp_path, monkeypatch) -> Callable[[int], None]:
    """Let other programs use this number of four cores; a pause lets a hundred ticks pass."""
    stat = tmp_path / "stat"
    monkeypatch.delenv(DECIDED_BY, raising=False)
    monkeypatch.setattr(threads, "list_processors", lambda: set(range(CORES)))
    monkeypatch.setattr(threads, "count_cores", lambda: CORES)
    monkeypatch.setattr(threads, "Path", lambda _: stat)

    def use(busy: int) -> None:
        ticks = itertools.count(100, 100)

        def write(seconds: float = 0.0) -> None:
            passed = next(ticks)
            lines = [f"cpu{core} {passed} 0 0 5 0 0 0 0 0 0" for core in range(busy)]
            lines += [f"cpu{core} 7 0 0 {passed} 0 0 0 0 0 0" for core in range(busy, CORES)]
            total = f"cpu {passed * busy} 0 0 {passed * CORES} 0 0 0 0 0 0"
            stat.write_text("\n".join([total, *lines, "ctxt 1990473"]))

        write()
        monkeypatch.setattr(threads, "time", SimpleNamespace(sleep=write))

    return use


def test_cores_that_other_programs_use_are_left_to_them(use_cores):
    for busy, number in ((0, 4), (1, 3), (3, 1), (4, 1)):
        use_cores(busy)
        assert measure_busy_cores() == pytest.approx(busy)
        with computing_with(CORES):
            chosen = choose_threads(has_time_limit=True)
            assert choose_threads() == Threads(CORES, CORES)
        assert (chosen.number, chosen.most) == (number, CORES)
    assert chosen.reason.startswith("other programs use 4.0 cores; set OMP_NUM_THREADS=4")


def test_the_load_of_the_host_does_not_take_the_cores_of_a_container(use_cores, monkeypatch):
    use_cores(CORES)
    monkeypatch.setattr(threads, "count_cores", lambda: 2)  # a quota, on four processors
    with computing_with(CORES):
        assert choose_threads(has_time_limit=True).number == 2


def test_a_system_that_does_not_say_is_taken_as_idle(use_cores, tmp_path):
    use_cores(2)
    (tmp_path / "stat").unlink()
    threads.time.sleep = lambda _: None
    assert measure_busy_cores() == 0
    with computing_with(2):
        assert choose_threads(has_time_limit=True) == Threads(2, 2)


def test_the_runs_of_a_study_divide_all_cores(use_cores):
    use_cores(CORES)
    with computing_with(2):
        jobs = Jobs(None, 2)
    assert (jobs.most, jobs.threads) == (2, 1)
    (decision,) = jobs.announce()
    assert str(decision) == "jobs: 2 at once, 1 thread each (2 cores)"


def test_the_share_of_a_core_is_processor_time_by_passed_time(monkeypatch):
    passed = iter((0.0, 0.05, 0.1, 0.2))
    used = iter((1.0, 1.02))
    clock = SimpleNamespace(perf_counter=lambda: next(passed), thread_time=lambda: next(used))
    monkeypatch.setattr(threads, "time", clock)
    assert measure_share() == pytest.approx(0.02 / 0.2)
