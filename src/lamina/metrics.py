"""The metrics: names, computation, and the constant predictions to compare with.

A metric is one entry of :data:`METRICS`; recipes, scores, intervals and baselines read it. Recipes
and kinds of target must not load torch, so the functions only call methods of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from jaxtyping import Float64, Shaped

if TYPE_CHECKING:
    from torch import Tensor

Influences: TypeAlias = "Callable[[], Float64[Tensor, ' n']]"
"""Computes the derivatives of a metric by the weight of each image."""
Part: TypeAlias = tuple[float, Influences, int]
"""The value on some images, its influences, and the number of images that it depends on (its sample
size)."""
Measure: TypeAlias = "Callable[[Shaped[Tensor, 'n c'], Shaped[Tensor, 'n c']], Part | None]"
Constant = Literal["majority", "positive", "frequencies", "frequent", "medians", "means"]
"""A prediction that is the same for all images, from the training targets: the most frequent class;
yes or every label; the frequency of each label; the labels with the highest micro F1; the medians
or means of the numbers."""


TOP5_CLASSES = 10  # fewest classes for a top-5 accuracy


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric that may be the score.

    Attributes:
        name: as in ``Recipe.metric``.
        title: the name in text.
        measure: function of ``values`` and truth (n, c), with the columns in ``columns``, that
            returns a ``Part``; ``None`` if the metric is undefined.
        values: ``scores``, such as probabilities, or predictions (``chosen``).
        columns: ``all`` columns at once; ``each`` column, for the mean of the columns in which the
            metric is defined; or the ``last`` column (yes).
        baselines: the kinds of target whose score the metric may be; for each, the best constant
            prediction.
        reported: the kinds of target whose reports show the metric.
        rows: the kinds of target whose reports show it for each class, label or number.
        lower_is_better: whether a lower value is better.
        bounds: the smallest and the largest possible value.
    """

    name: str
    title: str
    measure: Measure
    values: Literal["scores", "chosen"]
    columns: Literal["all", "each", "last"]
    baselines: Mapping[str, Constant]
    reported: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    lower_is_better: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    def is_fraction(self) -> bool:
        """Whether all values are between 0 and 1, and are shown as percentages."""
        return self.bounds == (0.0, 1.0)


def _divide(parts: Shaped[Tensor, " n"], wholes: Shaped[Tensor, " n"], images: int) -> Part:
    """The ratio of two sums over images."""
    total = wholes.double().sum()
    value = float(parts.double().sum() / total)
    return value, lambda: (parts.double() - value * wholes.double()) / total, images


def _average(values: Shaped[Tensor, " n"]) -> Part:
    return _divide(values, values.new_ones(len(values)), len(values))


def _accuracy(chosen: Tensor, truth: Tensor) -> Part:
    return _average((chosen == truth).all(dim=1))


def _top5_accuracy(scores: Tensor, truth: Tensor) -> Part | None:
    if scores.shape[1] < TOP5_CLASSES:
        return None
    likely = scores.topk(5, dim=1).indices
    return _average(truth.gather(1, likely).any(dim=1))


def _precision(chosen: Tensor, truth: Tensor) -> Part | None:
    predicted = int(chosen.sum())
    if not predicted:
        return None
    return _divide((chosen & truth).sum(dim=1), chosen[:, 0], predicted)


def _recall(chosen: Tensor, truth: Tensor) -> Part | None:
    positive = int(truth.sum())
    if not positive:
        return None
    return _divide((chosen & truth).sum(dim=1), truth[:, 0], positive)


def _f1(chosen: Tensor, truth: Tensor) -> Part | None:
    positive = int(truth.sum())
    if not positive:
        return None
    correct = (chosen & truth).sum(dim=1)
    return _divide(2 * correct, chosen.sum(dim=1) + truth.sum(dim=1), positive)


def _average_precision(scores: Tensor, truth: Tensor) -> Part | None:
    positive = int(truth.sum())
    if not positive:
        return None
    descending, order = scores[:, 0].sort(descending=True)
    # images with equal scores share a threshold
    _, thresholds, ties = descending.unique_consecutive(return_inverse=True, return_counts=True)
    seen = ties.cumsum(0)
    correct = truth[order, 0].double().cumsum(0)[seen - 1]
    hits = correct.diff(prepend=correct.new_zeros(1))
    precision = correct / seen
    value = (precision * hits).sum() / positive

    def influences() -> Tensor:
        # An image counts at its threshold, and in the correct and seen images of every lower one.
        as_correct = (hits / seen.double()).flip(0).cumsum(0).flip(0)
        as_seen = (hits * (precision / seen)).flip(0).cumsum(0).flip(0)
        places = order.clone()
        places[order] = thresholds
        gains = truth[:, 0] * (precision - value + as_correct)[places]
        values: Tensor = (gains - as_seen[places]) / positive
        return values

    return float(value), influences, positive


