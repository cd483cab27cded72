"""A run continues from a checkpoint of another: exactly, or with the changes that are allowed."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from lamina import Epoch, Parts, Recipe, load_run, start_run, train
from lamina.cli import main
from lamina.data import Dataset, Images
from lamina.errors import LaminaError, RecipeError, RunError
from lamina.nets import BatchNorm, Dropout, Flatten, Linear, Net, Output, ReLU
from lamina.runs.continuing import CHANGEABLE, list_checkpoints
from lamina.runs.kept_checkpoints import keep_checkpoint
from lamina.runs.overview import describe_start
from lamina.runs.run import Run
from lamina.training.prediction import predict_logits
from support.runs import DATA, WITH_VAL, begin_run, digests, full_disk

NET = Net(Flatten(), Linear(8), BatchNorm(), ReLU(), Dropout(0.2), Output())
RECIPE = Recipe(epochs=4, batch_size=4, lr=0.01, optimizer="sgd", seed=7)
QUESTION_RECIPE = dataclasses.replace(RECIPE, batch_size=15)
CHANGES = {
    "epochs": 6,
    "batch_size": 6,
    "optimizer": "adam",
    "lr": 0.05,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "label_smoothing": 0.2,
    "class_weights": True,
    "dropout": 0.4,
    "flip": "random",
    "translate_px": 2,
    "cutout_px": 3,
    "crop_from_fraction": 0.5,
    "gradient_clip": 0.01,
    "patience": 1,
    "metric": "f1",
    "aim": "recall=0.8",
    "device": "cpu",
}
AFTERWARDS = ("metric", "aim", "patience", "device")
"""Fields that change no weights of an epoch."""


def begin(tmp_path, recipe=RECIPE, name="first", data=DATA):
    run = begin_run(NET, data, recipe, net_name="tiny", name=name, runs_dir=tmp_path)
    return dataclasses.replace(run, dataset=data)


def train_until(run, epoch):
    """Train up to an epoch, and keep the checkpoint that was saved there; returns its file."""
    events = run.iter_train(save_every_seconds=0)
    for event in events:
        if isinstance(event, Epoch) and event.epoch == epoch:
            break
    events.close()
    keep_checkpoint(run.path)
    (kept,) = (run.path / "checkpoints").iterdir()
    return kept


def continue_from(run, epoch, name="next", recipe=None, **more):
    return start_run(
        data=more.pop("data", run.dataset),
        recipe=recipe,
        start_from=f"{run.path}@{epoch}",
        name=name,
        runs_dir=run.path.parent,
        **more,
    )


def question_data():
    """Images of yes or no, unevenly divided."""
    splits = {}
    for place, split in enumerate(("train", "val", "test")):
        pixels = np.random.default_rng(place).integers(0, 256, (90, 6, 6, 3), dtype=np.uint8)
        splits[split] = Images.from_arrays(pixels, np.arange(90) % 3 == 0, split=split)
    return Dataset.from_images(**splits)


# With trapezoid, epoch 2 ends one step before the learning rate begins to fall.
@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": "muon", "weight_decay": 0.1},
        {"optimizer": "adam", "label_smoothing": 0.1},
        {"schedule": "trapezoid"},
        {"schedule": "one-cycle", "normalization": "channel", "flip": "alternating"},
    ],
)
def test_with_the_same_recipe_it_reaches_the_same_weights(tmp_path, more):
    recipe = dataclasses.replace(RECIPE, **more)
    whole = begin(tmp_path, recipe, "whole")
    whole.train(progress=False)
    run = begin(tmp_path, recipe)
    train_until(run, 2)
    run.train(progress=False)
    again = continue_from(run, 2)
    assert digests(again) == digests(whole)[:2]
    again.train(progress=False)
    assert digests(again) == digests(whole)
    record = load_run(again.path).record
    assert (record.started_from.run, record.started_from.epoch) == (str(run.path.resolve()), 2)
    assert record.recipe == recipe and record.precision == run.record.precision
    logits = predict_logits(load_run(again.path).load_model(), DATA.test.pixels)
    np.testing.assert_allclose(logits, again.outputs["test"].logits, atol=1e-5)


def test_a_run_started_from_weights_continues_twice(tmp_path):
    first = begin(tmp_path, dataclasses.replace(RECIPE, normalization="channel"))
    first.train(progress=False)
    start = {"data": DATA, "start_from": first, "runs_dir": tmp_path}
    whole, run = (start_run(**start, name=name) for name in ("whole", "run"))
    assert run.record.recipe.initial_fraction == 0.5
    whole.train(progress=False)
    train_until(run, 2)
    again = continue_from(run, 2)
    again.train(progress=False)
    assert digests(again) == digests(whole)
    longer = dataclasses.replace(run.record.recipe, epochs=5)
    twice = continue_from(again, 4, "twice", longer)
    twice.train(progress=False)
    assert digests(twice)[:4] == digests(whole) and len(digests(twice)) == 5
    assert (twice.record.mean, twice.record.std) == (first.record.mean, first.record.std)


def test_every_field_that_may_change_is_tried():
    assert CHANGES.keys() == set(CHANGEABLE) <= {field.name for field in fields(Recipe)}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of four epochs, of which the second has a checkpoint."""
    run = begin(tmp_path_factory.mktemp("runs"), QUESTION_RECIPE, data=question_data())
    train_until(run, 2)
    run.train(progress=False)
    return run


