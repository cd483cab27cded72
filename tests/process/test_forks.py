"""Runs of a study that are trained at once, each in a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from lamina import Recipe, Variant, compare, cross_validate, load_data, load_run
from lamina.errors import LaminaWarning, RecipeError, RunError
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.runs.start import NetChoice
from lamina.studies import forks
from lamina.studies.experiment import Experiment
from lamina.studies.forks import Jobs, Planned, iter_runs
from lamina.studies.seeds import iter_seeds
from lamina.studies.study import RunSetup
from lamina.training.events import Epoch, Step
from lamina.training.threads import DECIDED_BY, computing_with

NET = Net(Flatten(), Linear(50), ReLU(), Output())
RECIPE = Recipe(epochs=2)


@pytest.fixture(scope="module")
def images():
    dataset = load_data("shapes")
    test = dataset.test.take_evenly(50)
    return replace(dataset, train=dataset.train.take_evenly(200), test=test)


@pytest.fixture(autouse=True)
def cores(monkeypatch):
    """Two threads, whatever other programs do."""
    monkeypatch.setenv(DECIDED_BY, "2")
    with computing_with(2):
        yield


def train(images, folder: Path, jobs: int | None, recipe: Recipe = RECIPE, seeds: int = 3):
    events = iter_seeds(images, NET, recipe, seeds=seeds, name="n", runs_dir=folder, jobs=jobs)
    return list(events)


def digest(path: Path | str) -> list[str]:
    return [row["weights"] for row in load_run(path).folder.read_epochs()]


def test_the_number_of_jobs_changes_no_weights_and_no_events(images, tmp_path):
    alone = train(images, tmp_path / "alone", 1)
    together = train(images, tmp_path / "together", 2)
    for first, second in zip(alone[-1].runs, together[-1].runs, strict=True):
        assert digest(first) == digest(second)
        assert load_run(first).record.machine.threads == 1
        assert load_run(second).record.machine.threads == 1
    names = [
        [type(event) for event in events if not isinstance(event, Step)]
        for events in (alone, together)
    ]
    assert names[0] == names[1]
    assert torch.get_num_threads() == 2


def test_a_comparison_has_the_same_result_with_two_jobs(images, tmp_path):
    def linear():  # own, and not picklable
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

    results = [
        compare(
            Variant("hidden", NET, RECIPE),
            Variant("linear", linear, RECIPE),
            images,
            seeds=2,
            runs_dir=tmp_path / str(jobs),
            jobs=jobs,
            progress=False,
        )
        for jobs in (1, 2)
    ]
    assert results[0] == results[1]


def test_folds_are_trained_at_once(images, tmp_path):
    results = [
        cross_validate(
            images,
            NET,
            RECIPE,
            folds=3,
            name=str(jobs),
            runs_dir=tmp_path,
            jobs=jobs,
            progress=False,
        )
        for jobs in (1, 2)
    ]
    for name in ("fold-1", "fold-2", "fold-3", "final"):
        first, second = (load_run(tmp_path / jobs / name) for jobs in "12")
        assert digest(first.path) == digest(second.path)
        threads = 2 if name == "final" else 1  # which is trained alone
        assert first.record.machine.threads == second.record.machine.threads == threads
    assert results[0].scores == results[1].scores


def test_runs_of_several_threads_are_trained_after_computing(images, tmp_path):
    torch.set_num_threads(4)
    torch.randn(1000, 1000).mul(2).abs().sum()  # by all threads of OpenMP
    *_, result = train(images, tmp_path, 2, seeds=2)
    assert [load_run(run).record.machine.threads for run in result.runs] == [2, 2]


def test_few_runs_share_the_threads():
    torch.set_num_threads(8)
    assert Jobs(None, 2).threads == 4
    assert Jobs(1, 2).threads == 4
    assert Jobs(None, 20).threads == 1
    assert Jobs(None, 2).most == 2
    assert (Jobs(None, 3).threads, Jobs(None, 3).most) == (2, 3)  # no more than there are runs


def test_the_number_of_jobs_is_announced_once_with_its_reason(monkeypatch):
    monkeypatch.setenv(DECIDED_BY, "8")
    torch.set_num_threads(8)
    jobs = Jobs(None, 2)
    (decision,) = jobs.announce()
    assert str(decision) == "jobs: 2 at once, 4 threads each (OMP_NUM_THREADS is 8)"
    assert not list(jobs.announce())
    assert not list(Jobs(2, 2).announce())


def make_experiment(images, recipe: Recipe) -> Experiment:
    return Experiment(NetChoice("net", NET), recipe, images)


def test_the_process_that_trains_a_run_makes_its_experiment(images, tmp_path):
    makers = tmp_path / "makers"
    makers.mkdir()

    def make() -> Experiment:
        (makers / str(os.getpid())).touch()
        return make_experiment(images, RECIPE)

    planned = [Planned(tmp_path / name, make) for name in "ab"]
    list(iter_runs(planned, RunSetup(jobs=2)))
    made = {file.name for file in makers.iterdir()}
    assert len(made - {str(os.getpid())}) == len(made) == 2


def test_a_run_that_diverges_is_left_out(images, tmp_path):
    recipes = {"bad": Recipe(epochs=1, lr=1e30, optimizer="sgd"), "good": RECIPE}
    planned = [
        Planned(tmp_path / name, partial(make_experiment, images, recipe))
        for name, recipe in recipes.items()
    ]
    events = []
    runs = yield_all(iter_runs(planned, RunSetup(jobs=2)), events)
    assert list(runs) == [tmp_path / "good"]
    assert any(str(event).startswith("warning: bad diverged") for event in events)
    assert runs[tmp_path / "good"].is_finished


def yield_all(events: Generator, seen: list):
    """Append the events of a generator; returns its value."""
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return end.value


def test_the_run_of_a_killed_process_continues_with_the_same_weights(images, tmp_path):
    recipe = Recipe(epochs=20)
    whole = train(images, tmp_path / "whole", 1, recipe, seeds=2)
    events = iter_seeds(images, NET, recipe, seeds=2, name="n", runs_dir=tmp_path, jobs=2)
    next(event for event in events if isinstance(event, Epoch))
    children = multiprocessing.active_children()
    assert len(children) == 2
    os.kill(children[0].pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"was lost.* run the command again"):
        list(events)
    *_, result = train(images, tmp_path, 2, recipe, seeds=2)
    assert list(map(digest, result.runs)) == list(map(digest, whole[-1].runs))


def test_an_interrupted_study_stops_its_processes_and_continues(images, tmp_path, monkeypatch):
    recipe = Recipe(epochs=20)
    torch.set_num_threads(4)
    whole = train(images, tmp_path / "whole", 2, recipe, seeds=2)
    events = iter_seeds(images, NET, recipe, seeds=2, name="n", runs_dir=tmp_path, jobs=2)
    first = next(event for event in events if isinstance(event, Epoch))
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt())
    assert first.epoch < 20
    path = tmp_path / "n" / "seed0"
    assert not load_run(path).is_finished
    with load_run(path).folder.lock():  # no process trains it any more
        pass
    monkeypatch.delenv(DECIDED_BY)
    torch.set_num_threads(1)
    *_, result = train(images, tmp_path, 2, recipe, seeds=2)
    assert result.seeds == (0, 1)
    assert load_run(path).record.machine.threads == 2  # as before the interruption
    assert digest(path) == digest(whole[-1].runs[0])


def test_where_processes_cannot_train_lamina_says_so(images, tmp_path, monkeypatch):
    monkeypatch.setattr(forks.sys, "platform", "win32")
    with pytest.warns(LaminaWarning, match="one after the other"):
        events = train(images, tmp_path, 2, seeds=2)
    assert events[-1].seeds == (0, 1)
    with pytest.raises(RecipeError, match="jobs is 0"):
        train(images, tmp_path, 0)
