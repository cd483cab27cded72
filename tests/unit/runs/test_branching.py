"""Branches of a run: exact with the same recipe, and honest about what cannot be changed."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from lamina import Epoch, Recipe, load_run
from lamina.cli import main
from lamina.errors import LaminaError
from lamina.nets import BatchNorm, Dropout, Flatten, Linear, Net, Output, ReLU
from lamina.runs.branching import branch_run
from lamina.runs.checkpoints import keep_checkpoint, list_checkpoints
from lamina.runs.overview import describe_start
from support.runs import DATA, begin_run, digests, full_disk

NET = Net(Flatten(), Linear(8), BatchNorm(), ReLU(), Dropout(0.2), Output())
RECIPE = Recipe(epochs=4, batch_size=4, lr=0.01, optimizer="adam")


def begin(tmp_path, recipe=RECIPE, name="first"):
    return begin_run(NET, DATA, recipe, net_name="tiny", name=name, device="cpu", runs_dir=tmp_path)


def train_until(run, epoch):
    """Train up to an epoch, and keep the checkpoint that was saved there; returns its file."""
    events = run.iter_train(data=DATA, save_every_seconds=0)
    for event in events:
        if isinstance(event, Epoch) and event.epoch == epoch:
            break
    events.close()
    keep_checkpoint(run.path)
    (kept,) = (run.path / "checkpoints").iterdir()
    return kept


# With trapezoid, epoch 2 ends one step before the learning rate begins to fall.
@pytest.mark.parametrize("more", [{"optimizer": "muon"}, {"schedule": "trapezoid"}])
def test_a_branch_with_the_same_recipe_reaches_the_same_weights(tmp_path, more):
    recipe = dataclasses.replace(RECIPE, **more)
    whole = begin(tmp_path, recipe, "whole")
    whole.train(data=DATA, progress=False)
    run = begin(tmp_path, recipe)
    train_until(run, 2)
    run.train(data=DATA, progress=False)
    assert digests(run) == digests(whole)
    branch = branch_run(dataclasses.replace(run, dataset=DATA), 2, name="branch", runs_dir=tmp_path)
    assert digests(branch) == digests(whole)[:2]
    branch.train(data=DATA, progress=False)
    assert digests(branch) == digests(whole)
    assert load_run(branch.path).record.branched_from.epoch == 2
    assert load_run(branch.path).record.branched_from.run == str(run.path.resolve())


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "sgd", "lr": 0.05},
        {"epochs": 6},
        {"seed": 7, "batch_size": 8},
    ],
)
def test_a_branch_with_another_recipe_starts_from_the_weights_and_differs_afterwards(
    tmp_path, change
):
    run = dataclasses.replace(begin(tmp_path), dataset=DATA)
    train_until(run, 2)
    run.train(data=DATA, progress=False)
    recipe = dataclasses.replace(RECIPE, **change)
    branch = branch_run(run, 2, recipe=recipe, name="branch", runs_dir=tmp_path)
    branch.train(data=DATA, progress=False)
    assert digests(branch)[:2] == digests(run)[:2]
    # the learning rate is constant
    assert (digests(branch)[2] == digests(run)[2]) == ("epochs" in change)
    rows = branch.folder.history.epochs()
    assert [row["epoch"] for row in rows] == list(range(1, recipe.epochs + 1))
    assert rows[2]["lr"] == recipe.lr
    assert branch.record.recipe == recipe


def test_settings_without_weights_may_change_in_the_net_and_others_not(tmp_path):
    run = dataclasses.replace(begin(tmp_path), dataset=DATA)
    train_until(run, 2)
    branch = branch_run(
        run, net=NET.replace(Dropout(0.2), Dropout(0.4)), name="branch", runs_dir=tmp_path
    )
    branch.train(data=DATA, progress=False)
    assert "Dropout(p=0.4)" in repr(load_run(branch.path).record.net)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(
        LaminaError, match=r"The net does not fit the weights of .*: .*shape.* Change only settings"
    ):
        branch_run(run, net=NET.replace(Linear(8), Linear(9)), name="other", runs_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # nothing is left behind


def test_a_branch_is_named_in_its_description_and_not_reproduced_from_the_start(tmp_path, capsys):
    run = dataclasses.replace(begin(tmp_path), dataset=DATA)
    train_until(run, 2)
    branch = branch_run(run, name="branch", runs_dir=tmp_path)
    assert main(["reproduce", str(branch.path)]) == 2
    assert f"continues from {run.path} after epoch 2" in capsys.readouterr().err
    assert f"branch of {run.path} after epoch 2" in describe_start(
        branch.record, has_own_statistics=False
    )


def test_what_cannot_be_branched_is_refused_with_the_reason(tmp_path):
    run = dataclasses.replace(begin(tmp_path), dataset=DATA)
    with pytest.raises(
        LaminaError, match=r"has no checkpoint yet. Train it for at least one epoch"
    ):
        branch_run(run, runs_dir=tmp_path)
    kept = train_until(run, 2)
    with pytest.raises(
        LaminaError,
        match=r"epochs is 2, but the checkpoint is after epoch 2\. Use a number above 2",
    ):
        branch_run(run, 2, recipe=dataclasses.replace(RECIPE, epochs=2), runs_dir=tmp_path)
    with pytest.raises(LaminaError, match=r"has no checkpoint after epoch 1\. Choose from 2\."):
        branch_run(run, 1, runs_dir=tmp_path)
    with pytest.raises(LaminaError, match="already exists"):
        branch_run(run, name="first", runs_dir=tmp_path)
    for file in (kept, run.folder.checkpoint_file):  # the kept one is a link to it
        file.write_bytes(run.folder.checkpoint_file.read_bytes()[:-9])
    with pytest.raises(LaminaError, match=r"has no checkpoint after epoch 2\. It has no others\."):
        branch_run(run, 2, runs_dir=tmp_path)
    with pytest.raises(LaminaError, match="damaged"):
        branch_run(run, runs_dir=tmp_path)


def test_a_checkpoint_that_a_training_has_replaced_meanwhile_is_not_taken_for_the_chosen_one(
    tmp_path, monkeypatch
):
    run = dataclasses.replace(begin(tmp_path), dataset=DATA)
    train_until(run, 2)
    monkeypatch.setattr(
        "lamina.runs.branching.find_checkpoint", lambda run, epoch: run.folder.checkpoint_file
    )
    with pytest.raises(
        LaminaError, match=r"no longer has the checkpoint after epoch 1\. Choose again"
    ):
        branch_run(run, 1, name="branch", runs_dir=tmp_path)


def test_a_branch_on_a_full_disk_leaves_nothing_behind(tmp_path):
    run = dataclasses.replace(begin(tmp_path), dataset=DATA)
    train_until(run, 2)
    before = sorted(tmp_path.rglob("*"))
    room = run.folder.checkpoint_file.stat().st_size - 100  # all other files fit
    with (
        full_disk(room),
        pytest.raises(
            LaminaError, match=r"^Cannot write a run to .*: File too large\. Choose another"
        ),
    ):
        branch_run(run, name="branch", runs_dir=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert digests(branch_run(run, name="branch", runs_dir=tmp_path)) == digests(run)


def test_the_end_cannot_be_moved_once_the_learning_rate_falls(tmp_path):
    recipe = dataclasses.replace(RECIPE, schedule="trapezoid")
    run = dataclasses.replace(begin(tmp_path, recipe), dataset=DATA)
    run.train(data=DATA, progress=False)
    with pytest.raises(
        LaminaError,
        match=r"the learning rate has begun to fall .* Branch from an earlier checkpoint",
    ):
        branch_run(run, recipe=dataclasses.replace(recipe, epochs=9), runs_dir=tmp_path)
    before_fall = min(list_checkpoints(run))
    longer = branch_run(
        run,
        before_fall,
        recipe=dataclasses.replace(recipe, epochs=9),
        name="longer",
        runs_dir=tmp_path,
    )
    longer.train(data=DATA, progress=False)
    assert len(longer.folder.history.epochs()) == 9


def test_a_branch_ends_after_its_own_epochs_if_the_learning_rate_would_have_begun_to_fall(tmp_path):
    recipe = dataclasses.replace(RECIPE, schedule="trapezoid", epochs=60)
    run = dataclasses.replace(begin(tmp_path, recipe), dataset=DATA)
    finish = threading.Event()
    for event in run.iter_train(data=DATA, save_every_seconds=0, finish=finish):
        if isinstance(event, Epoch):
            keep_checkpoint(run.path)
            if event.epoch == 15:
                finish.set()
    run = dataclasses.replace(load_run(run.path), dataset=DATA)
    ended = run.record.epochs
    assert 16 < ended < 60
    shorter = branch_run(
        run, 15, recipe=dataclasses.replace(recipe, epochs=17), name="shorter", runs_dir=tmp_path
    )
    shorter.train(data=DATA, progress=False)
    rows = shorter.folder.history.epochs()
    assert len(rows) == 17 and rows[-1]["lr"] < rows[14]["lr"]
    assert load_run(shorter.path).is_finished
    falling = 16
    slower = branch_run(
        run, falling, recipe=dataclasses.replace(recipe, lr=1e-5), name="slower", runs_dir=tmp_path
    )
    slower.train(data=DATA, progress=False)
    assert len(slower.folder.history.epochs()) == ended and load_run(slower.path).is_finished
    with pytest.raises(
        LaminaError, match=r"over at this checkpoint\. Branch from an earlier checkpoint"
    ):
        branch_run(run, recipe=dataclasses.replace(recipe, lr=1e-5), runs_dir=tmp_path)
