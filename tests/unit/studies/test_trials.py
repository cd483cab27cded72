"""Trials of a search: who trains them, how they end, and which are stopped."""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from lamina import Study
from lamina.data import Dataset, Images
from lamina.errors import LaminaWarning, RunError
from lamina.files import LockedError, lock_folder
from lamina.nets import Conv2d, Flatten, Linear, Net, Output
from lamina.studies.search import Tried
from lamina.studies.study import Started
from lamina.studies.trials import Limits, rank
from lamina.studies.tuning import iter_search, iter_tuning
from lamina.training.events import Epoch
from support.searches import (  # noqa: F401
    few_finals,
    noise_with_val,
    open_again,
    open_search,
    take,
)

TWO = Limits(trials=2)


@pytest.fixture
def data() -> Dataset:
    return noise_with_val(40)


def states(trials) -> list[str]:
    return [trial.state for trial in trials.load()]


def find_tried(events) -> list[Tried]:
    return [event for event in events if isinstance(event, Tried)]


@pytest.mark.parametrize(("epochs", "rungs"), [(20, [2, 6]), (3, [1]), (1, [])])
def test_trials_are_compared_after_a_ninth_and_a_third(tmp_path, data, epochs, rungs):
    search, trials = open_search(tmp_path / "study", data, epochs=epochs)
    # from this score, the trial falls behind the first one at its last rung
    for worse in (0.9, 0.5):
        stopped = []
        held = take(search, trials)
        for epoch in range(1, epochs // 2 + 1):
            score = 0.9 if worse == 0.9 or epoch < max(rungs, default=0) else worse
            trials.report(held, epoch, score)
            if trials.is_worse(held):
                stopped.append(epoch)
                break
        trials.finish(held, "COMPLETE", 0.9)
    assert stopped == rungs[-1:]
    stored = trials.study.trials[1].system_attrs
    assert len([key for key in stored if key.startswith("completed_rung")]) == len(rungs)


def test_only_a_lost_process_loses_its_trial(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data)
    other = open_again(search, trials.folder)
    held = take(search, trials)
    assert other.count_training() == 1
    second = take(search, other)
    assert (second.trial.number, other.count_training()) == (1, 2)
    held.lock.release()  # as the system does for a killed process
    assert other.count_training() == 1
    again = take(search, other)
    assert (again.trial.number, again.trial.params) == (0, held.trial.params)
    assert states(other) == ["running", "running"]


def test_trials_of_another_folder_are_left_alone(tmp_path, data):
    """In a database, a trial that nobody with this folder has begun is no lost one."""
    search, trials = open_search(tmp_path / "study", data)
    trials.study.ask(search.ranges)
    assert trials.count_training() == 0
    assert take(search, trials).trial.number == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_trial_of_a_stopped_process_is_continued(tmp_path, data, error):
    search, trials = open_search(tmp_path / "study", data)
    numbers = []
    for _ in range(4):
        held = take(search, trials)
        numbers.append(held.trial.number)
        with pytest.raises(error), trials.holding(held):
            raise error
    assert numbers == [0, 0, 0, 0]
    assert states(trials) == ["running"]


def test_a_trial_that_kills_two_processes_fails(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), trials.holding(take(search, trials)):
            raise KeyboardInterrupt  # does not count
        take(search, trials).lock.release()  # as the system does for a killed process
    assert take(search, trials).trial.number == 1
    first, second = trials.load()
    assert (first.state, second.state) == ("fail", "running")
    assert first.error == "failed: 2 processes were lost while they trained it"
    assert first.is_counted


def test_a_process_continues_where_another_was_stopped(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data, epochs=4)
    with closing(iter_search(search, trials, TWO)) as events:
        epochs = [next(event for event in events if isinstance(event, Epoch)).epoch]
    other = open_again(search, trials.folder)
    seen = list(iter_search(search, other, TWO))
    epochs += [event.epoch for event in seen if isinstance(event, Epoch)]
    assert epochs[:5] == [1, 2, 3, 4, 1]
    assert [event.trial for event in find_tried(seen)] == [0, 1]
    assert states(trials)[0] == "complete"
    assert Study(trials.folder).trials["trial"].to_list() == [0, 1]


def test_a_run_that_another_program_trains_ends_the_search(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data)
    with closing(iter_search(search, trials, TWO)) as events:
        next(event for event in events if isinstance(event, Started))
    with (
        lock_folder(trials.folder / "trial-0"),
        pytest.raises(LockedError, match="is being trained by another"),
    ):
        list(iter_search(search, trials, TWO))
    assert states(trials) == ["running"]
    assert len(find_tried(iter_search(search, trials, TWO))) == 2


def test_only_values_that_cannot_be_trained_count_as_failed(tmp_path, data):
    def net(trial):
        return Net(
            Flatten(), Linear(trial.suggest_int("width", 1, 2)), Conv2d(4, kernel_size=3), Output()
        )

    search, trials = open_search(tmp_path / "study", data)
    search = replace(search, net=net)
    tried = find_tried(iter_search(search, trials, TWO))
    assert len(tried) == 2
    assert all(event.end.startswith("failed: ") for event in tried)
    assert states(trials) == ["fail", "fail"]
    assert rank(trials.load(), "accuracy") == []


@pytest.mark.parametrize("error", [MemoryError("no memory"), FileNotFoundError(2, "no file")])
def test_an_error_of_a_function_fails_its_trial(tmp_path, data, error):
    def net(trial):
        trial.suggest_int("width", 1, 1000)
        raise error

    search, trials = open_search(tmp_path / "study", data)
    search = replace(search, net=net)
    tried = find_tried(iter_search(search, trials, TWO))
    assert [event.end for event in tried] == [f"failed: {type(error).__name__}: {error}"] * 2
    assert states(trials) == ["fail", "fail"]


def test_a_trial_that_was_stopped_is_compared_once(tmp_path, data):
    search, trials = open_search(tmp_path / "study", data, epochs=9)

    def begin(score):
        held = take(search, trials)
        trials.report(held, 1, score)
        return held, trials.is_worse(held)

    held = []
    for _ in range(5):
        best, _ = begin(0.9)
        with pytest.raises(KeyboardInterrupt), trials.holding(best):
            raise KeyboardInterrupt
    held.append(take(search, trials))
    for score in (0.8, 0.7, 0.6, 0.5):
        held.append(begin(score)[0])
    last, is_stopped = begin(0.85)  # the second of six
    assert last.trial.number == 5
    assert not is_stopped


def test_an_undefined_metric_fails_the_trial_with_its_reason(tmp_path, data):
    one_class = Images.from_arrays(data.val.pixels[::2], np.zeros(20, dtype=bool), split="val")
    train = Images.from_arrays(data.train.pixels, data.train.targets.astype(bool))
    with pytest.warns(LaminaWarning, match="no images of yes"):
        binary = Dataset.from_images(train, val=one_class)
    search, trials = open_search(tmp_path / "study", binary, metric="auc")
    with pytest.warns(LaminaWarning, match="ROC AUC is undefined"):
        tried = find_tried(iter_search(search, trials, TWO))
    assert len(tried) == 2
    assert all("failed: The ROC AUC of the val images is undefined" in event.end for event in tried)
    assert states(trials) == ["fail", "fail"]


def test_values_that_diverge_get_the_worst_score(tmp_path, data):
    over = {"lr": "1e20..1e30:log"}
    search, trials = open_search(tmp_path / "study", data, over, optimizer="sgd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = find_tried(iter_search(search, trials, TWO))
    assert len(tried) == 2
    assert all(event.score is None and event.end.startswith("diverged: ") for event in tried)
    assert [(trial.state.name, trial.value) for trial in trials.study.trials] == [
        ("COMPLETE", 0.0),
        ("COMPLETE", 0.0),
    ]
    assert [trial.score for trial in trials.load()] == [None, None]
    assert rank(trials.load(), "accuracy") == []


@pytest.mark.usefixtures("few_finals")
def test_a_longer_command_extends_the_search(tmp_path, data):
    folder = tmp_path / "study"
    search, _ = open_search(tmp_path / "another", data, epochs=1)
    for trials in (2, 3):
        events = list(iter_tuning(folder, search, None, Limits(trials), is_worker=True))
        assert str(events[-1]) == f"search: ended (it has {trials} trials)"
    assert Study(folder).result is None
    list(iter_tuning(folder, search, None, Limits(3)))
    assert Study(folder).result.trials == 3


def test_a_search_with_other_settings_is_refused(tmp_path, data):
    _, trials = open_search(tmp_path / "study", data)
    before = (trials.folder / "trials.journal").read_bytes()
    (trials.folder / "study.json").unlink()
    with pytest.raises(RunError, match="in the storage was begun with other settings"):
        open_search(tmp_path / "study", data, epochs=3)
    after = (trials.folder / "trials.journal").read_bytes()
    assert after.startswith(before)
    assert b"user_attr" not in after[len(before) :]
