"""What a process of a tuning does next: another trial, or the end of its search."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.studies.trials import Limits, Trial, find_end, measure_run, rank

STATES = ("complete", "pruned", "fail", "repeated", "running", "waiting")


def make_trials(states, seconds: float | None = 10.0) -> list[Trial]:
    return [
        Trial(number, state, 0.5, 3, seconds, None, {"lr": 0.1})
        for number, state in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("states", "training", "end"),
    [
        ([], 0, ""),
        (["complete"] * 3, 0, ""),
        (["complete"] * 3 + ["running"], 1, "it has 4 trials"),
        (["complete"] * 3 + ["running"], 0, ""),  # on another machine, perhaps lost
        (["complete", "running", "running", "pruned"], 2, "it has 4 trials"),
        (["complete"] * 4, 0, "it has 4 trials"),
        (["fail"] * 4, 0, "it has 4 trials"),
        (["repeated"] * 9, 0, ""),
        (["repeated"] * 10, 0, "10 trials in a row had the values of earlier ones"),
        (["repeated"] * 9 + ["complete"], 0, ""),
    ],
)
def test_a_process_begins_trials_until_there_is_a_reason_to_end(states, training, end):
    assert find_end(make_trials(states), training, Limits(trials=4)) == end


@given(st.lists(st.sampled_from(STATES), max_size=9), st.integers(0, 3))
def test_no_trial_begins_only_if_there_are_enough(states, training):
    counted = len([state for state in states if state in ("complete", "pruned", "fail")])
    end = find_end(make_trials(states), training, Limits(trials=4))
    assert bool(end) == (counted + training >= 4)


def test_no_trial_begins_that_would_end_in_the_time_of_the_finals():
    now = time.monotonic()
    soon = Limits(until=now + 60.0, run_seconds=100.0)
    late = Limits(until=now + 600.0, run_seconds=100.0)
    assert find_end([], 0, soon) == "the time for trials is over"
    assert find_end([], 0, late) == ""
    # the trials themselves are a better guess
    assert find_end(make_trials(["complete"] * 3, seconds=20.0), 0, soon) == ""
    slower = make_trials(["complete"] * 3, seconds=1e4)
    assert find_end(slower, 0, late) == "the time for trials is over"


def test_a_run_takes_as_long_as_trials_that_were_trained_to_the_end():
    trials = make_trials(["complete"], 30.0) + make_trials(["complete"], 10.0)
    trials += make_trials(["complete"], 20.0) + make_trials(["pruned", "fail"], 1.0)
    assert measure_run(trials, 5.0) == 20.0
    assert measure_run(make_trials(["pruned", "running"], None), 5.0) == 5.0


def test_stopped_trials_come_after_complete_ones():
    rows = [
        ("complete", 0.5, 2),
        ("pruned", 0.9, 3),
        ("pruned", 0.8, 6),
        ("complete", 0.7, 9),
        ("complete", None, 9),  # it diverged
        ("fail", 0.9, 9),
        ("running", 0.9, 9),
    ]
    trials = [
        Trial(number, state, score, epoch, 1.0, None, {})
        for number, (state, score, epoch) in enumerate(rows)
    ]
    assert [trial.trial for trial in rank(trials, "accuracy")] == [3, 0, 2, 1]
    assert [trial.trial for trial in rank(trials, "mean_absolute_error")] == [0, 3, 2, 1]
