"""A clock by which time passes with what is done, not with what the machine does meanwhile."""

from __future__ import annotations

import time

import pytest

TICK_SECONDS = 0.03


@pytest.fixture
def ticking_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on by 30 ms whenever ``time.perf_counter`` is read, as in every step."""
    now = time.perf_counter()

    def tick() -> float:
        nonlocal now
        now += TICK_SECONDS
        return now

    monkeypatch.setattr(time, "perf_counter", tick)
    monkeypatch.setattr(time, "thread_time", lambda: now)  # as on a core of its own