def _roc_auc(scores: Tensor, truth: Tensor) -> Part | None:
    """The fraction of pairs in which the positive image scores higher; ties count half.

    Source of the influences: DeLong et al., Biometrics 44 (1988), 837-845.
    """
    positives = truth[:, 0].double()
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return None
    _, places, ties = scores[:, 0].unique(return_inverse=True, return_counts=True)
    trues = positives.new_zeros(len(ties)).index_add_(0, places, positives)
    falses = ties - trues
    # fraction of the negatives below each score, and of the positives above it
    lower = (falses.cumsum(0) - falses / 2) / negative
    higher = (positive - trues.cumsum(0) + trues / 2) / positive
    value = float((trues * lower).sum() / positive)

    def influences() -> Tensor:
        as_true = (lower[places] - value) / positive
        as_false = (higher[places] - value) / negative
        values: Tensor = as_true.where(truth[:, 0], as_false)
        return values

    return value, influences, min(positive, negative)


def _mean_absolute_error(numbers: Tensor, truth: Tensor) -> Part:
    return _average((numbers - truth).abs()[:, 0])


def _root_mean_squared_error(numbers: Tensor, truth: Tensor) -> Part:
    square, influences, images = _average((numbers - truth).square()[:, 0])
    root = math.sqrt(square)
    return root, lambda: influences() / (2 * root or 1), images


def _r2(numbers: Tensor, truth: Tensor) -> Part | None:
    if not (truth != truth[0]).any():
        return None
    spread = (truth - truth.mean()).square()[:, 0]
    rest, influences, images = _divide((numbers - truth).square()[:, 0], spread, len(truth))
    return 1 - rest, lambda: -influences(), images


_CLASSES: dict[str, Constant] = {"single-label": "majority", "binary": "majority"}
_LABELED = ("single-label", "binary", "multi-label")

# For each kind of target, the default comes first.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            "accuracy",
            _accuracy,
            "chosen",
            "all",
            _CLASSES,
            reported=("single-label", "binary"),
        ),
        Metric(
            "top5_accuracy",
            "top-5 accuracy",
            _top5_accuracy,
            "scores",
            "all",
            {},
            reported=("single-label",),
        ),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            _recall,
            "chosen",
            "each",
            _CLASSES,
            reported=("single-label", "binary"),
        ),
        Metric(
            "mean_average_precision",
            "mean average precision",
            _average_precision,
            "scores",
            "each",
            {"multi-label": "frequencies", "single-label": "majority"},
            reported=("multi-label",),
        ),
        Metric("precision", "precision", _precision, "chosen", "each", {}, rows=_LABELED),
        Metric("recall", "recall", _recall, "chosen", "each", {}, rows=_LABELED),
        Metric(
            "macro_f1",
            "macro F1",
            _f1,
            "chosen",
            "each",
            {**_CLASSES, "multi-label": "positive"},
            reported=("multi-label",),
        ),
        Metric(
            "micro_f1",
            "micro F1",
            _f1,
            "chosen",
            "all",
            {"multi-label": "frequent"},
            reported=("multi-label",),
        ),
        Metric("f1", "F1", _f1, "chosen", "last", {"binary": "positive"}, rows=_LABELED),
        Metric(
            "average_precision",
            "average precision",
            _average_precision,
            "scores",
            "last",
            {"binary": "majority"},
            reported=("binary",),
            rows=("multi-label",),
        ),
        Metric(
            "auc",
            "ROC AUC",
            _roc_auc,
            "scores",
            "each",
            {**_CLASSES, "multi-label": "frequencies"},
            reported=("binary",),
        ),
        Metric(
            "mean_absolute_error",
            "mean absolute error",
            _mean_absolute_error,
            "scores",
            "each",
            {"regression": "medians"},
            reported=("regression",),
            rows=("regression",),
            lower_is_better=True,
            bounds=(0.0, math.inf),
        ),
        Metric(
            "root_mean_squared_error",
            "root mean squared error",
            _root_mean_squared_error,
            "scores",
            "each",
            {"regression": "means"},
            rows=("regression",),
            lower_is_better=True,
            bounds=(0.0, math.inf),
        ),
        Metric(
            "r2",
            "R²",
            _r2,
            "scores",
            "each",
            {"regression": "means"},
            rows=("regression",),
            bounds=(-math.inf, 1.0),
        ),
    )
}

SCORES = tuple(name for name, metric in METRICS.items() if metric.baselines)
"""The metrics that may be the score."""