@pytest.mark.parametrize("name", CHANGEABLE)
def test_a_field_that_may_change_is_trained_and_recorded(finished_run, tmp_path, name):
    data = finished_run.dataset
    path = shutil.copytree(finished_run.path, tmp_path / "first")
    run = dataclasses.replace(load_run(path), dataset=data)
    recipe = dataclasses.replace(QUESTION_RECIPE, **{name: CHANGES[name]})
    if name == "patience":
        recipe = dataclasses.replace(recipe, epochs=60)
    changed = continue_from(run, 2, recipe=recipe)
    changed.train(progress=False)
    record = load_run(changed.path).record
    assert record.recipe == recipe
    rows = changed.folder.history.epochs()
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert digests(changed)[:2] == digests(run)[:2]
    is_same = digests(changed)[2] == digests(run)[2]
    assert is_same == (name in ("epochs", *AFTERWARDS))
    model = load_run(changed.path).load_model()
    logits = predict_logits(model, data.test.pixels)
    np.testing.assert_allclose(logits, changed.outputs["test"].logits, atol=1e-5)
    if name == "patience":
        assert changed.early_end is not None
    else:
        assert len(rows) == recipe.epochs
    match name:
        case "metric":
            assert changed.report.score.name == record.task.metric == "f1"
        case "class_weights":
            assert record.task.metric == "balanced_accuracy"
        case "aim":
            assert changed.calibration.aim == CHANGES[name]
        case "lr":
            assert rows[2]["lr"] == 0.05
        case "schedule":
            assert [row["lr"] for row in rows] != [row["lr"] for row in run.folder.history.epochs()]
        case "dropout":
            assert "Dropout(p=0.4)" in repr(record.net)


FIXED = [field.name for field in fields(Recipe) if field.name not in CHANGEABLE]
OTHER_VALUES = {
    "warmup_fraction": 0.5,
    "start_size_fraction": 0.5,
    "normalization": "channel",
    "lanes": 2,
    "precision": "bf16",
    "head": "fitted",
    "initial_fraction": 0.5,
    "seed": 8,
}


def test_each_field_of_a_recipe_may_change_or_not():
    assert OTHER_VALUES.keys() == set(FIXED)


@pytest.mark.parametrize("name", FIXED)
def test_every_other_field_stays(finished_run, name):
    recipe = dataclasses.replace(QUESTION_RECIPE, **{name: OTHER_VALUES[name]})
    with pytest.raises(
        RecipeError, match=rf"^{name} is .* which cannot change in further training\. Leave out"
    ):
        continue_from(finished_run, 2, recipe=recipe)
    assert list(finished_run.path.parent.iterdir()) == [finished_run.path]


