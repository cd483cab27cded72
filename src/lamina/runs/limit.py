"""A time limit on training: when the learning rate has to fall so that training ends in time."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field

from lamina.training.schedule import Schedule

LEAST_STEPS = 3
LEAST_SECONDS = 1.0
"""The pace is known after this many steps and this many seconds."""
RECENT_FRACTION = 0.25
"""Fraction of the time so far over which the pace is measured; a machine's speed may change."""
TOLERANCE = 0.02
"""A fall is planned again if it would end this fraction of the time too early or too late."""
SPARE_FRACTION = 0.01
"""A fall should end this fraction of the time before the limit."""
REST_FRACTION = 0.03
"""Between two plans, this fraction of the time passes."""
FINISHING_FRACTION = 0.1
"""Of the time so far, in which training finishes on request."""


@dataclass
class TimeLimit:
    """The pace of training, and how many steps are left.

    Attributes:
        until: when the last step should end, as ``time.perf_counter()`` counts seconds; infinity
            without a limit.
        is_open: whether training goes on until then, for any number of epochs.
        is_finishing: whether the user asked to finish.
    """

    until: float = math.inf
    is_open: bool = False
    is_finishing: bool = False
    _began: float = field(default_factory=lambda: time.perf_counter())
    _marks: deque[tuple[float, int]] = field(default_factory=deque)
    _planned_at: float = -math.inf

    @property
    def is_over(self) -> bool:
        """Whether the time has run out."""
        return time.perf_counter() > self.until

    @property
    def reason(self) -> str:
        """Why training ends before its last epoch."""
        return "finishing on request" if self.is_finishing else "the time limit"

    def finish_soon(self) -> None:
        """Move the limit to soon, and never to later."""
        now = time.perf_counter()
        self.until = min(self.until, now + FINISHING_FRACTION * (now - self._began))
        self.is_finishing = True
        self._planned_at = -math.inf

    def steer(self, schedule: Schedule, step: int) -> None:
        """Let the rate fall when it has to; an end that cannot move stays."""
        steps = self.choose_fall_steps(schedule, step) if schedule.can_move else None
        if steps is not None:
            schedule.start_fall(step, steps)

    def choose_fall_steps(self, schedule: Schedule, step: int) -> int | None:
        """Steps in which the rate should fall from ``step`` on; ``None`` keeps the plan."""
        now = time.perf_counter()
        self._marks.append((now, step))
        if now > self.until:  # one more step ends training at the rate that the fall has reached
            return None if schedule.is_over(step + 1) else 1
        if now - self._began < LEAST_SECONDS or step - self._marks[0][1] < LEAST_STEPS:
            return None
        oldest = now - RECENT_FRACTION * (now - self._began)
        while len(self._marks) > LEAST_STEPS + 1 and self._marks[1][0] < oldest:
            self._marks.popleft()
        if self.until == math.inf:
            return None
        since, first = self._marks[0]
        steps_per_second = (step - first) / (now - since)
        whole = self.until - self._began
        steps_left = (self.until - SPARE_FRACTION * whole - now) * steps_per_second
        planned = math.inf if schedule.steps is None else schedule.steps - step
        if not schedule.is_falling(step):
            is_due = schedule.count_fall_steps(step) >= steps_left and planned > steps_left
        else:
            slack = TOLERANCE * whole * steps_per_second
            is_due = planned > steps_left + slack or (self.is_open and planned < steps_left - slack)
            is_due = is_due and now - self._planned_at >= REST_FRACTION * whole
        if not is_due:
            return None
        self._planned_at = now
        return max(1, int(steps_left))
