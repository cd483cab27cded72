"""A machine whose cores other programs use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from lamina.data.workers import count_cores
from lamina.studies.forks import Jobs
from lamina.training.threads import (
    DECIDED_BY,
    choose_threads,
    computing_with,
    measure_busy_cores,
    measure_share,
)

SPIN = "print(flush=True)\nwhile True: pass"


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """A process on each core that never waits."""
    spinning = [
        subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE)
        for _ in range(count_cores())
    ]
    try:
        for process in spinning:
            process.stdout.readline()
        yield
    finally:
        for process in spinning:
            process.kill()
            process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how busy it is")
def test_beside_programs_that_use_all_cores_one_thread_trains(busy_machine, monkeypatch):
    monkeypatch.delenv(DECIDED_BY, raising=False)
    assert measure_busy_cores() > count_cores() - 0.5
    with computing_with(2):
        threads = choose_threads()
    assert (threads.number, threads.most) == (1, 2)
    assert threads.reason.startswith("other programs use")
    assert 0 < measure_share() < 0.9


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how busy it is")
def test_beside_programs_that_use_all_cores_the_runs_of_a_study_take_turns(
    busy_machine, monkeypatch
):
    monkeypatch.delenv(DECIDED_BY, raising=False)
    with computing_with(2):
        jobs = Jobs(None, 2)
    assert (jobs.most, jobs.threads) == (1, 1)
    (decision,) = jobs.announce()
    assert str(decision).startswith("jobs: 1 at once, 1 thread each (other programs use ")
