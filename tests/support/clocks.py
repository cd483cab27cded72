"""Clocks by which time passes with what a test does, not with what the machine does meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

TICK_SECONDS = 0.03


@dataclass
class Clock:
    """A clock that stands still until a test sets it."""

    now: float = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What ``time.perf_counter`` reads."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


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
