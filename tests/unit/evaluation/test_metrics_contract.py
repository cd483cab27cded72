"""What every metric of ``METRICS`` must do: a new entry is tested without a new test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from lamina.data import Images
from lamina.evaluation.constant import predict_constant
from lamina.evaluation.scores import find_value, measure
from lamina.metrics import METRICS
from lamina.targets import KINDS, find_kind
from lamina.training.task import Columns, Task, task_of

CASES = [
    (name, kind)
    for name, metric in METRICS.items()
    for kind in sorted({*metric.baselines, *metric.reported, *metric.rows})
    if name != "top5_accuracy"  # undefined for three classes, which the cases have
]
CONSTANTS = 5  # other numbers to predict, for each number


def draw(kind: str, seed: int = 0, images: int = 40) -> tuple[Task, np.ndarray, np.ndarray]:
    """A task with the statistics of random targets, and logits that depend on them."""
    generator = np.random.default_rng(seed)
    shares = np.array([0.6, 0.25, 0.15])
    match kind:
        case "single-label":
            targets = np.concatenate([np.arange(3), generator.choice(3, images - 3, p=shares)])
            signal, names = np.eye(3)[targets], ("a", "b", "c")
        case "multi-label":
            drawn = generator.random((images - 2, 3)) < shares
            targets = np.vstack([[True] * 3, [False] * 3, drawn])
            signal, names = targets, ("a", "b", "c")
        case "binary":
            targets = np.concatenate([[True, False], generator.random(images - 2) < 0.3])
            signal, names = targets[:, None], ("cat?",)
        case _:
            targets = generator.exponential(size=(images, 2)).astype(np.float32)
            signal, names = targets, ("x", "y")
    logits = np.round(generator.normal(size=signal.shape) + 1.5 * signal - 0.7, 1)  # some are tied
    pixels = np.zeros((images, 1, 1, 1), np.uint8)
    files = tuple(f"{place}.png" for place in range(images))
    task = task_of(Images(pixels, targets, names, files, "train"))
    return task, logits, targets


def columns_of(task: Task, logits: np.ndarray) -> Columns:
    return task.to_columns(torch.from_numpy(logits).double())


def truth_of(task: Task, targets: np.ndarray) -> torch.Tensor:
    return task.to_truth(torch.from_numpy(targets))


def value_of(name: str, columns: Columns, truth: torch.Tensor) -> float:
    return measure(name, columns, truth).value


def gain(name: str, value: float, other: float) -> float:
    """How much better one value is than another."""
    return other - value if METRICS[name].lower_is_better else value - other


def f1(average: str):
    return lambda scores, chosen, truth: sk.f1_score(truth, chosen, average=average)


def last(function):
    return lambda scores, chosen, truth: function(scores[:, -1], chosen[:, -1], truth[:, -1])


def top5(scores: np.ndarray, chosen: np.ndarray, truth: np.ndarray) -> float:
    return sk.top_k_accuracy_score(truth.argmax(axis=1), scores, k=5)


REFERENCES = {
    "accuracy": lambda scores, chosen, truth: sk.accuracy_score(truth, chosen),
    "balanced_accuracy": lambda scores, chosen, truth: sk.balanced_accuracy_score(
        truth.argmax(axis=1), chosen.argmax(axis=1)
    ),
    "mean_average_precision": lambda scores, chosen, truth: sk.average_precision_score(
        truth, scores, average="macro"
    ),
    "top5_accuracy": top5,
    "precision": lambda scores, chosen, truth: sk.precision_score(
        truth, chosen, average="macro", zero_division=np.nan
    ),
    "recall": lambda scores, chosen, truth: sk.recall_score(truth, chosen, average="macro"),
    "macro_f1": f1("macro"),
    "micro_f1": f1("micro"),
    "f1": last(lambda scores, chosen, truth: sk.f1_score(truth, chosen)),
    "average_precision": last(
        lambda scores, chosen, truth: sk.average_precision_score(truth, scores)
    ),
    "auc": lambda scores, chosen, truth: sk.roc_auc_score(truth, scores, average="macro"),
    "mean_absolute_error": lambda scores, chosen, truth: sk.mean_absolute_error(truth, scores),
    "root_mean_squared_error": lambda scores, chosen, truth: sk.root_mean_squared_error(
        truth, scores
    ),
    "r2": lambda scores, chosen, truth: sk.r2_score(truth, scores),
}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_each_metric_fulfills_the_contract(name, kind):
    """Everything that holds for each metric and each kind of target that it fits."""
    for seed in range(3):
        check_value_and_bounds(name, kind, seed)
    check_better_predictions(name, kind)
    check_order_of_images(name, kind)
    check_influences(name, kind)
    for images in (1, 4):
        check_equal_targets(name, kind, images)
    if kind in METRICS[name].baselines:
        for seed in range(5):
            check_baseline(name, kind, seed)


def check_value_and_bounds(name: str, kind: str, seed: int) -> None:
    """The value is scikit-learn's; its interval contains it."""
    task, logits, targets = draw(kind, seed)
    columns, truth = columns_of(task, logits), truth_of(task, targets)
    measured = measure(name, columns, truth)
    expected = REFERENCES[name](columns.scores.numpy(), columns.chosen.numpy(), truth.numpy())
    assert measured.value == pytest.approx(expected, abs=1e-9)
    low, high = METRICS[name].bounds
    assert low <= measured.value <= high
    assert measured.interval.low <= measured.value <= measured.interval.high
    if METRICS[name].is_fraction:
        assert (low, high) == (0, 1)
        assert low <= measured.interval.low <= measured.interval.high <= high


