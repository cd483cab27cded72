"""Runs resume where they stopped, from their files."""

from __future__ import annotations

import dataclasses

import pytest

from lamina.errors import RunError
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.runs.run import Run, find_dataset, make_training, resume_training
from lamina.training.loop import Training
from support.runs import DATA, RECIPE, change_record, refuses, start
from support.trainings import follow, same, weights


def resume(run: Run) -> Training:
    return resume_training(run, DATA)


def test_a_run_that_was_never_saved_begins_at_the_start(tmp_path):
    run, straight = start(tmp_path)
    follow(straight)
    resumed = resume(run)
    assert resumed.steps_done == 0
    follow(resumed)
    assert same(weights(resumed), weights(straight))


def test_a_training_resumes_in_the_recorded_precision(tmp_path, monkeypatch):
    run, _ = start(tmp_path, dataclasses.replace(RECIPE, precision="auto"))
    for value in ("fp32", "bf16"):
        recorded = dataclasses.replace(run.record.precision, value=value, reason="recorded")
        assert resume(change_record(run, precision=recorded)).precision == recorded


def test_other_data_is_rejected(tmp_path):
    run, _ = start(tmp_path)
    with refuses(
        f"pets has changed since {run.path} was trained (fingerprint def456, was abc123). "
        "Restore the images, train a new run, or evaluate the model on other images: "
        "evaluate(run.load_model(), images)."
    ):
        find_dataset(run, dataclasses.replace(DATA, fingerprint="def456"))


def test_the_checkpoint_of_another_net_is_rejected_by_its_file(tmp_path):
    run, _ = start(tmp_path)
    _, other = start(tmp_path, net=Net(Flatten(), Linear(5), ReLU(), Output()))
    run.folder.save_checkpoint(other.checkpoint())
    with pytest.raises(RunError) as rejected:
        resume(run)
    assert str(rejected.value).startswith(
        f"{run.path}/state.safetensors: the checkpoint does not fit the training: "
    )
    assert "size mismatch for body.1.weight" in str(rejected.value)
    assert str(rejected.value).endswith(
        "[3, 4]). Restore it from a copy, or delete it and history.jsonl and start over with lamina"
        " resume."
    )


def test_a_training_made_again_gives_the_same_weights(tmp_path):
    run, training = start(tmp_path)
    follow(training)
    run.folder.save_checkpoint(training.checkpoint())
    again = make_training(run, DATA)
    assert again.steps_done == 0
    follow(again)
    assert same(weights(again), weights(training))


def test_a_history_without_its_checkpoint_is_rejected(tmp_path):
    run, training = start(tmp_path)
    run.folder.save_model(training.model)
    run.folder.append_row({"event": "epoch", "epoch": 1})
    run.folder.append_row({"event": "epoch", "epoch": 2})
    with refuses(
        f"{run.path} has 2 epochs in its history, but no state.safetensors to resume from. "
        "Restore that file from a copy, or delete history.jsonl and start over with lamina resume."
    ):
        resume(run)
    (run.path / "history.jsonl").unlink()
    assert [epoch.epoch for epoch in follow(resume(run))] == [1, 2]
