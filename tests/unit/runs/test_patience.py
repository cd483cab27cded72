"""A training that ends early, as its recipe's patience asks for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lamina import Epoch, load_run, start_run
from lamina.errors import RecipeError
from lamina.training.events import EarlyEnd, Resumed
from support.runs import DATA, NET, RECIPE, WITH_VAL, digests, train

PATIENT = dataclasses.replace(RECIPE, epochs=60, lr=0.01, patience=2)


@pytest.mark.parametrize("stop", [None, 1, 2])
def test_patience_ends_a_training_for_good(stop, tmp_path):
    run = start_run(WITH_VAL, NET, PATIENT, runs_dir=tmp_path)
    for event in run.iter_train():
        if isinstance(event, Epoch) and event.epoch == stop:
            break
    if stop:
        for _ in load_run(run.path).iter_train(data=WITH_VAL):
            pass
    rows = run.folder.read_epochs()
    scores = [row["val_accuracy"] for row in rows]
    best = scores.index(max(scores))
    assert len(rows) == best + 1 + PATIENT.patience < PATIENT.epochs
    longer = start_run(
        WITH_VAL, NET, dataclasses.replace(PATIENT, patience=None), runs_dir=tmp_path
    )
    for event in longer.iter_train():
        if isinstance(event, Epoch) and event.epoch == len(rows):
            break
    assert digests(run) == digests(longer)  # the last weights, not the best

    reason = f"val accuracy has not improved since epoch {best + 1} (patience 2)"
    events = list(load_run(run.path).iter_train(data=WITH_VAL))
    assert events[1:2] == [EarlyEnd(len(rows), reason)]
    assert run.end == reason
    assert [type(events[0]), events[2].split, len(events)] == [Resumed, "test", 3]
    assert digests(run) == digests(longer)
    (run.path / "report.json").unlink()
    assert "no score" in repr(run)


def test_patience_counts_evaluations(tmp_path):
    """With as many images in val as in train, val is evaluated every few epochs."""
    data = dataclasses.replace(DATA, val=dataclasses.replace(DATA.test, split="val"))
    run = start_run(data, NET, PATIENT, runs_dir=tmp_path)
    train(run)
    rows = run.folder.read_epochs()
    scores = [row["val_accuracy"] for row in rows if row.get("val_accuracy") is not None]
    assert len(rows) > 1.5 * len(scores)
    assert len(scores) - scores.index(max(scores)) - 1 == PATIENT.patience


def test_an_error_that_falls_is_an_improvement(tmp_path):
    targets = np.random.default_rng(1).normal(size=(12, 1)).astype(np.float32)
    splits = {
        split: dataclasses.replace(
            DATA.train, targets=targets, target_names=("weight",), split=split
        )
        for split in ("train", "val", "test")
    }
    data = dataclasses.replace(DATA, **(splits | {"val": splits["val"].take(range(6))}))
    run = start_run(data, NET, dataclasses.replace(PATIENT, epochs=12), runs_dir=tmp_path)
    train(run)  # on the same images as in val
    errors = [row["val_mean_absolute_error"] for row in run.folder.read_epochs()]
    assert len(errors) > 4
    assert errors[-1] < errors[0]


def test_patience_without_val_is_rejected(tmp_path):
    with pytest.raises(RecipeError) as raised:
        start_run(DATA, NET, PATIENT, runs_dir=tmp_path)
    assert str(raised.value) == (
        "patience is 2, but pets has no val split to measure improvement on. "
        "Draw one with --val 0.1 (in Python, Preparation(val_fraction=0.1)), or leave out patience."
    )
    assert list(tmp_path.iterdir()) == []
