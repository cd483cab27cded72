"""Time limits of a cross-validation, by a clock that goes on whenever it is read."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from lamina import Epoch, LaminaError, load_data, load_run, zoo
from lamina.runs.start import as_net_choice
from lamina.studies.choosing import ConsideredNets
from lamina.studies.cross_validation import Folds, iter_folds, share_time
from lamina.studies.experiment import Deadline, Decision, Request
from lamina.studies.study import RunSetup
from support.commands import events, run_well

pytestmark = pytest.mark.usefixtures("ticking_clock")
NET_TEXT = "Flatten(), Output()"


@pytest.fixture
def begin(workplace, image_set):
    """Two folds in ``runs/cv``, within seconds."""
    dataset = load_data(image_set)

    def begin(request: Request, seconds: float) -> Generator:
        deadline = Deadline(time.perf_counter(), seconds)
        return iter_folds(dataset, 2, request, deadline, RunSetup(Path("runs"), "cv"))

    return begin


def test_all_runs_share_one_choice_and_its_epochs(begin, monkeypatch):
    monkeypatch.setattr("lamina.studies.choosing.LADDER", zoo.LADDER[:1])
    request = Request(pretrained=False)
    before = []
    with closing(begin(request, 8.0)) as events:
        for event in events:
            before.append(event)
            if isinstance(event, Decision) and event.what == "trained":
                break
    assert sum(isinstance(event, ConsideredNets) for event in before) == 1
    with pytest.raises(LaminaError, match=r"already exists, with different settings: pretrained"):
        next(begin(Request(), 8.0))
    with pytest.raises(LaminaError, match=r"already exists, with different settings: time\."):
        next(begin(request, 9.0))
    rest = list(begin(request, 8.0))
    assert not any(isinstance(event, ConsideredNets) for event in rest)
    runs = [load_run(f"runs/cv/{name}") for name in ("fold-1", "fold-2", "final")]
    assert len({run.record.net_name for run in runs}) == 1
    assert len({run.record.in_shape for run in runs}) == 1
    assert len({run.record.recipe for run in runs}) == 1
    assert [len(run.folder.read_epochs()) for run in runs] == [runs[0].record.recipe.epochs] * 3
    assert runs[0].record.considered


def test_an_interrupted_study_trains_the_epochs_that_were_planned(begin):
    request = Request(as_net_choice(NET_TEXT))
    with closing(begin(request, 10.0)) as events:
        next(event for event in events if isinstance(event, Epoch))
    planned = load_run("runs/cv/fold-1").record.recipe.epochs
    rest = list(begin(request, 10.0))
    assert isinstance(rest[-1], Folds)
    runs = [load_run(f"runs/cv/{name}") for name in ("fold-1", "fold-2", "final")]
    assert [len(run.folder.read_epochs()) for run in runs] == [planned] * 3


def test_every_run_is_trained_in_too_little_time(workplace, image_set):
    words = ("--data", image_set, "--folds", "2", "--time", "0.1s", "--name", "cv", "--json")
    done = run_well("train", NET_TEXT, *words)
    assert len(events(done.stdout)[-1]["scores"]) == 2
    assert "lamina trains for fewer steps. Increase --time" in done.stderr
    assert load_run("runs/cv").report is not None


def test_the_time_is_for_all_runs_on_all_cores():
    deadline = Deadline(0.0, 100.0)
    alone = share_time(deadline, 5, most=1)
    assert alone.runs == pytest.approx(1.15 * 6.25)  # the last run has more images
    assert share_time(deadline, 5, most=2).seconds == pytest.approx(100 / (1.15 * 4.25))
    assert share_time(deadline, 5, most=4).seconds == pytest.approx(100 / (1.15 * 3.25))
