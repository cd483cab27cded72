"""A training that meets a full disk, or numbers that go wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from lamina.cli import main
from support.images import write_images
from support.runs import digests, full_disk, plan_epochs
from support.trained_runs import FLAGS, NET, copy_trained


def read_state(run: Path) -> bytes:
    return (run / "state.safetensors").read_bytes()


def test_a_full_disk_ends_the_training_and_the_checkpoint_stays(
    workplace, image_set, capsys, monkeypatch
):
    straight = copy_trained(image_set, "straight", "--epochs", "6")
    run = copy_trained(image_set, "run", "--epochs", "3")
    plan_epochs(run, 6)
    whole = read_state(run), (run / "model.safetensors").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr("lamina.runs.course.SAVE_SECONDS", 0.0)
    with full_disk(8000):
        assert main(["resume", "runs/run"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "lamina: Cannot write to runs/run: File too large. The last checkpoint is intact. Free"
        " disk space, then run lamina resume runs/run"
    )
    assert (read_state(run), (run / "model.safetensors").read_bytes()) == whole
    assert not list(run.glob(".*.????????"))
    assert main(["resume", "runs/run"]) == 0
    assert digests(run) == digests(straight)
    assert read_state(run)[-100:] == read_state(straight)[-100:]


def test_a_history_that_cannot_grow_holds_the_checkpoint_back(workplace, image_set, capsys):
    straight = copy_trained(image_set, "straight", "--epochs", "6")
    run = copy_trained(image_set, "run", "--epochs", "3")
    plan_epochs(run, 6)
    history, state = (run / "history.jsonl").read_bytes(), read_state(run)
    with full_disk(len(history) + 100):
        assert main(["resume", "runs/run"]) == 2
    assert (run / "history.jsonl").read_bytes().startswith(history)
    assert read_state(run) == state
    assert main(["resume", "runs/run"]) == 0
    assert digests(run) == digests(straight)


def test_numbers_that_go_wrong_end_the_training(workplace, image_set, capsys):
    wild = ["--optimizer", "sgd", "--lr", "1e30", "--epochs", "2"]
    assert main(["train", NET, "--data", str(image_set), "--name", "wild", *FLAGS, *wild]) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith(
        "lamina: The loss became NaN at step 2 of epoch 1. The first values that are not finite:"
        " the activations of layer "
    )
    assert printed.endswith(
        "Try an lr below 1e+30 or gradient_clip 1. Train a new run, for"
        " example with --lr 5e+29 (in Python, Recipe(lr=5e+29)). The last checkpoint,"
        " runs/wild/state.safetensors, is intact."
    )


@pytest.mark.parametrize("splits", [("train",), ("train", "val", "test")])
def test_weights_that_overflow_are_never_written(splits, workplace, tmp_path, capsys):
    for split in splits:
        write_images(tmp_path / "mine" / split, 8)
    flags = ["--data", str(tmp_path / "mine"), "--name", "run", "--precision", "fp32"]
    assert main(["train", NET, *flags, "--lr", "3e38", "--epochs", "3"]) == 2
    run = Path("runs/run")
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.endswith("The last checkpoint, runs/run/state.safetensors, is intact.")
    for file in run.glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())
    assert (run / "state.safetensors").exists()