def test_the_end_can_move_until_the_learning_rate_falls(tmp_path):
    recipe = dataclasses.replace(RECIPE, schedule="trapezoid", epochs=5)
    longer = dataclasses.replace(recipe, epochs=9)
    run, whole = begin(tmp_path, recipe), begin(tmp_path, longer, "whole")
    for one in (run, whole):
        one.train(progress=False)
    before_fall, last = sorted(list_checkpoints(run.path))
    with pytest.raises(
        RecipeError, match=r"epochs cannot change after epoch 5 .* after these epochs: 3, 5"
    ):
        continue_from(run, last, recipe=longer)
    again = continue_from(run, before_fall, recipe=longer)
    events = again.iter_train(save_every_seconds=1000)  # stopped before anything is saved
    next(events)
    events.close()
    again = dataclasses.replace(load_run(again.path), dataset=DATA)
    again.train(progress=False)
    assert digests(again) == digests(whole)
    assert load_run(again.path).is_finished


def test_a_late_end_stays_unless_it_is_moved(tmp_path):
    recipe = dataclasses.replace(RECIPE, schedule="trapezoid", epochs=60)
    run = begin(tmp_path, recipe)
    finish = threading.Event()
    for event in run.iter_train(save_every_seconds=0, finish=finish):
        if isinstance(event, Epoch):
            keep_checkpoint(run.path)
            if event.epoch == 15:
                finish.set()
    run = dataclasses.replace(load_run(run.path), dataset=DATA)
    ended = run.record.epochs
    assert 16 < ended < 60
    own = dataclasses.replace(recipe, epochs=ended)
    same = continue_from(run, 15, "same")
    same.train(progress=False)
    assert digests(same) == digests(run)
    assert load_run(same.path).is_finished
    slower = continue_from(run, 16, "slower", dataclasses.replace(own, lr=1e-5))
    slower.train(progress=False)
    assert len(digests(slower)) == ended and load_run(slower.path).is_finished
    shorter = continue_from(run, 15, "shorter", dataclasses.replace(recipe, epochs=17))
    shorter.train(progress=False)
    rows = shorter.folder.history.epochs()
    assert len(rows) == 17 and rows[-1]["lr"] < rows[14]["lr"]
    assert load_run(shorter.path).is_finished
    whole = continue_from(run, 15, "whole", recipe)
    assert whole.record.epochs == 60
    with pytest.raises(RecipeError, match="epochs cannot change after epoch 16"):
        continue_from(run, 16, "no", recipe)
    with pytest.raises(RecipeError, match=f"ended after epoch .* with epochs {ended}"):
        continue_from(run, max(list_checkpoints(run.path)), "no")


def test_patience_ends_a_run_and_not_its_continuation(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=60, patience=2)
    run = begin(tmp_path, recipe, data=WITH_VAL)
    run.train(progress=False)
    done = len(digests(run))
    assert run.early_end is not None and done < 60
    with pytest.raises(RecipeError, match=rf"ended after epoch {done}, .* patience 2\. Use more"):
        continue_from(run, done)
    patient = dataclasses.replace(recipe, epochs=done + 3, patience=None)
    longer = continue_from(run, done, recipe=patient)
    longer.train(progress=False)
    assert len(digests(longer)) == done + 3 and longer.early_end is None


def test_another_rate_after_a_rewind_keeps_the_history(tmp_path):
    run = begin(tmp_path, dataclasses.replace(RECIPE, epochs=6))
    train_until(run, 3)
    checkpoint = run.folder.read_checkpoint()
    standing = dataclasses.replace(checkpoint.standing, rewinds=1)
    run.folder.save_checkpoint(dataclasses.replace(checkpoint, standing=standing))
    row = {"event": "rewind", "rewind": 1, "epochs_done": 3, "steps_done": 9, "lr": 0.005}
    run.folder.history.append(row | {"reason": "NaN"})
    run.train(progress=False)
    keep_checkpoint(run.path)
    assert [row["lr"] for row in run.folder.history.epochs()] == [0.01] * 3 + [0.005] * 3
    for name, recipe, rates in (
        ("lr", dataclasses.replace(RECIPE, epochs=8, lr=0.002), [0.002] * 2),
        ("epochs", dataclasses.replace(RECIPE, epochs=8), [0.005] * 2),
    ):
        longer = continue_from(run, 6, name, recipe)
        longer.train(progress=False)
        rows = longer.folder.history.epochs()
        assert [row["epoch"] for row in rows] == list(range(1, 9))
        assert [row["lr"] for row in rows[6:]] == rates
        load_run(longer.path).train(data=DATA, progress=False)
        assert len(longer.folder.history.epochs()) == 8


