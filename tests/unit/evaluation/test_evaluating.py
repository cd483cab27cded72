"""Figures beside formulas written out in float64 NumPy, and beside published examples."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from lamina.data import Images
from lamina.errors import DataError, LaminaError
from lamina.evaluation.evaluating import evaluate
from lamina.evaluation.intervals import mean_interval, wilson_interval
from lamina.evaluation.report import Report
from lamina.metrics import METRICS
from lamina.training.model import Model
from lamina.training.task import Binary, MultiLabel, Regression, SingleLabel, Task
from support.examples import count_examples

CLASSES = ("cat", "dog", "hen")


def model_of(task: Task) -> Model:
    """A model whose logits are (pixel - 128) / 32 of a 1×1 image, one channel per output."""
    outputs = task.outputs
    return Model(
        nn.Flatten(),
        net=None,
        task=task,
        in_shape=(outputs, 1, 1),
        mean=[128.0] * outputs,
        std=[32.0] * outputs,
    )


def classes_of(names: tuple[str, ...], majority: int = 0) -> SingleLabel:
    shares = np.full(len(names), 0.5 / len(names))
    shares[majority] += 0.5
    return SingleLabel(names, tuple(shares.tolist()))


def rows_of(report: Report) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(name=row.name, support=row.images, **row.metrics) for row in report.rows
    ]


def images_of(pixels: np.ndarray, targets: np.ndarray, names: tuple[str, ...]) -> Images:
    return Images(
        pixels=pixels.astype(np.uint8)[:, None, None, :],
        targets=targets,
        target_names=names,
        names=tuple(f"{place}.png" for place in range(len(pixels))),
        split="test",
    )


def logits_of(pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.float64) - 128) / 32


def evaluate_classes(pixels, targets, names=CLASSES):
    pixels, targets = np.array(pixels), np.array(targets, np.int64)
    return evaluate(model_of(classes_of(names)), images_of(pixels, targets, names))


def pixels_that_choose(chosen: list[int], sure: int = 200) -> np.ndarray:
    """Pixels whose greatest is that of each chosen class."""
    pixels = np.full((len(chosen), len(CLASSES)), 100)
    pixels[np.arange(len(chosen)), chosen] = sure
    return pixels


def test_class_scores_are_those_counted_by_hand():
    report = evaluate_classes(pixels_that_choose([0, 1, 1, 1, 0, 2]), [0, 0, 1, 1, 2, 2])
    assert report.confusion() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert report.metrics["accuracy"] == report.score.value == 4 / 6
    wilson = wilson_interval(4, 6)
    assert vars(report.score_interval) == pytest.approx(vars(wilson))
    cat, dog, hen = rows_of(report)
    assert (cat.precision, cat.recall, cat.f1, cat.support) == (1 / 2, 1 / 2, 1 / 2, 2)
    assert (dog.precision, dog.recall, dog.f1, dog.support) == (2 / 3, 1.0, 4 / 5, 2)
    assert (hen.precision, hen.recall, hen.f1, hen.support) == (1.0, 1 / 2, 2 / 3, 2)
    assert report.metrics["balanced_accuracy"] == (1 / 2 + 1 + 1 / 2) / 3
    assert report.most_confused() == [("cat", "dog", 1), ("hen", "cat", 1)]
    assert report.most_confused(count=1) == [("cat", "dog", 1)]


def test_the_report_says_what_was_evaluated():
    report = evaluate_classes(pixels_that_choose([0, 1]), [0, 1])
    assert (report.split, report.images, report.score.name) == ("test", 2, "accuracy")
    assert 0 < report.seconds < 60


def test_the_majority_class_of_train_is_the_baseline_of_classes():
    pixels, targets = pixels_that_choose([0, 1, 1, 1, 0, 2]), np.array([0, 0, 1, 1, 2, 1])
    report = evaluate(
        model_of(classes_of(CLASSES, majority=1)), images_of(pixels, targets, CLASSES)
    )
    # The model is correct for images 0, 2 and 3, the baseline (always dog) for 2, 3 and 5.
    assert report.baseline.prediction == "always dog"
    assert (report.metrics["accuracy"], report.baseline.value, report.baseline.gain) == (
        0.5,
        0.5,
        0.0,
    )
    half_width = 2.5706 * np.sqrt((2 / 5) / 6 + (1 / 8) ** 2)  # t(5), and half an image for each
    interval = report.baseline.gain_interval
    assert (interval.low, interval.high) == pytest.approx((-half_width, half_width), rel=1e-4)
    assert not report.baseline.is_beaten


@pytest.mark.parametrize(
    ("share", "predicted", "value"), [(0.9, "yes", 0.25), (0.5, "no", 0.75), (0.0, "no", 0.75)]
)
def test_the_majority_of_train_is_the_baseline_of_a_question(share, predicted, value):
    pixels, targets = np.array([[192], [64], [160], [96]]), np.array([True, False, False, False])
    report = evaluate(model_of(Binary(("cat?",), (share,))), images_of(pixels, targets, ("cat?",)))
    baseline = report.baseline
    assert baseline.prediction == f"always {predicted}"
    assert (baseline.value, baseline.gain) == (value, 0.75 - value)


def test_the_labels_frequencies_are_the_baseline_of_labels():
    generator = np.random.default_rng(0)
    targets = generator.random((200, 3)) < [0.7, 0.3, 0.1]
    pixels = np.clip(generator.normal(100 + 60 * targets, 30), 0, 255).astype(np.uint8)
    images = images_of(pixels, targets, CLASSES)
    model = model_of(MultiLabel(CLASSES, (0.6, 0.5, 0.0)))
    report = evaluate(model, images)
    constant = np.ones(200)
    expected = np.mean([average_precision(constant, targets[:, place]) for place in range(3)])
    assert report.baseline.value == pytest.approx(expected)
    assert report.baseline.gain == pytest.approx(
        report.metrics["mean_average_precision"] - expected
    )
    # The interval is what the bootstrap over images approaches.
    gains = []
    for _ in range(200):
        rows = generator.integers(0, 200, 200)
        figures = [
            average_precision(pixels[rows, place], targets[rows, place])
            - targets[rows, place].mean()
            for place in range(3)
        ]
        gains.append(np.mean(figures))
    interval = report.baseline.gain_interval
    assert interval.high - interval.low == pytest.approx(2 * 1.97 * np.std(gains), rel=0.15)


@settings(deadline=None, max_examples=count_examples(50))
@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(arrays(np.uint8, n, elements=st.integers(0, 5)), arrays(bool, n))
    )
)
def test_influences_are_derivatives_of_average_precision(case):
    scores, truth = case
    truth[0] = True
    columns = torch.from_numpy(scores).double()[:, None]
    part = METRICS["average_precision"].measure(columns, torch.from_numpy(truth)[:, None])
    assert part is not None
    influences = part[1]()

    def weighted(weights: np.ndarray) -> float:
        found = [
            (weights * truth)[scores >= score].sum() / weights[scores >= score].sum()
            for score in scores
        ]
        return float(np.average(found, weights=weights * truth))

    for place, influence in enumerate(influences.tolist()):
        step = np.zeros(len(scores))
        step[place] = 1e-5
        assert influence == pytest.approx(
            (weighted(1 + step) - weighted(1 - step)) / 2e-5, abs=1e-6
        )


def test_one_image_has_no_interval_of_labels_and_numbers():
    labels = images_of(np.array([[200, 90, 90]]), np.array([[True, False, False]]), CLASSES)
    report = evaluate(model_of(MultiLabel(CLASSES, (0.6, 0.5, 0.0))), labels)
    assert (report.baseline.gain, report.baseline.gain_interval, report.baseline.is_beaten) == (
        0,
        None,
        False,
    )
    numbers = images_of(np.array([[160]]), np.array([[1.0]], np.float32), ("angle",))
    report = evaluate(model_of(Regression(("angle",), (0.0,), (0.0,), (1.0,))), numbers)
    assert (report.baseline.gain, report.baseline.gain_interval, report.baseline.is_beaten) == (
        1,
        None,
        False,
    )


def test_unseen_classes_have_no_recall_and_unchosen_no_precision():
    report = evaluate_classes(pixels_that_choose([0, 1, 1]), [0, 0, 0])
    cat, dog, hen = rows_of(report)
    assert report.metrics["balanced_accuracy"] == 1 / 3
    assert (cat.precision, cat.recall) == (1.0, 1 / 3)
    assert (dog.precision, dog.recall, dog.f1, dog.support) == (0.0, None, None, 0)
    assert (hen.precision, hen.recall, hen.f1, hen.support) == (None, None, None, 0)


def test_calibration_error_of_two_bins_by_hand():
    # Logits (2, 0, 0): e² / (e² + 2) = 0.78698 sure, right in one image of two; and (0, 0, 0): 1/3
    # sure, right.
    report = evaluate_classes([[192, 128, 128], [192, 128, 128], [128, 128, 128]], [0, 1, 0])
    sure = np.exp(2) / (np.exp(2) + 2)
    assert report.calibration_error == pytest.approx(
        2 / 3 * abs(0.5 - sure) + 1 / 3 * abs(1 - 1 / 3), abs=1e-6
    )


@st.composite
def pixels_and_classes(draw):
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 5))
    pixels = draw(arrays(np.uint8, (count, classes)))
    targets = draw(arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    return pixels, targets


@settings(deadline=None, max_examples=count_examples(50))
@given(pixels_and_classes())
def test_class_figures_equal_the_formulas_in_float64(case):
    pixels, targets = case
    count, classes = pixels.shape
    report = evaluate_classes(pixels, targets, tuple("abcde"[:classes]))

    logits = logits_of(pixels)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chosen, confidence = logits.argmax(axis=1), probabilities.max(axis=1)
    right = chosen == targets
    assert report.loss == pytest.approx(
        -np.log(probabilities[np.arange(count), targets]).mean(), rel=1e-6
    )
    assert report.metrics["accuracy"] == right.mean()
    for place, scores in enumerate(rows_of(report)):
        hits = int(((chosen == place) & right).sum())
        seen, there = int((chosen == place).sum()), int((targets == place).sum())
        assert scores.support == there
        assert scores.precision == (hits / seen if seen else None)
        assert scores.recall == (hits / there if there else None)
        if scores.precision and scores.recall:
            harmonic = 2 / (1 / scores.precision + 1 / scores.recall)
            assert scores.f1 == pytest.approx(harmonic)
    # A confidence on a bin's very edge may fall to either side in float32.
    edges = np.linspace(0, 1, 16)
    if np.abs(confidence[:, None] - edges).min() > 1e-5:
        bins = np.digitize(confidence, edges)
        expected = sum(
            abs(right[bins == one].sum() - confidence[bins == one].sum()) / count
            for one in np.unique(bins)
        )
        assert report.calibration_error == pytest.approx(expected, abs=1e-5)


def test_yes_and_no_are_two_classes_of_which_each_is_evaluated():
    pixels, targets = np.array([[192], [64], [160], [96]]), np.array([True, False, False, False])
    report = evaluate(model_of(Binary(("cat?",), (0.4,))), images_of(pixels, targets, ("cat?",)))
    assert report.confusion() == [[2, 1], [0, 1]]
    assert [scores.name for scores in rows_of(report)] == ["no", "yes"]
    assert report.metrics["balanced_accuracy"] == (2 / 3 + 1) / 2
    # Of three pairs of a yes and a no, all are in order; of four images in order of their logits
    # the first is the yes.
    assert (report.metrics["auc"], report.metrics["average_precision"]) == (1.0, 1.0)
    yes = 1 / (1 + np.exp(-logits_of(pixels)[:, 0]))
    assert report.loss == pytest.approx(-np.log(np.where(targets, yes, 1 - yes)).mean())


@settings(deadline=None, max_examples=count_examples(50))
@given(
    st.integers(1, 30).flatmap(
        lambda count: st.tuples(arrays(np.uint8, (count, 1)), arrays(np.bool_, count))
    )
)
def test_figures_of_a_question_equal_those_counted_pair_by_pair(case):
    pixels, targets = case
    report = evaluate(model_of(Binary(("cat?",), (0.4,))), images_of(pixels, targets, ("cat?",)))
    yes, no = pixels[targets, 0].tolist(), pixels[~targets, 0].tolist()
    pairs = [1.0 if one > other else 0.5 if one == other else 0.0 for one in yes for other in no]
    assert report.metrics["auc"] == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    expected = pytest.approx(average_precision(pixels[:, 0], targets)) if yes else None
    assert report.metrics["average_precision"] == expected
    outputs = pixels[:, 0] > 128
    recalls = [
        (outputs[targets == predicted] == predicted).mean()
        for predicted in (False, True)
        if (targets == predicted).any()
    ]
    assert report.metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_roc_auc_of_scikit_learns_documented_example():
    # y_true = [1, 1, 2, 2] with pos_label 2, scores = [0.1, 0.4, 0.35, 0.8]: 0.75.
    pixels, targets = np.array([[10], [40], [35], [80]]), np.array([False, False, True, True])
    report = evaluate(model_of(Binary(("two?",), (0.4,))), images_of(pixels, targets, ("two?",)))
    assert report.metrics["auc"] == 0.75


def average_precision(probability: np.ndarray, truth: np.ndarray) -> float:
    """The sum of (recall gained × precision) over thresholds, as scikit-learn defines it."""
    total, recall_before = 0.0, 0.0
    for threshold in np.unique(probability)[::-1]:
        found = probability >= threshold
        recall = truth[found].sum() / truth.sum()
        total += (recall - recall_before) * truth[found].mean()
        recall_before = recall
    return total


def test_average_precision_of_scikit_learns_documented_example():
    # y_true = [0, 0, 1, 1], y_score = [0.1, 0.4, 0.35, 0.8]: 0.83; only the order of the scores
    # matters.
    pixels, targets = (
        np.array([[10], [40], [35], [80]]),
        np.array([[False], [False], [True], [True]]),
    )
    report = evaluate(model_of(MultiLabel(("cat",), (0.5,))), images_of(pixels, targets, ("cat",)))
    assert rows_of(report)[0].average_precision == pytest.approx(5 / 6)
    assert report.score.name == "mean_average_precision"


def test_equal_logits_are_a_tie_however_sigmoids_are_rounded():
    truth = np.array([[False, True, True]] + [[True, True, True]] * 3)
    report = evaluate(
        model_of(MultiLabel(CLASSES, (0.6, 0.5, 0.0))),
        images_of(np.full((4, 3), 7), truth, CLASSES),
    )
    assert [scores.average_precision for scores in rows_of(report)] == [0.75, 1.0, 1.0]


@settings(deadline=None, max_examples=count_examples(50))
@given(
    st.integers(1, 30).flatmap(
        lambda count: st.tuples(arrays(np.uint8, (count, 3)), arrays(np.bool_, (count, 3)))
    )
)
def test_label_figures_equal_the_formulas_in_float64(case):
    pixels, targets = case
    images = images_of(pixels, targets, CLASSES)
    if not targets.any():
        with pytest.raises(DataError):
            evaluate(model_of(MultiLabel(CLASSES, (0.6, 0.5, 0.0))), images)
        return
    report = evaluate(model_of(MultiLabel(CLASSES, (0.6, 0.5, 0.0))), images)
    expected = [
        average_precision(pixels[:, place], targets[:, place]) if targets[:, place].any() else None
        for place in range(3)
    ]
    for scores, reference in zip(rows_of(report), expected, strict=True):
        assert scores.average_precision == (
            None if reference is None else pytest.approx(reference, abs=1e-6)
        )
    assert [scores.support for scores in rows_of(report)] == targets.sum(axis=0).tolist()
    known = [reference for reference in expected if reference is not None]
    assert report.score.value == pytest.approx(np.mean(known), abs=1e-6)
    outputs = pixels > 128
    f1 = []
    for place, scores in enumerate(rows_of(report)):
        right = int((outputs[:, place] & targets[:, place]).sum())
        seen, there = int(outputs[:, place].sum()), int(targets[:, place].sum())
        assert scores.precision == (right / seen if seen else None)
        assert scores.recall == (right / there if there else None)
        assert scores.f1 == (pytest.approx(2 * right / (seen + there)) if there else None)
        f1 += [scores.f1] if there else []
    assert report.metrics["micro_f1"] == pytest.approx(
        2 * (outputs & targets).sum() / (outputs.sum() + targets.sum())
    )
    assert report.metrics["macro_f1"] == pytest.approx(np.mean(f1))
    yes = 1 / (1 + np.exp(-logits_of(pixels)))
    assert report.loss == pytest.approx(-np.log(np.where(targets, yes, 1 - yes)).mean(), rel=1e-6)


def test_number_metrics_equal_the_formulas_in_each_numbers_unit():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (50, 2))
    medians, means, deviations = (11.0, 1.9e-4), (10.0, 2e-4), (4.0, 1e-5)
    outputs = logits_of(pixels) * deviations + means
    # The second number is of a size whose squares are all under 1e-4.
    targets = (outputs + generator.normal(0, 1, (50, 2)) * deviations).astype(np.float32)
    names = ("angle", "size")
    report = evaluate(
        model_of(Regression(names, medians, means, deviations)), images_of(pixels, targets, names)
    )

    truth = targets.astype(np.float64)
    errors = np.abs(outputs - truth).mean(axis=0)
    unexplained = ((outputs - truth) ** 2).sum(axis=0) / ((truth - truth.mean(axis=0)) ** 2).sum(
        axis=0
    )
    assert [scores.name for scores in rows_of(report)] == ["angle", "size"]
    assert [scores.mean_absolute_error for scores in rows_of(report)] == pytest.approx(
        errors.tolist()
    )
    assert [scores.r2 for scores in rows_of(report)] == pytest.approx((1 - unexplained).tolist())
    roots = np.sqrt(((outputs - truth) ** 2).mean(axis=0))
    assert [scores.root_mean_squared_error for scores in rows_of(report)] == pytest.approx(
        roots.tolist()
    )
    of_the_median = np.abs(np.array(medians) - truth)
    assert report.baseline.value == pytest.approx(of_the_median.mean())
    expected = mean_interval((of_the_median - np.abs(outputs - truth)).mean(axis=1).tolist())
    assert report.baseline.gain == pytest.approx(expected.mean, rel=1e-6)
    interval = report.baseline.gain_interval
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-6)
    assert report.score.value == pytest.approx(errors.mean())
    assert report.score.name == "mean_absolute_error"


def test_a_number_that_is_the_same_in_every_image_has_no_r2():
    pixels, targets = np.array([[128], [160]]), np.array([[0.1], [0.1]], np.float32)
    report = evaluate(
        model_of(Regression(("angle",), (0.0,), (0.0,), (1.0,))),
        images_of(pixels, targets, ("angle",)),
    )
    assert rows_of(report)[0].r2 is None
    assert rows_of(report)[0].mean_absolute_error == pytest.approx(0.5)


def assert_rejected(kind: type[LaminaError], message: str, task: Task, images: Images) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        evaluate(model_of(task), images)


def test_a_split_without_images_is_rejected():
    assert_rejected(
        DataError,
        "The test split has no images; evaluation needs at least one. Use another split.",
        classes_of(CLASSES),
        images_of(np.empty((0, 3)), np.empty(0, np.int64), CLASSES),
    )


def test_labels_of_which_there_are_none_are_rejected():
    assert_rejected(
        DataError,
        "None of the test images has a label, so the metrics are undefined. "
        "Evaluate on a split with labeled images.",
        MultiLabel(CLASSES, (0.6, 0.5, 0.0)),
        images_of(np.zeros((2, 3)), np.zeros((2, 3), bool), CLASSES),
    )


def test_classes_in_another_order_are_rejected():
    assert_rejected(
        DataError,
        "The test images have single-label targets (dog, cat, hen), but the model was trained on"
        " single-label targets (cat, dog, hen). Evaluate on images with the target names of the"
        " training images, in that order.",
        classes_of(CLASSES),
        images_of(np.zeros((1, 3)), np.zeros(1, np.int64), ("dog", "cat", "hen")),
    )


def test_other_kinds_are_rejected_and_many_names_cut_short():
    names = tuple("abcdefghijkl")
    assert_rejected(
        DataError,
        "The test images have multi-label targets (a, b, c, d, e, f, g, h, i and 3 more), but the"
        " model was trained on single-label targets (a, b, c, d, e, f, g, h, i and 3 more)."
        " Evaluate on images with the target names of the training images, in that order.",
        classes_of(names),
        images_of(np.zeros((1, 12)), np.zeros((1, 12), bool), names),
    )


def test_a_model_that_has_diverged_is_named_as_such():
    model = model_of(classes_of(CLASSES))
    model.body = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    nn.init.constant_(model.body[1].weight, float("nan"))
    message = (
        "The model's logits are NaN or infinite for 2 of 2 test images, first for 0.png: training"
        " diverged. Train again with a lower lr, or with gradient_clip=1."
    )
    with pytest.raises(LaminaError, match=f"^{re.escape(message)}$"):
        evaluate(model, images_of(np.ones((2, 3)), np.zeros(2, np.int64), CLASSES))
