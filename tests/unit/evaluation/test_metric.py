"""``Recipe.metric`` decides early stopping, the baseline, the verdict and what is printed."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from lamina import Recipe, Training, load_run, start_run
from lamina.data import Dataset, Images
from lamina.errors import DataError, LaminaWarning, NotFiniteError, RecipeError
from lamina.evaluation.evaluating import score, score_logits
from lamina.evaluation.report import Report
from lamina.evaluation.scores import measure
from lamina.nets import Flatten, Linear, Net, Output, ReLU
from lamina.targets import BINARY, KINDS, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Score
from lamina.training.task import Binary, Columns, MultiLabel, Regression, SingleLabel

NAMES = "good parts", "scratch"


def images_of(targets: np.ndarray, names=NAMES, split="test") -> Images:
    pixels = np.zeros((len(targets), 1, 1, 1), np.uint8)
    return Images(
        pixels, targets, names, tuple(f"{place}.png" for place in range(len(targets))), split
    )


def report_of(task, logits: np.ndarray, targets: np.ndarray, split="test") -> Report:
    return score_logits(
        task, logits.astype(np.float32), images_of(targets, task.target_names, split), 0.0
    )


def test_a_balanced_accuracy_of_94_percent_beats_the_majority():
    # 950 good parts, of which the model finds 92.6 %, and 50 with scratches, of which it finds 94.6
    # %.
    targets = np.repeat([0, 1], [950, 50])
    predicted = targets.copy()
    predicted[:70] = 1
    predicted[950:953] = 0
    logits = np.eye(2)[predicted] * 4
    by_accuracy = report_of(SingleLabel(NAMES, (0.95, 0.05)), logits, targets)
    assert "\nThe model is worse than the baseline (always good parts).\n" in str(by_accuracy)
    assert "set metric to balanced_accuracy" in str(by_accuracy)
    report = report_of(
        SingleLabel(NAMES, (0.95, 0.05), metric="balanced_accuracy"), logits, targets
    )
    assert (
        report.score.value
        == report.metrics["balanced_accuracy"]
        == sk.balanced_accuracy_score(targets, predicted)
    )
    assert report.baseline.value == 0.5
    assert report.baseline.is_beaten
    lines = str(report).splitlines()
    assert (
        lines[0].startswith("test balanced accuracy 93.3 % (95 % interval 88.")
        and "1,000 images)" in lines[0]
    )
    assert lines[1].startswith(
        "baseline (always good parts): 50.0 %, gain 43.3 points (95 % interval 38."
    )
    assert lines[2].startswith("accuracy 92.7 %, loss")
    assert report.values() == {
        "test_accuracy": 0.927,
        "test_balanced_accuracy": report.metrics["balanced_accuracy"],
    }
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def imbalanced(split: str, seed: int, images: int = 400) -> Images:
    """Gray images of which one in twenty is a little brighter at random pixels."""
    generator = np.random.default_rng(seed)
    targets = (np.arange(images) % 20 == 0).astype(np.int64)
    pixels = generator.integers(60, 180, (images, 6, 6, 1)) + 10 * targets[:, None, None, None]
    return Images(
        pixels.astype(np.uint8),
        targets,
        NAMES,
        tuple(f"{place}.png" for place in range(images)),
        split,
    )


PARTS = Dataset(
    name="parts",
    fingerprint="parts",
    train=imbalanced("train", 0, 1600),
    val=imbalanced("val", 1),
    size_px=6,
)
NET = Net(Flatten(), Linear(8), ReLU(), Output())
WEIGHTED = Recipe(epochs=9, batch_size=40, class_weights=True, patience=3, precision="fp32", seed=2)


def test_class_weights_let_patience_follow_balanced_accuracy(tmp_path):
    runs = {}
    for metric in (None, "accuracy"):
        recipe = dataclasses.replace(WEIGHTED, metric=metric)
        run = start_run(PARTS, NET, recipe, runs_dir=tmp_path, name=f"by-{metric}")
        for _ in run.iter_train(data=PARTS):
            pass
        runs[metric] = load_run(run.path)
    rows = runs["accuracy"].folder.read_epochs()
    assert runs["accuracy"].end.startswith("val accuracy has not improved since epoch 1 ")
    balanced = runs[None].folder.read_epochs()
    assert [row["weights"] for row in rows] == [row["weights"] for row in balanced[: len(rows)]]
    scores = [row["val_balanced_accuracy"] for row in balanced]
    assert len(balanced) > len(rows)
    assert len(rows) == 4
    # what patience by accuracy would have missed
    assert max(scores) > max(scores[: len(rows)]) + 0.05
    assert all("val_accuracy" in row for row in balanced)
    if runs[None].end:
        assert runs[None].end.startswith("val balanced accuracy has not improved since epoch ")
    report = runs[None].report
    assert (report.score.name, report.split) == ("balanced_accuracy", "val")
    assert report.baseline.is_beaten
    assert "balanced accuracy" in repr(runs[None])
    assert runs[None].record.task.metric == "balanced_accuracy"
    assert runs[None].evaluate(data=PARTS).score == report.score


def test_the_default_metric_depends_on_kind_and_class_weights():
    found = {kind.name: Recipe().find_metric(kind) for kind in KINDS}
    assert found == {
        "single-label": "accuracy",
        "multi-label": "mean_average_precision",
        "binary": "accuracy",
        "regression": "mean_absolute_error",
    }
    weighted = Recipe(class_weights=True)
    assert [weighted.find_metric(kind) for kind in (SINGLE_LABEL, BINARY)] == [
        "balanced_accuracy"
    ] * 2
    assert weighted.find_metric(MULTI_LABEL) == "mean_average_precision"
    assert Recipe(class_weights=True, metric="accuracy").find_metric(SINGLE_LABEL) == "accuracy"


@pytest.mark.parametrize(
    ("kind", "metric"), [(SINGLE_LABEL, "r2"), (REGRESSION, "accuracy"), (MULTI_LABEL, "f1")]
)
def test_a_metric_of_another_kind_is_refused_with_what_fits(kind, metric):
    fits = ", ".join(kind.metrics)
    message = (
        rf"^metric is {metric}, which does not fit {kind} targets; it must be one of {fits}\. Use"
        r" metric \w+\.$"
    )
    with pytest.raises(RecipeError, match=message):
        Recipe(metric=metric).find_metric(kind)
    message = "metric is 'acuracy', which is neither .* Did you mean accuracy"
    with pytest.raises(RecipeError, match=message):
        Training(NET, PARTS.train, Recipe(metric="acuracy"))


@pytest.mark.parametrize(
    "metric",
    [
        "balanced_accuracy",
        *(
            pytest.param(name, marks=pytest.mark.nightly)  # 300 repetitions; influences are tested
            for name in ("accuracy", "macro_f1", "auc", "mean_average_precision")
        ),
    ],
)
def test_intervals_contain_the_expected_score_in_95_percent(metric):
    # An imbalanced set, on which a balanced accuracy rests on 20 images of one class.
    generator, shares = np.random.default_rng(0), np.array([180, 60, 20])

    def draw(scale: int = 1):
        targets = torch.from_numpy(np.repeat(np.arange(3), shares * scale))
        truth = torch.nn.functional.one_hot(targets, 3).bool()
        values = torch.from_numpy(generator.normal(size=truth.shape)) + 2.5 * truth
        chosen = torch.nn.functional.one_hot(values.argmax(dim=1), 3).bool()
        return Columns(values, chosen), truth

    expected = measure(metric, *draw(2000)).value
    intervals = [measure(metric, *draw()).interval for _ in range(300)]
    covered = sum(one.low <= expected <= one.high for one in intervals) / len(intervals)
    assert 0.91 <= covered <= 0.99


@pytest.mark.parametrize(
    "metric", ["balanced_accuracy", "macro_f1", "auc", "mean_average_precision"]
)
def test_a_perfect_score_on_few_images_has_a_wide_interval(metric):
    truth = torch.nn.functional.one_hot(torch.tensor([0] * 90 + [1] * 10), 2).bool()
    found = measure(metric, Columns(truth.double(), truth), truth)
    assert found.value == found.interval.high == 1
    assert 0.7 < found.interval.low < 0.9


def test_the_interval_of_an_error_starts_at_0_and_of_r2_ends_at_1():
    errors = torch.tensor([[0.0], [0.0], [0.0], [10.0]], dtype=torch.float64)
    truth = torch.zeros_like(errors)
    found = measure("mean_absolute_error", Columns(errors, errors), truth)
    assert (found.value, found.interval.low) == (2.5, 0.0)
    assert found.interval.high == pytest.approx(2.5 + 3.182 * 2.5, abs=0.01)  # t(3) times 5 / √4
    truth = torch.arange(5.0, dtype=torch.float64)[:, None]
    almost = truth + torch.tensor([[0.0], [0.0], [0.3], [0.0], [0.0]])
    found = measure("r2", Columns(almost, almost), truth)
    assert found.interval.low < found.value < found.interval.high == 1


UNDEFINED = [
    (
        Binary(("cat?",), (0.5,), metric="auc"),
        np.ones((4, 1)),
        np.ones(4, bool),
        "ROC AUC",
        "accuracy",
    ),
    (
        Binary(("cat?",), (0.5,), metric="average_precision"),
        np.ones((4, 1)),
        np.zeros(4, bool),
        "average precision",
        "accuracy",
    ),
    (
        SingleLabel(NAMES, (0.5, 0.5), metric="auc"),
        np.eye(2)[[0, 0, 1]],
        np.zeros(3, np.int64),
        "ROC AUC",
        "accuracy",
    ),
    (
        MultiLabel(NAMES, (0.5, 0.5), metric="auc"),
        np.ones((4, 2)),
        np.array([[True, False]] * 4),
        "ROC AUC",
        "mean average precision",
    ),
    (
        Regression(("x",), (0.0,), (0.0,), (1.0,), metric="r2"),
        np.ones((4, 1)),
        np.ones((4, 1), np.float32),
        "R²",
        "mean absolute error",
    ),
]


@pytest.mark.parametrize(("task", "logits", "targets", "title", "instead"), UNDEFINED)
def test_an_undefined_metric_is_named_and_the_rest_is_shown(task, logits, targets, title, instead):
    report = report_of(task, logits, targets, split="val")
    first = report.details()[0]
    reason = f"all targets of {len(targets)} images are equal"
    assert first == f"val {title} is undefined, because {reason}; the score is the {instead}"
    assert report.headline().startswith(f"val {instead} ")
    assert first in str(report) and first in report._repr_html_()
    plain = report_of(dataclasses.replace(task, metric=""), logits, targets, split="val")
    assert dataclasses.replace(report, undefined=None) == plain
    assert report.values() == plain.values()
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert math.isfinite(report.score.value)


def test_val_with_one_class_is_scored_by_the_accuracy(tmp_path):
    one_class = imbalanced("val", 1).take(range(1, 20))
    data = dataclasses.replace(
        PARTS, val=dataclasses.replace(one_class, targets=np.zeros(19, np.int64))
    )
    recipe = dataclasses.replace(WEIGHTED, epochs=2, class_weights=False, metric="auc")
    run = start_run(data, NET, recipe, runs_dir=tmp_path)
    with pytest.warns(LaminaWarning) as warned:
        report = run.train(progress=False)
    said = [str(one.message) for one in warned if "undefined" in str(one.message)]
    assert said == [
        "val ROC AUC is undefined, because all targets of 19 images are equal; the score is the"
        " accuracy"
    ]
    assert (report.split, report.score.name, report.undefined) == ("val", "accuracy", "auc")
    rows = load_run(run.path).folder.read_epochs()
    assert all(math.isfinite(row["val_accuracy"]) and "val_auc" not in row for row in rows)


TASKS = {
    "classes": SingleLabel(NAMES, (0.95, 0.05), metric="macro_f1"),
    "question": Binary(("cat?",), (0.5,), metric="auc"),
    "labels": MultiLabel(NAMES, (0.5, 0.5)),
    "numbers": Regression(NAMES, (0.0, 1.0), (0.5, 0.5), (2.0, 3.0), metric="r2"),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_score_of_logits_is_that_of_their_report(name):
    task, generator = TASKS[name], np.random.default_rng(0)
    logits = generator.normal(size=(30, task.outputs)).astype(np.float32)
    targets = {
        "classes": generator.integers(2, size=30),
        "question": generator.random(30) > 0.5,
        "labels": generator.random((30, 2)) > 0.5,
        "numbers": generator.normal(size=(30, 2)).astype(np.float32),
    }[name]
    assert score(task, logits, targets) == report_of(task, logits, targets).score
    logits[3, 0] = np.nan
    with pytest.raises(NotFiniteError, match="logits are NaN or infinite: training diverged"):
        score(task, logits, targets)


def test_logits_have_the_default_score_of_an_undefined_metric():
    logits, targets = np.array([[-1.0], [1.0]], np.float32), np.array([True, True])
    assert score(TASKS["question"], logits, targets) == Score("accuracy", 0.5)
    with pytest.raises(DataError, match="None of the images has a label"):
        score(TASKS["labels"], logits.repeat(2, axis=1), np.zeros((2, 2), bool))


def test_the_verdict_names_the_class_of_the_evaluated_images():
    task = SingleLabel(NAMES, (0.9, 0.1))  # most training images are good parts
    targets = np.array([1] * 19 + [0])
    report = report_of(task, np.eye(2)[targets * 0], targets)
    assert "95.0 % of the images are scratch, so accuracy is misleading" in str(report)
    report = report_of(task, np.eye(2)[targets * 0], targets[:19].repeat(2)[:20])
    assert "\nAll images are scratch. Evaluate on other classes too.\n" in str(report)


def test_the_gain_over_a_baseline_with_equal_errors_has_its_sign():
    # Always 0 is wrong by 1 everywhere; the model by 0.5 and 0.1.
    numbers = Regression(("x",), (0.0,), (0.0,), (1.0,))
    targets = np.array([[1.0], [-1.0]] * 10, np.float32)
    logits = targets * np.array([[0.5], [0.9]] * 10)
    baseline = report_of(numbers, logits, targets).baseline
    assert baseline.gain == pytest.approx(0.7)
    assert baseline.gain_interval.low < 0.7 < baseline.gain_interval.high
    assert baseline.is_beaten


def test_the_baselines_of_f1_and_r2_are_always_yes_and_the_mean():
    targets = np.array([True, False, False, False])
    question = Binary(("cat?",), (0.25,), metric="f1")
    report = report_of(question, np.array([[1.0], [-1], [-1], [1]]), targets)
    assert (report.baseline.constant, report.baseline.value) == ("positive", 2 * 0.25 / 1.25)
    assert "baseline (always yes): 40.0 %" in str(report)
    for metric in ("r2", "root_mean_squared_error"):
        numbers = Regression(("x",), (5.0,), (2.0,), (1.0,), metric=metric)
        report = report_of(numbers, np.zeros((2, 1)), np.array([[1.0], [3.0]], np.float32))
        assert report.baseline.constant == "means"
        assert report.baseline.gain == 0
        assert "baseline (always the mean): " in str(report)
