"""A run keeps the logits of its final model for val and test, correctly, and no others."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from lamina import Recipe, load_run, start_run
from lamina.data import Dataset, Images
from lamina.errors import RunError
from lamina.evaluation.outputs import Outputs
from lamina.insight.confusions import measure_losses
from lamina.runs.run import Run
from lamina.training.prediction import predict_logits
from support.runs import DATA, NET, RECIPE, finish_run, images_of

VAL = images_of("val").take(range(7))
DATA_WITH_VAL = dataclasses.replace(DATA, val=VAL)


def train_with_val(folder, dataset: Dataset = DATA_WITH_VAL, recipe: Recipe = RECIPE) -> Run:
    return finish_run(start_run(dataset, NET, recipe, runs_dir=folder))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    # The epochs' own figures are in another number format.
    return train_with_val(
        tmp_path_factory.mktemp("runs"), recipe=dataclasses.replace(RECIPE, precision="bf16")
    )


def test_the_final_models_logits_are_kept_for_val_and_test(run):
    outputs = load_run(run.path).outputs
    assert outputs.keys() == {"val", "test"}
    with torch.no_grad():
        model = run.load_model()
        for images in (VAL, DATA.test):
            expected = model(torch.from_numpy(images.pixels)).numpy()
            one = outputs[images.split]
            assert np.allclose(one.logits, expected, atol=1e-6)
            assert np.array_equal(one.targets, images.targets)
            assert one.names == images.names
    right = (outputs["test"].logits.argmax(axis=1) == DATA.test.targets).mean()
    assert run.report.metrics["accuracy"] == pytest.approx(right)


def test_without_test_the_outputs_are_those_of_the_report(tmp_path):
    run = train_with_val(tmp_path, dataclasses.replace(DATA_WITH_VAL, test=None))
    assert run.outputs.keys() == {"val"}
    assert run.report.split == "val"
    assert run.report.metrics["accuracy"] == pytest.approx(
        (run.outputs["val"].logits.argmax(axis=1) == VAL.targets).mean()
    )


def test_other_weights_outdate_the_outputs(tmp_path):
    run = train_with_val(tmp_path)
    run.folder.save_model(run.load_model())
    assert run.outputs == {}
    assert run.evaluate(data=DATA_WITH_VAL) == dataclasses.replace(run.report)
    assert run.outputs.keys() == {"val", "test"}


def test_predicted_numbers_are_kept_in_the_units_of_their_targets(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    images = Images.from_arrays(pixels, 1000 * pixels.mean((1, 2, 3)))
    run = train_with_val(
        tmp_path, Dataset.from_images(images, test=dataclasses.replace(images, pixels=255 - pixels))
    )
    with np.load(run.path / "logits.npz") as stored:
        numbers, truth = stored["test_predictions"], stored["test_targets"]
    assert truth.dtype == np.float32
    assert np.abs(numbers - truth).mean() == pytest.approx(
        run.report.metrics["mean_absolute_error"]
    )
    outputs = run.outputs["test"]
    assert repr(outputs) == "Outputs(test: predictions (12, 1), targets, names)"
    assert np.allclose(
        outputs.raw_logits(run.task), predict_logits(run.load_model(), 255 - pixels), atol=1e-5
    )
    losses = measure_losses(run.task, outputs.raw_logits(run.task), outputs.targets)
    assert losses.mean() == pytest.approx(run.report.loss)


def test_outputs_that_are_not_the_runs_are_refused(run, tmp_path):
    other = dataclasses.replace(run, path=tmp_path)
    other.folder.save_outputs(
        [Outputs("val", np.zeros((2, 5), np.float32), np.array([0, 1]), ("a", "b"))]
    )
    with pytest.raises(RunError) as error:
        _ = other.outputs
    assert (
        str(error.value)
        == f"{tmp_path}/logits.npz is damaged: expected 3 logits per image and single-label targets"
        " for val. Use lamina resume to write it again."
    )


class Doubling(nn.Module):
    """A module of one's own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(DATA.train.shape), 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * self.layer(images)


def test_damaged_outputs_of_ones_own_module_are_written_again(tmp_path):
    run = start_run(DATA_WITH_VAL, Doubling(), RECIPE, runs_dir=tmp_path)
    run.train(progress=False)
    (run.path / "logits.npz").write_bytes(b"damaged")
    assert run.evaluate(data=DATA_WITH_VAL).loss == load_run(run.path).report.loss
    assert run.outputs
