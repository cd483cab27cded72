"""A machine whose cores other programs use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from lamina.data.workers import count_cores
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
    assert "set threads to use more" in threads.reason
    assert 0 < measure_share() < 0.9
