"""Trials of a search: who trains them, how they end, and which are stopped."""

from __future__ import annotations

import threading
import time
import warnings
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np
import optuna
import pytest

from lamina import Study
from lamina.data import Dataset, Images
from lamina.errors import LaminaWarning, RunError
from lamina.files import lock_folder
from lamina.nets import Conv2d, Flatten, Linear, Net, Output
from lamina.studies.experiment import Decision
from lamina.studies.finals import PLANS, count_trainings, plan_finals, rank_finalists
from lamina.studies.search import Tried
from lamina.studies.storage import TrialLostError, open_storage
from lamina.studies.trials import Limits
from lamina.studies.tuning import iter_search, iter_tuning
from lamina.training.events import Epoch
from support.searches import (  # noqa: F401
    few_finals,
    finish,
    noise_with_val,
    open_again,
    open_search,
)


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(40)


@pytest.fixture
def impatient(monkeypatch):
    """Each trial is lost that another worker sees twice without a new sign of life."""
    monkeypatch.setattr("lamina.studies.trials.SILENT_SECONDS", 0.2)


def states(trials) -> list[str]:
    return [trial.state.name for trial in finish(trials.load()).trials]


def watch(trials) -> None:
    """Look at the trials often enough that those of a silent worker are lost."""
    for _ in range(6):
        finish(trials.recover())
        time.sleep(0.05)


