"""Time limits of a cross-validation, by a clock that goes on whenever it is read."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from lamina import LaminaError, load_data, load_run, zoo
from lamina.runs.start import as_net_choice
from lamina.studies.choosing import ConsideredNets
from lamina.studies.cross_validation import Folds, iter_folds
from lamina.studies.experiment import Deadline, Decision, Request
from lamina.studies.study import RunSetup, Started
from support.commands import events, run_well

NET_TEXT = "Flatten(), Output()"
TICK_SECONDS = 0.03


@pytest.fixture(autouse=True)
def ticking_clock(monkeypatch):
    """Time passes by what is done, not by what the machine does meanwhile."""
    clock = itertools.count(time.perf_counter(), TICK_SECONDS)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr("lamina.studies.study.measure_share", lambda: 1.0)


@pytest.fixture
def begin(workplace, image_set):
    """Two folds in ``runs/cv``, within seconds."""
    dataset = load_data(image_set)

    def begin(request: Request, seconds: float) -> Generator:
        deadline = Deadline(time.perf_counter(), seconds)
        return iter_folds(dataset, 2, request, deadline, RunSetup(Path("runs"), "cv"))

    return begin


def read_state() -> dict:
    return json.loads(Path("runs/cv/study.json").read_text())


def test_all_runs_share_one_choice_and_the_time_that_is_left(begin, monkeypatch):
    monkeypatch.setattr("lamina.studies.choosing.LADDER", zoo.LADDER[:1])
    request = Request(pretrained=False)
    before = []
    with closing(begin(request, 8.0)) as events:
        for event in events:
            before.append(event)
            if isinstance(event, Decision) and event.what == "fold 1":
                break
    assert sum(isinstance(event, ConsideredNets) for event in before) == 1
    stored = read_state()
    assert stored["finished"] == ["fold-1"]
    assert stored["used_seconds"] > 1
    with pytest.raises(LaminaError, match=r"already exists, with different settings: pretrained"):
        next(begin(Request(), 8.0))
    rest = list(begin(request, 8.0))
    assert not any(isinstance(event, ConsideredNets) for event in rest)
    after = read_state()
    assert after["choice"] == stored["choice"]
    assert 6 < after["used_seconds"] < 12  # not twice the limit
    records = [load_run(f"runs/cv/{name}").record for name in ("fold-1", "fold-2", "final")]
    assert len({record.net_name for record in records}) == 1
    assert len({record.in_shape for record in records}) == 1
    assert len({record.recipe for record in records}) == 1


def test_all_folds_have_the_same_time_after_an_interruption(begin):
    request = Request(as_net_choice(NET_TEXT))
    with closing(begin(request, 40.0)) as events:
        next(event for event in events if isinstance(event, Started))
    assert "choice" not in read_state()  # its training had not begun
    began = None
    with closing(begin(request, 40.0)) as events:
        for event in events:
            if isinstance(event, Started) and event.run.path.name == "fold-2":
                began = time.perf_counter()
            if began is not None and time.perf_counter() - began > 5.0:
                break
    with pytest.raises(LaminaError, match=r"already exists, with different settings: time\."):
        next(begin(request, 60.0))
    rest = list(begin(request, 40.0))
    assert isinstance(rest[-1], Folds)
    first, second = (len(load_run(f"runs/cv/fold-{fold}").folder.read_epochs()) for fold in (1, 2))
    assert 0.6 * first < second <= first  # epochs after the last checkpoint were lost


def test_every_run_is_trained_in_too_little_time(workplace, image_set):
    words = ("--data", image_set, "--folds", "2", "--time", "0.1s", "--name", "cv", "--json")
    done = run_well("train", NET_TEXT, *words)
    assert len(events(done.stdout)[-1]["scores"]) == 2
    assert "lamina trains for fewer steps. Increase --time" in done.stderr
    assert load_run("runs/cv").report is not None
