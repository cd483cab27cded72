"""Time limits of a cross-validation, by a clock that goes on at each look."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from lamina import LaminaError, load_data, load_run
from lamina.runs.start import as_net_choice
from lamina.studies.choose import ConsideredNets
from lamina.studies.cross_validation import Folds, iter_folds
from lamina.studies.experiment import Deadline, Decision, Request
from lamina.studies.study import RunSetup, Started
from support.commands import events, run_from_now, run_well

NET_TEXT = "Flatten(), Output()"


@pytest.fixture(scope="module")
def study(tmp_path_factory, image_set):
    """A finished cross-validation of three folds, and the events of its command."""
    folder = tmp_path_factory.mktemp("folds")
    words = ("--data", image_set, "--folds", "3", "--epochs", "2", "--name", "cv", "--json")
    done = run_well("train", NET_TEXT, *words, "--runs-dir", folder)
    return folder / "cv", events(done.stdout)


@pytest.fixture
def runs(workplace, study):
    """A copy of it as ``runs/cv``."""
    shutil.copytree(study[0], workplace / "runs" / "cv")
    return Path("runs/cv")


def test_lamina_chooses_once_for_all_folds_within_the_time(workplace, image_set):
    train = ("train", "--data", image_set, "--folds", "2", "--name", "cv")
    done = run_from_now(9, *train, "--no-pretrained")
    assert done.returncode == 0, done.stderr
    assert re.search(r"out-of-fold accuracy \S+ % \(95 % interval \S+ % to \S+ %\)", done.stdout)
    assert "models trained on 1 of 2 folds" in done.stdout
    assert done.stderr.count("considered") == 1
    again = run_from_now(9, *train)
    # other initial weights
    assert (
        again.returncode,
        "runs/cv already exists, with different settings: pretrained" in again.stderr,
    ) == (2, True)


def test_all_runs_share_one_choice_and_the_time_that_is_left(workplace, image_set):
    dataset = load_data(image_set)
    setup = RunSetup(Path("runs"), "cv")

    def begin(seconds: float) -> Generator:
        deadline = Deadline(time.perf_counter(), seconds)
        return iter_folds(dataset, 2, Request(pretrained=False), deadline, setup)

    with closing(begin(8.0)) as events:
        for event in events:
            if isinstance(event, Decision) and event.what == "fold 1":
                break
    stored = json.loads(Path("runs/cv/study.json").read_text())
    assert stored["finished"] == ["fold-1"]
    assert stored["used_seconds"] > 1
    rest = list(begin(8.0))
    assert not any(isinstance(event, ConsideredNets) for event in rest)
    after = json.loads(Path("runs/cv/study.json").read_text())
    assert after["choice"] == stored["choice"]
    assert 6 < after["used_seconds"] < 12  # not twice the limit
    records = [load_run(f"runs/cv/{name}").record for name in ("fold-1", "fold-2", "final")]
    assert len({record.net_name for record in records}) == 1
    assert len({record.in_shape for record in records}) == 1
    assert len({record.recipe for record in records}) == 1


def test_all_folds_have_the_same_time_after_an_interruption(workplace, image_set):
    dataset = load_data(image_set)
    setup = RunSetup(Path("runs"), "cv")
    request = Request(as_net_choice(NET_TEXT))

    def begin(seconds: float) -> Generator:
        return iter_folds(dataset, 2, request, Deadline(time.perf_counter(), seconds), setup)

    with closing(begin(40.0)) as events:
        next(event for event in events if isinstance(event, Started))
    state = json.loads(Path("runs/cv/study.json").read_text())
    assert "choice" not in state  # its training had not begun
    began = None
    with closing(begin(40.0)) as events:
        for event in events:
            if isinstance(event, Started) and event.run.path.name == "fold-2":
                began = time.perf_counter()
            if began is not None and time.perf_counter() - began > 5.0:
                break
    with pytest.raises(LaminaError, match=r"already exists, with different settings: time\."):
        next(begin(60.0))
    rest = list(begin(40.0))
    assert isinstance(rest[-1], Folds)
    # a resumed run has at least LEAST_TRAINING_SECONDS of a core, which is little of ten seconds
    seconds = []
    for fold in (1, 2):
        epochs = load_run(f"runs/cv/fold-{fold}").folder.history.epochs()
        seconds.append(sum(epoch["train_seconds"] for epoch in epochs))
    assert seconds[1] == pytest.approx(seconds[0], rel=0.5)


def test_every_run_is_trained_in_too_little_time(workplace, image_set):
    words = ("--data", image_set, "--folds", "2", "--time", "0.1s", "--name", "cv", "--json")
    done = run_well("train", NET_TEXT, *words)
    assert len(events(done.stdout)[-1]["scores"]) == 2
    assert "lamina trains for fewer steps. Increase --time" in done.stderr
    assert load_run("runs/cv").report is not None
