"""What a worker of a tuning does next, and how long its search has taken."""

from __future__ import annotations

from datetime import datetime, timedelta

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.studies.trials import FinalsPlan, Limits, Progress
from lamina.studies.tuning import find_end
from lamina.targets import Score

START = datetime(2026, 1, 1)


def make_trial(state: str, number: int = 0, seconds: float = 10.0, **attributes):
    """A trial of Optuna that took so long."""
    finished = optuna.trial.TrialState[state].is_finished()
    return optuna.trial.FrozenTrial(
        number=number,
        state=optuna.trial.TrialState[state],
        value=0.5 if state in ("COMPLETE", "PRUNED") else None,
        datetime_start=START,
        datetime_complete=START + timedelta(seconds=seconds) if finished else None,
        params={},
        distributions={},
        user_attrs=attributes,
        system_attrs={},
        intermediate_values={},
        trial_id=number,
    )


def progress(states, trials=4, seconds=None, finals=None, **attributes) -> Progress:
    known = [make_trial(state, number, **attributes) for number, state in enumerate(states)]
    return Progress(known, Score("accuracy", 0.0), Limits(trials, seconds), finals)


@pytest.mark.parametrize(
    ("states", "end"),
    [
        ([], ""),
        (["COMPLETE"] * 3, ""),
        (["COMPLETE"] * 3 + ["RUNNING"], "it has 4 trials"),
        (["COMPLETE"] * 3 + ["RUNNING", "WAITING"], ""),
        (["COMPLETE", "RUNNING", "RUNNING", "PRUNED"], "it has 4 trials"),
        (["COMPLETE"] * 4, "it has 4 trials"),
        (["COMPLETE"] * 3 + ["FAIL"], ""),  # that was given back
        (["COMPLETE"] * 2 + ["RUNNING", "FAIL", "WAITING"], ""),
    ],
)
def test_a_worker_trains_until_there_is_a_reason_to_end(states, end):
    assert find_end(progress(states), 1.0) == end


def test_trials_that_failed_count_but_repeats_do_not():
    assert find_end(progress(["FAIL"] * 4, error="failed"), 1.0) == "it has 4 trials"
    repeats = progress(["FAIL"] * 9, error="not trained", repeats=0)
    assert find_end(repeats, 1.0) == ""
    repeats = progress(["FAIL"] * 10, error="not trained", repeats=0)
    assert "10 trials in a row" in find_end(repeats, 1.0)


def test_nobody_trains_a_trial_after_the_finals_have_begun():
    plan = FinalsPlan((0,), 2, 2)
    assert find_end(progress(["WAITING"], finals=plan), 1.0) == "its finals have begun"


def test_a_time_limit_counts_the_time_in_which_a_worker_trained():
    one = make_trial("COMPLETE", 0, began=0.0, seen=10.0)
    same = make_trial("COMPLETE", 1, began=5.0, seen=15.0)
    later = make_trial("FAIL", 2, began=1000.0, seen=1010.0)  # after an interruption
    known = Progress([one, same, later], Score("accuracy", 0.0), Limits(None, 80.0), None)
    assert known.used_seconds == 25.0
    # half of the time is for the finals, and a trial takes ten seconds: 80 - 40 - 10 - 25 > 0
    assert find_end(known, 1.0) == ""
    short = Progress([one, same, later], Score("accuracy", 0.0), Limits(None, 60.0), None)
    assert "the time is for the finals" in find_end(short, 1.0)


@given(st.lists(st.sampled_from(["RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING"])))
def test_no_trial_begins_only_if_there_are_enough(states):
    counted = len([state for state in states if state != "FAIL"])
    if find_end(progress(states), 1.0):
        assert counted >= 4
        assert "WAITING" not in states
    else:
        assert counted < 4 or "WAITING" in states
