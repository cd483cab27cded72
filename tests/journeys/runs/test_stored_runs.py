"""Runs that an earlier version wrote are loaded, evaluated, resumed and reported."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import load_data, load_run
from lamina.data import Preparation
from lamina.training.prediction import predict_logits
from support.commands import run_lamina

pytestmark = pytest.mark.usefixtures("all_shapes")  # which they were trained on

# Processors and versions of torch round differently, so some images near a boundary may change.
TOLERANCE = 0.01


def test_a_stored_run_is_evaluated_as_when_it_was_trained(stored_runs):
    run = load_run(stored_runs["finished"])
    stored = run.report
    assert run.is_finished
    assert stored.split == "test"
    evaluated = run.evaluate()
    assert evaluated.images == stored.images
    assert evaluated.score.value == pytest.approx(stored.score.value, abs=TOLERANCE)
    assert evaluated.loss == pytest.approx(stored.loss, rel=TOLERANCE)


def test_the_model_of_a_stored_run_gives_its_stored_logits(stored_runs):
    run = load_run(stored_runs["finished"])
    with np.load(stored_runs["finished"] / "logits.npz") as outputs:
        expected = outputs["test_logits"]
    images = load_data("shapes", Preparation(size_px=16, val_fraction=0.1)).test
    logits = predict_logits(run.load_model(), images.pixels)
    np.testing.assert_allclose(logits, expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*may differ from an uninterrupted run")
def test_a_stored_run_that_was_stopped_is_resumed_to_its_end(stored_runs):
    run = load_run(stored_runs["unfinished"])
    assert not run.is_finished
    report = run.train(progress=False)
    finished = load_run(stored_runs["finished"]).report
    assert load_run(run.path).is_finished
    assert len(load_run(run.path).history) == 3
    assert report.metrics["accuracy"] == pytest.approx(
        finished.metrics["accuracy"], abs=5 * TOLERANCE
    )


def test_a_stored_run_is_reported_and_listed(stored_runs, workplace):
    done = run_lamina("report", stored_runs["finished"])
    assert done.returncode == 0, done.stderr
    assert (stored_runs["finished"] / "report.html").stat().st_size > 10_000
    listed = run_lamina("runs", "--runs-dir", stored_runs["finished"].parent)
    assert "damaged" not in listed.stdout + listed.stderr
    assert "1/3" in listed.stdout
