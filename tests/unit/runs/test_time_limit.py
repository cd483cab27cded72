"""When the learning rate falls, so that training ends at its time limit. A step takes 1/8 s."""

from __future__ import annotations

import math
import threading

import pytest

from lamina import Recipe
from lamina.runs.course import TimeLimit
from lamina.training.schedule import Schedule

STEP_SECONDS = 0.125


def plan(name="trapezoid"):
    """A schedule of 1,000 steps; as a trapezoid, the rate falls in the last 400."""
    return Schedule(Recipe(epochs=10, schedule=name), steps_per_epoch=100)


def plan_open():
    schedule = plan()
    schedule.leave_open(0)
    return schedule


def train(clock, limit, schedule, step):
    """Train to ``step`` without a decision."""
    for done in range(1, step + 1):
        clock.now = done * STEP_SECONDS
        assert limit.choose_fall_steps(schedule, done) is None


@pytest.mark.parametrize(("step_seconds", "first"), [(0.125, 8), (0.5, 4)])
def test_the_pace_is_known_after_a_second_and_three_more_steps(step_seconds, first, clock):
    """The time is almost over, so the rate falls as soon as the pace is known."""
    schedule = plan_open()
    limit = TimeLimit((first + 0.6) * step_seconds, is_open=True)
    falls = []
    for step in range(1, first + 1):
        clock.now += step_seconds
        falls.append(limit.choose_fall_steps(schedule, step))
    assert falls == [None] * (first - 1) + [1]


def test_the_pace_is_that_of_the_last_quarter_of_the_time(clock):
    """Of 100 s, steps take 100 ms for 40 s, then 50 ms on average; a hundredth is to spare."""
    schedule = plan_open()
    limit = TimeLimit(100.0, is_open=True)
    step = 0
    steps = None
    while steps is None:
        clock.now += 0.1 if clock.now < 40 else (0.01, 0.01, 0.13)[step % 3]
        step += 1
        steps = limit.choose_fall_steps(schedule, step)
    assert clock.now > 60
    assert steps == pytest.approx((99 - clock.now) / 0.05, rel=0.01)


def test_an_open_training_falls_when_the_rest_is_two_thirds_of_what_is_done(clock):
    """In 128 s, less a hundredth, there are 1,013.76 steps: 405 are left of 609, 406 of 608."""
    schedule = plan_open()
    limit = TimeLimit(128.0, is_open=True)
    train(clock, limit, schedule, 608)
    clock.now += STEP_SECONDS
    assert limit.choose_fall_steps(schedule, 609) == 404


@pytest.mark.parametrize(("seconds", "fall"), [(126.5, None), (126.0, 398)])
def test_a_planned_end_moves_only_if_the_time_does_not_suffice(seconds, fall, clock):
    """Of 1,000 steps, 1,001.88 and 997.92 fit; the latter fall after 599, a step early."""
    schedule = plan()
    limit = TimeLimit(seconds)
    train(clock, limit, schedule, 598)
    clock.now += STEP_SECONDS
    assert limit.choose_fall_steps(schedule, 599) == fall


@pytest.mark.parametrize(
    ("seconds", "is_open", "fall"),
    [
        (123.5, False, 278),
        (124.0, False, None),
        (128.5, True, None),
        (129.25, True, 323),
        (129.25, False, None),
    ],
)
def test_a_fall_moves_by_more_than_a_fiftieth_of_the_time(seconds, is_open, fall, clock):
    """After 700 of 1,000 steps; without an open end, a fall is never prolonged."""
    schedule = plan()
    limit = TimeLimit()
    train(clock, limit, schedule, 699)
    limit.until = seconds
    limit.is_open = is_open
    clock.now += STEP_SECONDS
    assert limit.choose_fall_steps(schedule, 700) == fall


def test_between_two_plans_three_hundredths_of_the_time_pass(clock):
    """Of 128 s, 3.84 s; the next program on this machine takes 3 s after the first plan."""
    schedule = plan_open()
    limit = TimeLimit(128.0, is_open=True)
    train(clock, limit, schedule, 608)
    clock.now += STEP_SECONDS
    schedule.start_fall(609, limit.choose_fall_steps(schedule, 609))
    planned_at = clock.now
    clock.now += 3
    step = 610
    while limit.choose_fall_steps(schedule, step) is None:
        clock.now += STEP_SECONDS
        step += 1
    assert clock.now - planned_at == 3.875


def test_after_the_limit_one_more_step_is_trained(clock):
    schedule = plan()
    limit = TimeLimit(10.0)
    clock.now = 10.0
    assert not limit.is_over
    assert limit.choose_fall_steps(schedule, 1) is None
    clock.now = 10.01
    assert limit.is_over
    assert limit.choose_fall_steps(schedule, 2) == 1
    schedule.start_fall(2, 1)
    assert limit.choose_fall_steps(schedule, 2) is None


def test_an_end_that_cannot_move_stays(clock):
    limit = TimeLimit(10.0)
    clock.now = 11.0
    for name, end in (("cosine", 1000), ("trapezoid", 4)):
        schedule = plan(name)
        limit.steer(schedule, 3)
        assert schedule.steps == end


@pytest.mark.parametrize(("until", "earliest"), [(math.inf, 110.0), (110.5, 110.0), (105.0, 105.0)])
def test_a_request_to_finish_moves_the_limit_to_a_tenth_of_the_time_so_far(until, earliest, clock):
    finish = threading.Event()
    limit = TimeLimit(until, finish=finish)
    clock.now = 100.0
    limit.look()
    assert (limit.until, limit.reason) == (until, "the time limit")
    finish.set()
    limit.look()
    assert (limit.until, limit.reason) == (earliest, "finishing on request")
    assert not finish.is_set()


def test_a_request_to_finish_moves_a_fall_that_was_just_planned(clock):
    schedule = plan_open()
    finish = threading.Event()
    limit = TimeLimit(128.0, is_open=True, finish=finish)
    train(clock, limit, schedule, 608)
    clock.now += STEP_SECONDS
    limit.steer(schedule, 609)
    assert schedule.steps == 609 + 404
    finish.set()
    limit.look()
    clock.now += STEP_SECONDS
    limit.steer(schedule, 610)
    assert schedule.steps == pytest.approx(1.1 * 610, rel=0.02)


@pytest.mark.parametrize(("done", "longest"), [(995, 5), (700, 70), (300, 30)])
def test_a_request_to_finish_never_prolongs_a_training(done, longest, clock):
    schedule = plan()
    finish = threading.Event()
    limit = TimeLimit(finish=finish)
    train(clock, limit, schedule, done)
    finish.set()
    limit.look()
    clock.now += STEP_SECONDS
    limit.steer(schedule, done)
    assert schedule.steps <= min(1000, done + longest)


@pytest.mark.parametrize("slowdown", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("when", [0.3, 0.7])
def test_the_time_is_used_and_kept_though_the_machine_changes(slowdown, when, clock):
    """A step takes 20 ms, and from a moment on more or less."""
    schedule = plan_open()
    limit = TimeLimit(60.0, is_open=True)
    step = 0
    while not schedule.is_over(step) and not limit.is_over:
        clock.now += 0.02 * (slowdown if clock.now > when * 60 else 1)
        step += 1
        if not schedule.is_over(step):
            limit.steer(schedule, step)
    assert schedule.is_over(step)
    assert 0.92 * 60 <= clock.now <= 60
    assert schedule.factor(step - 1) < 0.05
