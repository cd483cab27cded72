"""Temperatures equal a general optimizer's; confidence thresholds reject what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch.nn import functional

from lamina.cli.confidence import check_confidence_threshold, is_rejected
from lamina.errors import DataError, RunError
from lamina.evaluation.calibration import (
    Calibration,
    calibrate,
    fit_temperatures,
    judge_predictions,
    measure_rejection,
)
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictions import make_prediction
from lamina.evaluation.scores import calibration_error, calibration_floor, find_bins
from lamina.training.recipe import Aim
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel

CLASSES = SingleLabel(("a", "b", "c"), (0.4, 0.3, 0.3))
LABELS = MultiLabel(("x", "y", "z"), (0.5, 0.5, 0.01))


def draw_predictions(count: int, seed: int, temperature: float = 1.0, classes: int = 3):
    """Logits, and classes that they are calibrated for when divided by the temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * 2
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    targets = np.array([generator.choice(classes, p=row) for row in probabilities])
    return (logits * temperature).astype(np.float32), targets


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_found_as_by_scipy(temperature):
    logits, targets = draw_predictions(4000, 0, temperature)
    (found,) = fit_temperatures(CLASSES, logits, targets)
    values, classes = torch.from_numpy(logits).double(), torch.from_numpy(targets)
    reference = minimize_scalar(
        lambda log: float(functional.cross_entropy(values / np.exp(log), classes)),
        bounds=(-3, 3),
        method="bounded",
    )
    assert found == pytest.approx(np.exp(reference.x), rel=0.01)
    assert found == pytest.approx(temperature, rel=0.1)
    others, their_targets = draw_predictions(4000, 1, temperature)
    calibrated = CLASSES.with_temperatures((found,))
    errors = [
        calibration_error(
            *judge_predictions(
                task, torch.from_numpy(others).double(), torch.from_numpy(their_targets)
            )
        )
        for task in (CLASSES, calibrated)
    ]
    assert errors[1] < 0.025
    if temperature != 1:
        assert errors[1] < errors[0] / 3


def test_labels_with_enough_images_have_their_own_temperature():
    generator = np.random.default_rng(2)
    clean = generator.normal(size=(2000, 3)) * 3
    targets = generator.random((2000, 3)) < 1 / (1 + np.exp(-clean))
    targets[:, 2] = np.arange(2000) < 10  # too few
    logits = (clean * [0.5, 4.0, 1.0]).astype(np.float32)
    found = fit_temperatures(LABELS, logits, targets)
    assert found[:2] == pytest.approx((0.5, 4.0), rel=0.15)
    common = fit_temperatures(Binary(("any",), (0.5,)), logits.reshape(-1, 1), targets.reshape(-1))
    assert found[2] == pytest.approx(common[0], rel=0.01)


def test_few_images_and_numbers_have_no_temperature():
    logits, targets = draw_predictions(49, 3)
    assert fit_temperatures(CLASSES, logits, targets) == ()
    numbers = Regression(("mm",), (0.0,), (0.0,), (1.0,))
    assert (
        fit_temperatures(numbers, np.zeros((500, 1), np.float32), np.zeros((500, 1), np.float32))
        == ()
    )
    right = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    (found,) = fit_temperatures(CLASSES, right, np.arange(60) % 3)
    task = CLASSES.with_temperatures((found,))
    sure = task.probabilities(torch.from_numpy(right)).max(1).values
    assert 0.95 < float(sure.min()) < 0.99  # one more mistake in 62


@given(st.integers(0, 10**6), st.floats(0.05, 20))
def test_a_temperature_changes_no_prediction(seed, temperature):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(20, 3))).double()
    for task, temperatures in ((CLASSES, (temperature,)), (LABELS, (temperature, 1.0, 2.0))):
        before, after = (
            one.probabilities(logits) for one in (task, task.with_temperatures(temperatures))
        )
        if task is CLASSES:
            assert torch.equal(before.argmax(1), after.argmax(1))
        else:
            assert torch.equal(before > 0.5, after > 0.5)
    # Training is about the logits themselves.
    targets = torch.arange(20) % 3
    assert CLASSES.loss(logits, targets) == CLASSES.with_temperatures((temperature,)).loss(
        logits, targets
    )