@pytest.mark.parametrize("batch_size", [1, 5, 11])
def test_the_epochs_of_checkpoints_are_counted_in_steps(tmp_path, batch_size):
    net = Net(Flatten(), Linear(8), ReLU(), Output())
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size)
    run = begin_run(net, DATA, recipe, net_name="tiny", runs_dir=tmp_path)
    run = dataclasses.replace(run, dataset=DATA)
    train_until(run, 2)
    assert list(list_checkpoints(run.path)) == [2]
    longer = continue_from(run, 2)
    longer.train(progress=False)
    assert len(digests(longer)) == 4


def test_a_checkpoint_within_an_epoch_keeps_the_batches(tmp_path):
    whole, run = begin(tmp_path, name="whole"), begin(tmp_path)
    whole.train(progress=False)
    events = run.iter_train(save_every_seconds=0)
    for event in events:
        if getattr(event, "step", 0) == 2:
            break
    events.close()
    assert list(list_checkpoints(run.path)) == [0.667]
    again = continue_from(run, 0.667)
    again.train(progress=False)
    assert digests(again) == digests(whole)
    with pytest.raises(RecipeError, match="batch_size can change only after a complete epoch"):
        continue_from(run, 0.667, "other", dataclasses.replace(RECIPE, batch_size=6))


