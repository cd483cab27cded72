"""A run starts from another run's weights: same net, same or other classes, resumed exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from torch import nn

import lamina
from lamina import Parts, Recipe, load_run, start_run
from lamina.data import Dataset, Images
from lamina.errors import DataError, LaminaWarning, RecipeError, RunError
from lamina.runs.run import make_training
from lamina.training.checkpoint import digest_tensors
from lamina.training.events import Epoch
from lamina.training.prediction import predict_logits
from support.runs import DATA, NET, RECIPE, change_record
from support.trainings import same


def color_squares(names: tuple[str, ...], count: int, seed: int = 0, side_px: int = 6) -> Dataset:
    """Squares whose red, green or blue channel is bright, one class for each name."""
    splits = {}
    for split, number in (("train", count), ("test", count // 2)):
        random = np.random.default_rng([seed, len(split)])
        targets = np.arange(number) % len(names)
        pixels = random.integers(0, 120, (number, side_px, side_px, 3), dtype=np.uint8)
        for place, name in enumerate(("red", "green", "blue")):
            rows = [row for row in range(number) if names[targets[row]] == name]
            pixels[rows, ..., place] += 120
        splits[split] = Images.from_arrays(pixels, targets, names, split=split)
    return Dataset.from_images(**splits)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    data, recipe = (
        color_squares(("green", "red"), 80),
        Recipe(epochs=20, batch_size=8, lr=0.05, optimizer="adam"),
    )
    run = start_run(data, NET, recipe, runs_dir=tmp_path_factory.mktemp("runs"), name="before")
    run.train(progress=False)
    return run


def test_the_first_step_starts_from_the_old_predictions(before, tmp_path):
    data = color_squares(("green", "red"), 40, seed=1)
    run = start_run(data=data, start_from=before, runs_dir=tmp_path)
    record = load_run(run.path).record
    assert record.recipe == dataclasses.replace(
        before.record.recipe, initial_fraction=0.5, lr=0.005
    )
    assert (record.mean, record.std) == (before.record.mean, before.record.std)
    assert record.started_from.kept == ("green", "red")
    assert record.started_from.new == ()
    training = make_training(run, data)
    logits = [
        predict_logits(model, data.test.pixels) for model in (before.load_model(), training.model)
    ]
    assert np.array_equal(*logits)


def test_outputs_keep_their_weights_in_another_order(before, tmp_path):
    data = color_squares(("blue", "red", "green"), 60, seed=1)
    run = start_run(data=data, start_from=before.path, runs_dir=tmp_path)
    record = run.record
    assert (record.started_from.kept, record.started_from.new) == (("red", "green"), ("blue",))
    model = make_training(run, data).model
    old, new = (predict_logits(one, data.test.pixels) for one in (before.load_model(), model))
    assert np.array_equal(new[:, [2, 1]], old)  # green, red
    assert run.train(progress=False).score.value > 0.9


def test_it_resumes_to_the_bit_and_can_be_reproduced(before, tmp_path):
    data = color_squares(("blue", "red", "green"), 60, seed=1)
    runs = [
        start_run(data=data, start_from=before, runs_dir=tmp_path, name=name)
        for name in ("whole", "halves")
    ]
    runs[0].train(progress=False)
    for event in runs[1].iter_train():
        if isinstance(event, Epoch) and event.epoch == 3:
            break
    load_run(runs[1].path).train(data=data, progress=False)
    assert same(*(run.load_model().state_dict() for run in runs))
    again = make_training(runs[0], data)
    next(event for event in again if isinstance(event, Epoch))
    assert digest_tensors(again.model.state_dict()) == runs[0].folder.read_epochs()[0]["weights"]


def test_data_by_its_path_is_read_as_that_of_the_run(before, tmp_path):
    for name in ("green", "red"):
        for place in range(20):
            pixels = np.random.default_rng([place, len(name)]).integers(
                0, 256, (12, 18, 3), dtype=np.uint8
            )
            file = tmp_path / "more" / name / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    preparation = dataclasses.replace(before.record.data.preparation, resize="pad")
    before = change_record(
        before, data=dataclasses.replace(before.record.data, preparation=preparation)
    )
    runs = [start_run(data=tmp_path / "more", start_from=before, runs_dir=tmp_path / "one")]
    runs += [
        lamina.train(
            str(tmp_path / "more"), start_from=before, runs_dir=tmp_path / "two", progress=False
        )
    ]
    for run in runs:
        assert run.record.in_shape == (3, 6, 6)
        assert run.record.data.preparation.resize == "pad"
        assert run.record.data.preparation.size_px == 6


@pytest.mark.parametrize(("field", "value"), [("normalization", "channel"), ("head", "fitted")])
def test_settings_that_belong_to_the_weights_are_refused(before, tmp_path, field, value):
    data, recipe = (
        color_squares(("green", "red"), 40),
        dataclasses.replace(before.record.recipe, **{field: value}),
    )
    with pytest.raises(
        RecipeError,
        match=rf"{field} is '{value}', but .*before was trained with '\w+', which cannot change",
    ):
        start_run(data=data, recipe=recipe, start_from=before, runs_dir=tmp_path)


def test_images_are_resized_to_the_size_of_the_run(before, tmp_path):
    run = start_run(
        data=color_squares(("green", "red"), 40, side_px=12), start_from=before, runs_dir=tmp_path
    )
    assert run.record.in_shape == (3, 6, 6)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            Dataset.from_images(
                Images.from_arrays(np.zeros((4, 6, 6, 3), np.uint8), np.arange(4) > 1)
            ),
            DataError,
            "was trained on single-label targets, but arrays has binary targets",
        ),
        (
            Dataset.from_images(
                Images.from_arrays(np.arange(144, dtype=np.uint8).reshape(4, 6, 6), [0, 1, 0, 1])
            ),
            DataError,
            "was trained on images of 3×6×6, but the images of arrays have 1×6×6",
        ),
    ],
)
def test_other_kinds_and_shapes_are_refused(before, data, error, message, tmp_path):
    with pytest.raises(error, match=message):
        start_run(data=data, start_from=before, runs_dir=tmp_path)


def test_numbers_have_another_scale_and_are_refused(tmp_path):
    pixels = np.arange(8 * 108, dtype=np.uint8).reshape(8, 6, 6, 3)
    data = Dataset.from_images(
        Images.from_arrays(pixels, np.linspace(0.1, 0.9, 8, dtype=np.float32))
    )
    start_run(data, NET, Recipe(epochs=1), runs_dir=tmp_path, name="numbers").train(progress=False)
    with pytest.raises(
        DataError, match="predicts numbers, whose scale depends on the training images"
    ):
        start_run(data=data, start_from=tmp_path / "numbers", runs_dir=tmp_path)


def test_a_run_without_weights_cannot_be_started_from(tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        start_run(data=DATA, start_from=run, runs_dir=tmp_path)


def test_another_net_is_refused(before, tmp_path):
    with pytest.raises(
        RunError, match=r"start_from trains the net of .*before, net\. Leave out net"
    ):
        start_run(color_squares(("green", "red"), 40), "mlp", start_from=before, runs_dir=tmp_path)


def build_own(outputs: int, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(108, width), nn.ReLU(), nn.Linear(width, outputs))


def test_a_module_of_ones_own_is_a_starting_point(tmp_path, monkeypatch):
    data = color_squares(("green", "red"), 40)
    run = start_run(
        data, build_own(2), RECIPE, runs_dir=tmp_path, name="own", parts=Parts(loss=double_loss)
    )
    run.train(progress=False)
    loaded = load_run(run.path, module=build_own(2))
    for name, arguments in (
        ("loaded", {"start_from": loaded}),
        ("given", {"net": build_own(2), "start_from": "own"}),
    ):
        parts = Parts(loss=double_loss)
        again = start_run(data=data, parts=parts, runs_dir=tmp_path, name=name, **arguments)
        model = make_training(again, data).model
        logits = [predict_logits(one, data.test.pixels) for one in (run_model(run), model)]
        assert np.array_equal(*logits)
        assert again.train(progress=False) is not None
    more = color_squares(("blue", "red", "green"), 60, seed=1)
    with pytest.warns(LaminaWarning, match="was trained with your own loss, but this run is"):
        wider = start_run(more, build_own(3), start_from=run.path, runs_dir=tmp_path, name="wider")
    assert wider.record.started_from.new == ("blue",)
    assert lamina.train(more, net=build_own(3), start_from=run, runs_dir=tmp_path, progress=False)
    for module, message in (
        (build_own(2, width=5), r"body\.1\.bias has shape"),
        (nn.Sequential(build_own(2)), r"body\.0\.1\.bias has shape none"),
    ):
        with pytest.raises(RunError, match=f"does not fit the weights of .*{message}"):
            start_run(data, module, start_from=run, runs_dir=tmp_path)


def double_loss(logits, targets):
    return 2 * nn.functional.cross_entropy(logits, targets)


def run_model(run):
    return load_run(run.path, module=build_own(2)).load_model()


def test_the_data_is_by_default_that_of_the_run(shared_cache, tmp_path):
    run = start_run("shapes", "mlp", Recipe(epochs=1), runs_dir=tmp_path, name="shapes")
    run.train(progress=False)
    again = start_run(start_from="shapes", runs_dir=tmp_path)
    assert again.record.data == run.record.data


def test_the_name_of_a_recipe_cannot_be_used_with_a_run(before, tmp_path):
    with pytest.raises(RecipeError, match="start_from uses the recipe of the run"):
        start_run(start_from=before.path, recipe="best", runs_dir=tmp_path)
