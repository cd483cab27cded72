"""A run's probabilities are those of its logits divided by the temperature that val asks for."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from lamina import Recipe, load_run, start_run
from lamina.data import Dataset, Images, draw_shapes
from lamina.errors import RunError
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.runs.run import Run
from lamina.targets import REGRESSION
from support.runs import DATA, finish_run

NET = Net(Flatten(), Linear(40), ReLU(), Output())


@functools.cache
def draw_images() -> Images:
    return draw_shapes("shapes", "train", 1100, seed=0)


def choose_images(**splits: int) -> Dataset:
    """600 shapes for training, and as many in each other split as asked for."""
    drawn = draw_images()
    chosen = {"train": drawn.take(range(600))}
    start = 600
    for split, count in splits.items():
        chosen[split] = dataclasses.replace(drawn.take(range(start, start + count)), split=split)
        start += count
    return Dataset("shapes", "abc", **chosen)


def train_with_smoothing(folder, dataset: Dataset, label_smoothing: float = 0.2) -> Run:
    recipe = Recipe(epochs=4, label_smoothing=label_smoothing, lr=0.003, precision="fp32")
    return load_run(finish_run(start_run(dataset, NET, recipe, runs_dir=folder)).path)


def measure_error(probabilities, targets, bins: int = 15) -> float:
    """The expected calibration error, as Guo et al. (2017), equation 3, define it."""
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    error = 0.0
    for low in np.arange(bins) / bins:
        chosen = (confidence >= low) & (confidence < low + 1 / bins)
        if chosen.any():
            error += chosen.mean() * abs(is_right[chosen].mean() - confidence[chosen].mean())
    return error


def test_with_val_all_probabilities_are_calibrated(tmp_path):
    dataset = choose_images(val=200, test=300)
    run = train_with_smoothing(tmp_path, dataset)
    val, test = run.outputs["val"], run.outputs["test"]
    fitted = minimize_scalar(
        lambda t: (
            -log_softmax(val.logits.astype(float) / t, axis=1)[np.arange(200), val.targets].mean()
        ),
        bounds=(0.1, 10),
        method="bounded",
    ).x
    (temperature,) = run.calibration.temperatures
    assert temperature == pytest.approx(fitted, rel=0.02)  # val's targets are softened a little
    assert abs(temperature - 1) > 0.1
    expected = softmax(test.logits.astype(float) / temperature, axis=1)
    for found in (run, load_run(run.path)):
        assert found.predictor(device="cpu").probabilities(dataset.test.pixels) == pytest.approx(
            expected, abs=1e-5
        )
    raw = softmax(test.logits.astype(float), axis=1)
    assert run.report.calibration_error == pytest.approx(measure_error(expected, test.targets))
    assert run.report.uncalibrated_error == pytest.approx(measure_error(raw, test.targets))
    assert run.report.metrics["accuracy"] == (test.logits.argmax(axis=1) == test.targets).mean()
    before, after = (
        f"{100 * error:.1f} %"
        for error in (run.report.uncalibrated_error, run.report.calibration_error)
    )
    floor = f"{100 * run.report.calibration_floor:.1f} %"
    shown = f"calibration error {after} (perfect probabilities: {floor}; {before} before"
    assert shown in str(run.report)


@pytest.mark.parametrize("splits", [{"test": 300}, {"val": 49, "test": 300}])
def test_without_enough_val_nothing_is_calibrated(splits, tmp_path):
    dataset = choose_images(**splits)
    run = train_with_smoothing(tmp_path, dataset)
    assert run.calibration is None
    assert not (run.path / "calibration.json").exists()
    raw = softmax(run.outputs["test"].logits.astype(float), axis=1)
    assert run.predictor(device="cpu").probabilities(dataset.test.pixels) == pytest.approx(
        raw, abs=1e-5
    )
    assert " %; not calibrated)" in str(run.report)


def test_without_test_the_report_says_that_val_was_fitted_to(tmp_path):
    run = train_with_smoothing(tmp_path, choose_images(val=200))
    assert " % before calibration; the calibration was fitted to these images)" in str(run.report)


def test_a_calibration_of_numbers_is_damaged(tmp_path):
    numbers = {
        split: dataclasses.replace(
            images,
            targets=np.random.default_rng(0).random((12, 1), np.float32),
            target_names=("age",),
        )
        for split, images in DATA.splits.items()
    }
    run = train_with_smoothing(tmp_path, dataclasses.replace(DATA, **numbers), label_smoothing=0.0)
    assert run.record.task.kind is REGRESSION
    (run.path / "calibration.json").write_text(
        json.dumps({"split": "val", "images": 60, "temperatures": []})
    )
    with pytest.raises(
        RunError,
        match=r"regression has no probabilities, so no temperatures\. Use lamina resume to",
    ):
        run.load_model()
