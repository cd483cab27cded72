"""A training that meets a full disk, or numbers that go wrong."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lamina import load_run
from lamina.cli import main
from lamina.training.events import Epoch
from lamina.training.recipe import Recipe
from support.commands import events
from support.images import write_images
from support.runs import DATA, digests, full_disk, start
from support.trained_runs import FLAGS, NET, copy_trained


def plan_epochs(run: Path, epochs: int) -> None:
    """Let a finished run be one that stopped before its last epochs."""
    record = json.loads((run / "run.json").read_text())
    record["recipe"]["epochs"] = epochs
    (run / "run.json").write_text(json.dumps(record))


def read_state(run: Path) -> bytes:
    return (run / "state.safetensors").read_bytes()


def test_a_full_disk_is_a_warning_and_the_checkpoint_stays(workplace, image_set, capsys):
    straight = copy_trained(image_set, "straight", "--epochs", "6")
    run = copy_trained(image_set, "run", "--epochs", "3")
    whole = read_state(run), (run / "model.safetensors").read_bytes()
    plan_epochs(run, 6)
    capsys.readouterr()
    with full_disk(8000):
        assert main(["resume", "runs/run", "--save-every", "0s"]) == 2
    out, err = capsys.readouterr()
    assert "epoch 6/6  train loss" in out
    assert (
        "warning: cannot write to runs/run: File too large. Training continues, and the last"
        " complete checkpoint is kept. Free some disk space.\n" in err
    )
    assert (
        err.splitlines()[-1]
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
    history, state = (run / "history.jsonl").read_bytes(), read_state(run)
    plan_epochs(run, 6)
    with full_disk(len(history) + 100):
        assert main(["resume", "runs/run"]) == 2
    assert (run / "history.jsonl").read_bytes() == history
    assert read_state(run) == state
    assert main(["resume", "runs/run"]) == 0
    assert digests(run) == digests(straight)


@pytest.mark.filterwarnings("ignore:cannot write to .*File too large. Training continues")
def test_what_found_no_room_is_written_with_a_later_epoch(tmp_path, monkeypatch):
    # so that every epoch is worth a checkpoint
    monkeypatch.setattr("lamina.runs.saver.SAVING_FRACTION", 1e9)
    run, _ = start(tmp_path, Recipe(epochs=4, batch_size=4, precision="fp32"))
    steps_per_epoch = 3
    with contextlib.ExitStack() as disk:
        for event in run.iter_train(data=DATA):
            if not isinstance(event, Epoch):
                continue
            disk.close()
            kept = [1, 1, 1, 4][event.epoch - 1]
            assert [row["epoch"] for row in run.folder.history.epochs()] == list(range(1, kept + 1))
            assert run.folder.read_checkpoint().standing.steps_done == kept * steps_per_epoch
            if event.epoch in (1, 2):
                disk.enter_context(full_disk(10))
    assert run.report is not None


def test_numbers_that_go_wrong_end_the_training(workplace, image_set, capsys):
    wild = ["--optimizer", "sgd", "--lr", "1e30", "--epochs", "2"]
    assert main(["train", NET, "--data", str(image_set), "--name", "wild", *FLAGS, *wild]) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith(
        "lamina: The loss became NaN at step 2 of epoch 1. The first values that are not finite:"
        " the activations of layer "
    )
    assert printed.endswith(
        "Try an lr below 1e+30, gradient_clip 1, or BatchNorm() in the net. The last checkpoint is"
        " intact; lamina resume runs/wild --on-nan rewind (in Python,"
        " run.train(rewind_on_nan=True)) continues from it with half the learning rate."
    )
    assert main(["resume", "runs/wild", "--on-nan", "rewind", "--json"]) == 2
    out, err = capsys.readouterr()
    rewinds = [
        json.loads(line) for line in Path("runs/wild/history.jsonl").read_text().splitlines()
    ]
    assert [(row["rewind"], row["lr"]) for row in rewinds] == [(1, 5e29), (2, 2.5e29), (3, 1.25e29)]
    *others, _ = events(out)  # the last one is the error
    assert [event["rewind"] for event in others] == [1, 2, 3]
    assert "Returned to step 0 with half the learning rate, 5e+29 (rewind 1 of at most 3)." in err
    assert err.splitlines()[-1].endswith(
        "Training has already returned to a checkpoint 3 times, so it stops. The last checkpoint is"
        " in runs/wild."
    )


@pytest.mark.parametrize("splits", [("train",), ("train", "val", "test")])
@pytest.mark.parametrize("on_nan", ["stop", "rewind"])
def test_weights_that_overflow_are_never_written(splits, on_nan, workplace, tmp_path, capsys):
    for split in splits:
        write_images(tmp_path / "mine" / split, 8)
    flags = [
        "--data",
        str(tmp_path / "mine"),
        "--name",
        "run",
        "--precision",
        "fp32",
        "--lr",
        "3e38",
        "--epochs",
        "3",
    ]
    assert main(["train", NET, *flags, "--on-nan", on_nan]) == 2
    run = Path("runs/run")
    printed = capsys.readouterr().err.splitlines()[-1]
    if on_nan == "stop":
        assert printed.endswith(
            "lamina resume runs/run --on-nan rewind (in Python, run.train(rewind_on_nan=True))"
            " continues from it with half the learning rate."
        )
    else:
        rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        assert [row["rewind"] for row in rows if "rewind" in row] == [1, 2, 3]
        assert printed.endswith(
            "returned to a checkpoint 3 times, so it stops. The last checkpoint is in runs/run."
        )
    for file in run.glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())
    assert (run / "state.safetensors").exists()


BREAKABLE = """
import torch
from torch import nn

class Breakable(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.Linear(432, 2)

    def forward(self, images):
        logits = self.linear(self.flatten(images))
        # Divides by 0 once the weights are too large.
        return logits / (self.linear.weight.norm() < 5)
"""


def test_a_rewound_training_is_resumed_at_its_lower_rate(workplace, image_set, capsys):
    Path("mine.py").write_text(BREAKABLE)
    flags = [
        "--data",
        str(image_set),
        "--optimizer",
        "sgd",
        "--momentum",
        "0",
        "--batch-size",
        "5",
        "--precision",
        "fp32",
    ]

    def train_at(rate: float, name: str, *more: str) -> int:
        return main(
            ["train", "mine.py", *flags, "--lr", str(rate), "--epochs", "3", "--name", name, *more]
        )

    rate = next(
        rate for rate in (2.0**power for power in range(-3, 9)) if train_at(rate, f"at-{rate}") == 2
    )
    assert train_at(rate, "run", "--on-nan", "rewind") == 0
    run = Path("runs/run")
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    rewinds, epochs = ([row for row in rows if name in row] for name in ("rewind", "train_loss"))
    assert 1 <= len(rewinds) <= 3
    assert [row["lr"] for row in rewinds] == [
        rate / 2**number for number in range(1, len(rewinds) + 1)
    ]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert epochs[-1]["lr"] == rewinds[-1]["lr"]
    words = ["--start-from", "run@3", "--epochs", "4", "--name", "longer"]
    assert main(["train", "mine.py", *words]) == 0
    last = load_run("runs/longer").folder.history.epochs()[-1]
    assert (last["epoch"], last["lr"]) == (4, rewinds[-1]["lr"])
    capsys.readouterr()
    assert main(["reproduce", "runs/run", "--epochs", "3", "--net", "mine.py"]) == 2
    assert " and continued with a lower learning rate. " in capsys.readouterr().err