def check_better_predictions(name: str, kind: str) -> None:
    """Perfect ones have the best value, better ones a better value."""
    task, logits, targets = draw(kind)
    truth = truth_of(task, targets)
    perfect = Columns(truth.double(), truth)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=truth.shape))
    if kind == "regression":
        noisy = Columns(truth + noise, truth + noise)
    else:
        noisy = columns_of(task, np.random.default_rng(1).permutation(logits))
    best = value_of(name, perfect, truth)
    low, high = METRICS[name].bounds
    assert best == (low if METRICS[name].lower_is_better else high)
    assert gain(name, best, value_of(name, columns_of(task, logits), truth)) > 0
    assert gain(name, best, value_of(name, noisy, truth)) > 0


def check_order_of_images(name: str, kind: str) -> None:
    """The order of images does not change the value, and the influences follow it."""
    task, logits, targets = draw(kind)
    order = np.random.default_rng(2).permutation(len(targets))
    measured = measure(name, columns_of(task, logits), truth_of(task, targets))
    other = measure(name, columns_of(task, logits[order]), truth_of(task, targets[order]))
    assert other.value == pytest.approx(measured.value, abs=1e-12)
    assert other.influences.numpy() == pytest.approx(measured.influences.numpy()[order], abs=1e-12)


def check_influences(name: str, kind: str) -> None:
    """Influences are the derivatives by the weight of an image.

    An image of weight 2 is an image that occurs twice: finite differences with a thousand copies of
    all others.
    """
    task, logits, targets = draw(kind, images=18)
    columns, truth = columns_of(task, logits), truth_of(task, targets)
    measured = measure(name, columns, truth)
    copies = 1000
    for row in (0, 1, 5, 9):
        rows = torch.cat([torch.arange(len(truth)).repeat(copies), torch.tensor([row])])
        repeated = Columns(columns.scores[rows], columns.chosen[rows])
        change = value_of(name, repeated, truth[rows]) - measured.value
        assert change * copies == pytest.approx(float(measured.influences[row]), abs=5e-3)
    assert float(measured.influences.sum()) == pytest.approx(0, abs=1e-9)


def check_equal_targets(name: str, kind: str, images: int) -> None:
    """With equal targets, a metric is finite or undefined."""
    task, logits, targets = draw(kind)
    logits = logits[:images]
    for row in (0, 1):
        equal = np.repeat(targets[row : row + 1], images, axis=0)
        measured = measure(name, columns_of(task, logits), truth_of(task, equal))
        if measured is not None:
            assert math.isfinite(measured.value)
            assert measured.influences.isfinite().all()


def list_constants(task: Task, targets: np.ndarray) -> list[Columns]:
    """Predictions that are the same for all images: classes, sets of labels, or numbers."""
    count = len(targets)
    truth = truth_of(task, targets)
    columns = truth.shape[1]
    if task.kind.name == "regression":
        grid = np.quantile(truth.numpy(), np.linspace(0.05, 0.95, CONSTANTS), axis=0)
        rows = [torch.tensor(row) for row in itertools.product(*grid.T)]
        return [Columns(row.expand(count, -1), row.expand(count, -1)) for row in rows]
    if task.kind.name == "multi-label":
        rows = [torch.tensor(row) for row in itertools.product([False, True], repeat=columns)]
    else:
        rows = list(torch.eye(columns).bool())
    return [Columns(row.double().expand(count, -1), row.expand(count, -1)) for row in rows]


def check_baseline(name: str, kind: str, seed: int) -> None:
    """No constant prediction beats it."""
    task, _, targets = draw(kind, seed)
    truth = truth_of(task, targets)
    baseline = predict_constant(task, METRICS[name].baselines[kind], len(targets))
    best = value_of(name, baseline, truth)
    for constant in list_constants(task, targets):
        assert gain(name, value_of(name, constant, truth), best) <= 1e-9


def test_the_top_5_accuracy_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(60, 12))
    targets = np.concatenate([np.arange(12), generator.integers(0, 12, 48)])
    truth = torch.nn.functional.one_hot(torch.from_numpy(targets), 12).bool()
    columns = Columns(torch.from_numpy(scores), truth)
    expected = REFERENCES["top5_accuracy"](scores, scores, truth.numpy())
    assert find_value("top5_accuracy", columns, truth) == pytest.approx(expected)
    few = Columns(columns.scores[:, :9], truth[:, :9])
    assert find_value("top5_accuracy", few, truth[:, :9]) is None


def test_every_metric_has_a_reference_and_every_kind_a_default():
    assert set(REFERENCES) == set(METRICS)
    assert all(name == metric.name and name.isidentifier() for name, metric in METRICS.items())
    for kind in KINDS:
        assert kind.metrics
        assert kind.name in METRICS[kind.metrics[0]].reported
        assert find_kind(kind.name) is kind
    assert {kind for _, kind in CASES} == {kind.name for kind in KINDS}
    assert {kind.name: kind.metrics[0] for kind in KINDS} == {
        "single-label": "accuracy",
        "multi-label": "mean_average_precision",
        "binary": "accuracy",
        "regression": "mean_absolute_error",
    }