def test_what_cannot_be_continued_is_refused_with_the_reason(tmp_path, monkeypatch):
    run = begin(tmp_path)
    with pytest.raises(RunError, match=r"after epoch 2\. It has none yet"):
        continue_from(run, 2)
    kept = train_until(run, 2)
    few = dataclasses.replace(RECIPE, epochs=2)
    with pytest.raises(RecipeError, match="ended after epoch 2, with epochs 2"):
        continue_from(run, 2, recipe=few)
    with pytest.raises(RunError, match=r"has no checkpoint after epoch 1\. Choose from 2\."):
        continue_from(run, 1)
    with pytest.raises(RunError, match="expected the number of an epoch after @"):
        continue_from(run, "last")
    with pytest.raises(LaminaError, match="already exists"):
        continue_from(run, 2, "first")
    with pytest.raises(RunError, match="pets has changed since"):
        continue_from(run, 2, data=dataclasses.replace(DATA, fingerprint="def456"))
    with pytest.raises(RunError, match=r"start_from trains the net of .*first, tiny"):
        continue_from(run, 2, net="mlp")
    with pytest.raises(RecipeError, match="has no time limit"):
        train(DATA, start_from=f"{run.path}@2", seconds=20, runs_dir=tmp_path, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(
            "lamina.runs.continuing.find_checkpoint", lambda path, _: path / "state.safetensors"
        )
        with pytest.raises(RunError, match="no longer has the checkpoint after epoch 1"):
            continue_from(run, 1)
    for file in (kept, run.folder.checkpoint_file):  # the kept one is a link to it
        file.write_bytes(run.folder.checkpoint_file.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"after epoch 2\. It has none yet"):
        continue_from(run, 2)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    run = begin(tmp_path)
    train_until(run, 2)
    before = sorted(tmp_path.rglob("*"))
    room = run.folder.checkpoint_file.stat().st_size - 100  # all other files fit
    with (
        full_disk(room),
        pytest.raises(RunError, match=r"^Cannot write a run to .*: File too large\. Choose"),
    ):
        continue_from(run, 2)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_start_is_described_and_not_reproduced(tmp_path, capsys):
    run = begin(tmp_path)
    train_until(run, 2)
    run = dataclasses.replace(load_run(run.path), dataset=DATA)
    again = continue_from(run, 2)
    assert main(["reproduce", str(again.path)]) == 2
    assert f"continues from {run.path} after epoch 2" in capsys.readouterr().err
    lines = describe_start(again.record, has_own_statistics=False)
    assert f"start: {run.path} after epoch 2" in lines


def test_a_run_whose_name_contains_the_sign_is_found(tmp_path):
    run = begin(tmp_path, name="a@2")
    train_until(run, 2)
    run.train(progress=False)
    final = start_run(data=DATA, start_from="a@2", runs_dir=tmp_path, name="final")
    assert final.record.started_from.epoch is None
    at_two = start_run(data=DATA, start_from="a@2@2", runs_dir=tmp_path, name="at-two")
    assert at_two.record.started_from.epoch == 2


class Own(nn.Module):
    def __init__(self, outputs=3, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(108, width), nn.Linear(width, outputs))

    def forward(self, images):
        return self.body(images)


def own_optimizer(parameters, recipe):
    return torch.optim.AdamW(parameters, lr=recipe.lr)


def own_loss(logits, targets):
    return 2 * nn.functional.cross_entropy(logits, targets)


def begin_own(tmp_path, name="own"):
    torch.manual_seed(0)
    return start_run(
        DATA,
        Own(),
        RECIPE,
        runs_dir=tmp_path,
        name=name,
        parts=Parts(loss=own_loss, optimizer=own_optimizer),
    )


def test_own_code_continues_exactly(tmp_path):
    whole, run = begin_own(tmp_path, "whole"), begin_own(tmp_path)
    whole.train(progress=False)
    train_until(run, 2)
    parts = {"parts": Parts(loss=own_loss, optimizer=own_optimizer)}
    again = continue_from(run, 2, net=Own(), **parts)
    again.train(progress=False)
    assert digests(again) == digests(whole)
    faster = continue_from(
        run, 2, "faster", dataclasses.replace(RECIPE, lr=0.03), net=Own(), **parts
    )
    faster.train(progress=False)
    assert [row["lr"] for row in faster.folder.history.epochs()] == [0.01, 0.01, 0.03, 0.03]
    before = sorted(tmp_path.iterdir())
    for more, message in (
        (
            {"net": Own()},
            r"Pass them again in Python, as in start_run\(start_from=.*own@2', parts=Parts\(loss=",
        ),
        (parts, "was trained with your own code"),
        ({"net": Own(width=5), **parts}, r"does not fit .*: live\.body\.body\.1\.weight has shape"),
        (
            {"net": Own(), **parts, "recipe": dataclasses.replace(RECIPE, weight_decay=0.1)},
            "weight_decay cannot change, because .* own optimizer",
        ),
    ):
        with pytest.raises(LaminaError, match=message):
            continue_from(run, 2, "no", **more)
    assert sorted(tmp_path.iterdir()) == before


def test_a_dropout_that_the_net_has_taken_over_cannot_be_reset(tmp_path):
    run = begin(tmp_path, recipe=dataclasses.replace(RECIPE, dropout=0.2))
    train_until(run, 2)
    recipe = dataclasses.replace(RECIPE, dropout=None)
    with pytest.raises(RecipeError, match="dropout cannot return"):
        start_run(DATA, recipe=recipe, start_from=f"{run.path}@2", runs_dir=tmp_path)


def test_the_reason_of_the_device_stays(tmp_path):
    run = begin(tmp_path)
    train_until(run, 2)
    longer = start_run(DATA, start_from=f"{run.path}@2", runs_dir=tmp_path)
    assert longer.record.device == run.record.device


@pytest.mark.parametrize("epoch", ["nan", "inf", "-1", "0", "x"])
def test_what_is_no_epoch_is_refused(tmp_path, epoch):
    run = begin(tmp_path)
    with pytest.raises(RunError, match="expected the number of an epoch after @"):
        start_run(start_from=f"{run.path}@{epoch}", runs_dir=tmp_path)


def test_the_name_of_a_recipe_cannot_be_used_with_a_run(tmp_path):
    run = begin(tmp_path)
    with pytest.raises(RecipeError, match="start_from uses the recipe of the run"):
        start_run(start_from=run.path, recipe="best", runs_dir=tmp_path)