def test_bins_and_rejections_are_counted():
    confidence = torch.tensor([0.51, 0.52, 0.91, 0.92, 0.93], dtype=torch.float64)
    is_right = torch.tensor([True, False, True, True, False])
    assert find_bins(confidence).tolist() == [7, 7, 13, 13, 13]
    assert find_bins(torch.tensor([0.0, 1.0])).tolist() == [0, 14]
    error = (2 * abs(0.515 - 1 / 2) + 3 * abs(0.92 - 2 / 3)) / 5
    assert calibration_error(confidence, is_right) == pytest.approx(error)
    kept = {
        limit: measure_rejection(confidence, is_right, limit) for limit in (0.5, 0.7, 0.9, 0.99)
    }
    assert (kept[0.9].coverage, kept[0.9].accuracy) == (0.6, pytest.approx(2 / 3))
    assert (kept[0.99].coverage, kept[0.99].accuracy) == (0.0, None)


OTHER_KIND = np.tile([True, False, False], (60, 1))
ONE_NAN = np.zeros((60, 3), np.float32)
ONE_NAN[59, 2] = np.nan


@pytest.mark.parametrize("aim", [None, Aim("recall", 0.9)])
@pytest.mark.parametrize(
    ("task", "logits", "targets"),
    [
        (CLASSES, np.zeros((60, 3), np.float32), OTHER_KIND),
        (LABELS, np.zeros((60, 3), np.float32), np.arange(60) % 3),
        (LABELS, np.zeros((60, 3), np.float32), np.zeros((60, 3), bool)),
        (LABELS, ONE_NAN, OTHER_KIND),
    ],
    ids=["labels for classes", "classes for labels", "no labels", "NaN"],
)
def test_outputs_that_cannot_calibrate_the_model_are_left_out(task, logits, targets, aim):
    outputs = Outputs("val", logits, targets, tuple(map(str, range(60))))
    assert calibrate(task, outputs, aim) is None


def test_labels_of_which_some_are_absent_are_calibrated():
    generator = np.random.default_rng(4)
    targets = OTHER_KIND & (generator.random((60, 1)) < 0.5)
    logits = (generator.normal(size=(60, 3)) + 2 * targets).astype(np.float32)
    outputs = Outputs("val", logits, targets, tuple(map(str, range(60))))
    calibration = calibrate(LABELS, outputs, None)
    assert calibration == Calibration("val", 60, fit_temperatures(LABELS, logits, targets))


@pytest.mark.parametrize("temperatures", [(0.0,), (float("nan"),), (99.0,)])
def test_a_temperature_out_of_range_is_rejected(temperatures):
    with pytest.raises(RunError, match="calibration: temperatures"):
        Calibration("val", 100, temperatures)


@pytest.mark.parametrize("threshold", [0.5, 0.503, 0.8])
def test_a_confidence_threshold_rejects_the_less_probable_predictions(threshold):
    task = Binary(("scratch?",), (0.3,), thresholds=(threshold,))
    check_confidence_threshold(task, 0.9)
    probabilities = np.linspace(0.01, 0.99, 50)
    logits = torch.from_numpy(np.log(probabilities / (1 - probabilities))).float()[:, None]
    confidence, is_correct = judge_predictions(task, logits, torch.ones(50, dtype=torch.bool))
    measured = measure_rejection(confidence, is_correct, 0.9)
    rows = task.probabilities(logits).tolist()
    predictions = [make_prediction(task, "x", row) for row in rows]
    for prediction in predictions:
        is_sure = prediction.values[prediction.predicted] >= 0.9
        assert is_rejected(prediction, 0.9) == (not is_sure)
    kept = [not is_rejected(prediction, 0.9) for prediction in predictions]
    assert measured.coverage == pytest.approx(np.mean(kept))


def test_a_confidence_threshold_would_reject_what_a_low_threshold_predicts():
    task = Binary(("scratch?",), (0.3,), thresholds=(0.2,))
    with pytest.raises(DataError, match=r"yes above 20\.00 %, but --confidence-threshold would"):
        check_confidence_threshold(task, 0.9)


@pytest.mark.parametrize("images", [50, 200, 2000])
def test_the_calibration_floor_is_that_of_perfect_probabilities(images):
    random = np.random.default_rng(images)
    confidence = torch.from_numpy(random.beta(8, 1, images))
    errors = [
        calibration_error(confidence, torch.from_numpy(random.random(images) < confidence.numpy()))
        for _ in range(300)
    ]
    assert calibration_floor(confidence) == pytest.approx(np.mean(errors), rel=0.08)
    assert calibration_floor(torch.ones(images)) == 0