@pytest.mark.parametrize(("epochs", "rungs"), [(20, [2, 6]), (3, [1]), (1, [])])
def test_trials_are_compared_after_a_ninth_and_a_third(tmp_path, data, epochs, rungs):
    search, trials = open_search(tmp_path / "study", data, epochs=epochs)
    # from this score, the trial falls behind the first one at its last rung
    for worse in (0.9, 0.5):
        stopped = []
        trial = finish(trials.take(search.ranges))
        for epoch in range(1, epochs // 2 + 1):
            score = 0.9 if worse == 0.9 or epoch < max(rungs, default=0) else worse
            finish(trials.report(trial, epoch, score))
            if finish(trials.is_worse(trial)):
                stopped.append(epoch)
                break
        finish(trials.finish(trial, "COMPLETE", 0.9))
    assert stopped == rungs[-1:]
    stored = finish(trials.load()).trials[1].system_attrs
    assert len([key for key in stored if key.startswith("completed_rung")]) == len(rungs)


def test_a_worker_goes_on_after_another_took_its_trial(tmp_path, data, impatient):
    search, trials = open_search(tmp_path / "study", data)
    other = open_again(search, trials.folder)
    seen = []
    for event in iter_search(search, trials, 0.0):
        if isinstance(event, Epoch) and not any(isinstance(event, Epoch) for event in seen):
            watch(other)  # this worker is silent meanwhile
            taken = finish(other.take(search.ranges))
        seen.append(event)
        if isinstance(event, Tried):
            finish(other.finish(taken, "COMPLETE", 0.5))
    assert any(isinstance(event, Decision) and "another process" in event.value for event in seen)
    assert [event.trial for event in seen if isinstance(event, Tried)] == [2]
    assert states(trials) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [row["trial"] for row in Study(trials.folder).trials.to_dicts()] == [0, 2]


def test_only_a_silent_worker_loses_its_trial(tmp_path, data, monkeypatch, impatient):
    monkeypatch.setattr("lamina.studies.trials.BEAT_SECONDS", 0.02)
    search, trials = open_search(tmp_path / "study", data)
    other = open_again(search, trials.folder)
    trial = finish(trials.take(search.ranges))
    finish(trials.report(trial, 1, 0.5))
    with trials.holding(trial):
        watch(other)
        assert states(other) == ["RUNNING"]
    trials.study.ask()  # lost before its first sign of life
    watch(other)
    progress = finish(other.load())
    assert states(other) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    assert [waiting.params for waiting in progress.trials[2:]] == [trial.params, {}]
    assert progress.trials[2].intermediate_values == {1: 0.5}
    with pytest.raises(TrialLostError):
        finish(trials.finish(trial, "COMPLETE", 1.0))
    assert len(progress.counted) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_stopped_worker_gives_its_trial_back(tmp_path, data, error):
    search, trials = open_search(tmp_path / "study", data)
    trial = finish(trials.take(search.ranges))
    with pytest.raises(error), trials.holding(trial):
        raise error
    assert states(trials) == ["FAIL", "WAITING"]
    again = finish(trials.take(search.ranges))
    assert (again.number, again.user_attrs["run"], again.params) == (1, 0, trial.params)


def test_only_values_that_cannot_be_trained_count_as_failed(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data)
    with closing(iter_search(search, trials, 0.0)) as events:
        next(event for event in events if isinstance(event, Epoch))
    with (
        lock_folder(trials.folder / "trial-0"),
        closing(iter_search(search, trials, 0.0)) as events,
    ):
        waiting = next(
            event for event in events if isinstance(event, Decision) and event.what == "waiting"
        )
    assert "is being trained by" in waiting.reason
    assert states(trials) == ["FAIL", "FAIL", "WAITING"]

    def net(trial):
        return Net(
            Flatten(), Linear(trial.suggest_int("width", 1, 2)), Conv2d(4, kernel_size=3), Output()
        )

    search, trials = open_search(tmp_path / "another", data)
    search = replace(search, net=net)
    tried = [event for event in iter_search(search, trials, 0.0) if isinstance(event, Tried)]
    assert len(tried) == 2
    assert all(event.end.startswith("failed: ") for event in tried)
    with pytest.raises(RunError, match=r"No trial has a score, .*failed: "):
        rank_finalists(finish(trials.load()))


@pytest.mark.parametrize("error", [MemoryError("no memory"), FileNotFoundError(2, "no file")])
def test_an_error_of_a_function_fails_its_trial(tmp_path, data, error):
    def net(trial):
        trial.suggest_int("width", 1, 1000)
        raise error

    search, trials = open_search(tmp_path / "study", data)
    search = replace(search, net=net)
    tried = [event for event in iter_search(search, trials, 0.0) if isinstance(event, Tried)]
    assert [event.end for event in tried] == [f"failed: {type(error).__name__}: {error}"] * 2
    assert states(trials) == ["FAIL", "FAIL"]


def test_a_trial_that_kills_two_workers_fails(tmp_path, data, impatient):
    search, trials = open_search(tmp_path / "study", data)
    other = open_again(search, trials.folder)
    for _ in range(2):
        with suppress(KeyboardInterrupt), trials.holding(finish(trials.take(search.ranges))):
            raise KeyboardInterrupt  # does not count
        finish(trials.take(search.ranges))
        watch(other)
    progress = finish(other.load())
    assert states(other) == ["FAIL"] * 5
    assert [trial.number for trial in progress.counted] == [4]
    assert progress.trials[4].user_attrs["error"].startswith("failed: 2 workers were lost")


def test_a_trial_that_was_given_back_is_compared_once(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data, epochs=9)

    def begin(score):
        trial = finish(trials.take(search.ranges))
        finish(trials.report(trial, 1, score))
        return trial, finish(trials.is_worse(trial))

    best, _ = begin(0.9)
    for _ in range(5):
        with suppress(KeyboardInterrupt), trials.holding(best):
            raise KeyboardInterrupt
        best = finish(trials.take(search.ranges))
    for score in (0.8, 0.7, 0.6, 0.5):
        begin(score)
    _, is_stopped = begin(0.85)  # the second of six
    assert not is_stopped


def test_an_undefined_metric_fails_the_trial_with_its_reason(tmp_path, data):
    one_class = Images.from_arrays(data.val.pixels[::2], np.zeros(20, dtype=bool), split="val")
    train = Images.from_arrays(data.train.pixels, data.train.targets.astype(bool))
    with pytest.warns(LaminaWarning, match="no images of yes"):
        binary = Dataset.from_images(train, val=one_class)
    search, trials = open_search(tmp_path / "study", binary, metric="auc")
    with pytest.warns(LaminaWarning, match="ROC AUC is undefined"):
        tried = [event for event in iter_search(search, trials, 0.0) if isinstance(event, Tried)]
    assert len(tried) == 2
    assert all("failed: The ROC AUC of the val images is undefined" in event.end for event in tried)
    assert states(trials) == ["FAIL", "FAIL"]


def test_values_that_diverge_get_the_worst_score(tmp_path, data):
    over = {"lr": "1e20..1e30:log"}
    search, trials = open_search(tmp_path / "study", data, over, optimizer="sgd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = [event for event in iter_search(search, trials, 0.0) if isinstance(event, Tried)]
    assert len(tried) == 2
    assert all(event.score is None and event.end.startswith("diverged: ") for event in tried)
    progress = finish(trials.load())
    assert [trial.value for trial in progress.select("COMPLETE")] == [0.0, 0.0]
    assert progress.rank("COMPLETE") == []


def test_no_worker_begins_a_trial_after_the_time_limit(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data)
    trials.study.set_user_attr("limits", {"trials": None, "seconds": 1.0})
    (ended,) = iter_search(search, trials, 10.0)
    assert "the rest of the time is for the finals" in str(ended)


def test_the_finals_fit_into_the_time_left():
    assert plan_finals(10, None) == (5, 3, 6)
    for seconds in (60, 200, 400, 1000, 4000):
        plan = plan_finals(10, seconds)
        larger = [value for value in PLANS if count_trainings(*value) > count_trainings(*plan)]
        assert all(count_trainings(*value) * 10 > seconds for value in larger)
        assert count_trainings(*plan) * 10 <= seconds or plan == (2, 1, 3)


@pytest.mark.usefixtures("few_finals")
def test_a_worker_keeps_the_limit_of_the_study(tmp_path, data):
    folder = tmp_path / "study"
    search, _ = open_search(tmp_path / "another", data)
    for limits, expected in ((Limits(3), 3), (Limits(), 3), (Limits(4), 4)):
        with closing(iter_tuning(folder, search, None, limits)) as worker:
            next(event for event in worker if isinstance(event, Decision))
        assert finish(open_again(search, folder).load()).limits == Limits(expected, None)


def test_a_worker_waits_for_the_settings_of_a_new_study(tmp_path, data):
    folder = tmp_path / "study"
    folder.mkdir()
    study = optuna.create_study(storage=open_storage(None, folder), study_name="study")
    settings = {"over": {"lr": "1..2"}}
    timer = threading.Timer(0.5, study.set_user_attr, ["settings", settings])
    timer.start()
    with pytest.raises(
        RunError, match="The study study in the storage already exists, with different"
    ):
        open_search(folder, data)
    timer.join()
    assert study.user_attrs["settings"] == settings
