"""Metrics by their published formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from lamina.evaluation.intervals import Interval, combine_fractions, influence_interval
from lamina.targets import MetricName, Score

CALIBRATION_BINS = 15
_Part: TypeAlias = tuple[float, Float64[Tensor, " n"], int]


@dataclass(frozen=True)
class ClassScores:
    """One class's metrics, from 0 to 1; ``None`` if undefined. ``support`` counts its images."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class QuestionScores:
    """A binary model's metrics without a threshold, from 0 to 1; ``None`` if undefined."""

    name: str  # of the target
    average_precision: float | None  # guessing scores the fraction of yes
    roc_auc: float | None  # guessing scores 0.5


@dataclass(frozen=True)
class LabelScores(ClassScores):
    """One label's metrics; precision, recall and F1 use the task's thresholds, by default 0.5."""

    # over all thresholds; guessing scores the fraction of images with the label
    average_precision: float | None


@dataclass(frozen=True)
class NumberScores:
    """The metrics of one predicted number; errors have its unit."""

    name: str
    mean_absolute_error: float
    baseline_error: float  # mean absolute error of predicting the median of the training images
    root_mean_squared_error: float
    r2: float | None  # coefficient of determination, at most 1; ``None`` if all targets are equal


def count_confusion(
    chosen: Int64[Tensor, " n"], targets: Int64[Tensor, " n"], classes: int
) -> Int64[np.ndarray, "k k"]:
    """Images by true class (rows) and predicted class (columns)."""
    return (
        torch.bincount(targets * classes + chosen, minlength=classes**2)
        .view(classes, classes)
        .numpy()
    )


def calibration_error(confidence: Float[Tensor, " n"], is_correct: Bool[Tensor, " n"]) -> float:
    """Mean distance of confidence and accuracy in 15 equal bins (Guo et al., 2017, equation 3)."""
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, is_correct.double() - confidence.double())
    return gaps.abs().sum().item() / len(confidence)


def average_precision(
    scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]
) -> tuple[float, Float64[Tensor, " n"]]:
    """The average precision, and its derivatives by the weight of each image."""
    descending, order = scores.sort(descending=True)
    # images with equal scores share a threshold
    ties = descending.unique_consecutive(return_counts=True)[1]
    seen = ties.cumsum(0)
    found = truth[order].double().cumsum(0)[seen - 1]
    hits = found.diff(prepend=found.new_zeros(1))
    precision = found / seen
    value = (precision * hits).sum() / found[-1]
    # An image counts at its threshold, and in the found and seen images of every lower threshold.
    as_found, as_seen = (
        (hits * part).flip(0).cumsum(0).flip(0) for part in (1 / seen.double(), precision / seen)
    )
    places = torch.empty_like(order)
    places[order] = torch.arange(len(ties)).repeat_interleave(ties)
    influences = truth * (precision - value + as_found)[places] - as_seen[places]
    return float(value), influences / found[-1]


def mean_ranks(values: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, " n"]:
    """The rank of each value, from 1 for the lowest; equal values get their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.take(counts.cumsum() - (counts - 1) / 2, places.ravel())


def roc_auc(
    scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]
) -> tuple[float, Float64[Tensor, " n"]]:
    """The fraction of pairs in which the positive image scores higher, and its influences.

    Ties count half. The influences are those of DeLong et al., Biometrics 44 (1988), 837-845.
    """
    _, places, ties = scores.unique(return_inverse=True, return_counts=True)
    trues = torch.zeros(len(ties), dtype=torch.float64).index_add_(0, places, truth.double())
    falses = ties - trues
    lower = (
        falses.cumsum(0) - falses / 2
    ) / falses.sum()  # fraction of the negatives below each score
    higher = (trues.sum() - trues.cumsum(0) + trues / 2) / trues.sum()
    value = float((trues * lower).sum() / trues.sum())
    shares = torch.where(
        truth, (lower[places] - value) / trues.sum(), (higher[places] - value) / falses.sum()
    )
    return value, shares


@dataclass(frozen=True, eq=False)
class Measured:
    """A metric on n images, its derivatives by the weight of each image, and its 95 % interval."""

    value: float
    influences: Float64[Tensor, " n"]
    interval: Interval | None


def measure(
    metric: MetricName,
    values: Float[Tensor, "n k"],
    chosen: Shaped[Tensor, "n k"],
    truth: Shaped[Tensor, "n k"],
) -> Measured | None:
    """A metric of predictions; ``None`` if it is undefined.

    Args:
        metric: one of :attr:`Kind.metrics`. A macro metric, ``auc`` or ``mean_average_precision``
            is the mean over the columns in which it is defined; ``f1`` and ``average_precision``
            use the last column.
        values: a score, such as a probability, for each class or label; for regression, the
            numbers.
        chosen: whether each class or label is predicted; ignored for regression.
        truth: whether each image has each class or label; for regression, the true numbers.

    The interval is that of :func:`combine_fractions`; for regression, Student's interval by the
    infinitesimal jackknife (:func:`influence_interval`).
    """
    columns = [slice(column, column + 1) for column in range(truth.shape[1])]
    if metric in ("accuracy", "micro_f1"):
        columns = [slice(None)]
    elif metric in ("f1", "average_precision"):
        columns = columns[-1:]
    found = (
        _measure_columns(metric, values[:, one], chosen[:, one], truth[:, one]) for one in columns
    )
    known = [one for one in found if one is not None]
    if not known:
        return None
    value = sum(one[0] for one in known) / len(known)
    influences = torch.stack([one[1] for one in known]).mean(dim=0)
    is_fraction = Score(metric, value).is_fraction
    return Measured(
        value,
        influences,
        combine_fractions(known) if is_fraction else influence_interval(value, influences),
    )


def _measure_columns(
    metric: MetricName, values: Tensor, chosen: Tensor, truth: Tensor
) -> _Part | None:
    """The metric of some columns, its influences, and its number of images."""
    hits, whole, count = (chosen == truth).all(dim=1), torch.ones(len(truth)), int(truth.sum())
    match metric:
        case "accuracy":
            return (*_divide(hits, whole), len(truth))
        case "mean_absolute_error":
            return (*_divide((values - truth).abs()[:, 0], whole), len(truth))
        case "r2":
            spread = (truth - truth.mean()).square()[:, 0]
            if not (truth != truth[0]).any():
                return None
            rest, influences = _divide((values - truth).square()[:, 0], spread)
            return 1 - rest, -influences, len(truth)
        case "auc":
            count = int(min(truth.sum(), (~truth).sum()))
            return (*roc_auc(values[:, 0], truth[:, 0]), count) if count else None
    if not count:
        return None
    if metric.endswith("average_precision"):
        return (*average_precision(values[:, 0].contiguous(), truth[:, 0].contiguous()), count)
    found = (chosen & truth).sum(dim=1)
    if metric == "balanced_accuracy":
        return (*_divide(found, truth[:, 0]), count)
    return (*_divide(2 * found, chosen.sum(dim=1) + truth.sum(dim=1)), count)  # F1


def _divide(
    parts: Shaped[Tensor, " n"], wholes: Shaped[Tensor, " n"]
) -> tuple[float, Float64[Tensor, " n"]]:
    """The ratio of two sums over images, and its influences."""
    total = wholes.double().sum()
    value = float(parts.double().sum() / total)
    return value, (parts.double() - value * wholes.double()) / total
