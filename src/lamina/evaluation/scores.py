"""Metrics by their published formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from lamina.evaluation.intervals import (
    Groups,
    Interval,
    MeanOfFractions,
    influence_interval,
    sum_by_group,
)
from lamina.metrics import METRICS
from lamina.training.task import Columns, Truth

CALIBRATION_BINS = 15


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


def find_bins(confidence: Float[Tensor, " n"]) -> Groups:
    """The bin of each probability, of 15 equal ones."""
    return (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)


def calibration_error(confidence: Float[Tensor, " n"], is_correct: Bool[Tensor, " n"]) -> float:
    """Mean distance of confidence and accuracy in 15 equal bins (Guo et al., 2017, equation 3)."""
    gaps = sum_by_group(is_correct.double() - confidence.double(), find_bins(confidence))
    return gaps.abs().sum().item() / len(confidence)


def calibration_floor(confidence: Float[Tensor, " n"]) -> float:
    """The calibration error that perfect probabilities have on as many independent images.

    In a bin, the correct images differ from their expected number by a standard deviation times
    √(2/π) on average, if the number is approximately Gaussian.
    """
    variances = sum_by_group((confidence * (1 - confidence)).double(), find_bins(confidence))
    return math.sqrt(2 / math.pi) * variances.sqrt().sum().item() / len(confidence)


def mean_ranks(values: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, " n"]:
    """The rank of each value, from 1 for the lowest; equal values get their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.take(counts.cumsum() - (counts - 1) / 2, places.ravel())


@dataclass(frozen=True, eq=False)
class Measured:
    """A metric on n images, its derivatives by the weight of each image, and its 95 % interval."""

    value: float
    influences: Float64[Tensor, " n"]
    interval: Interval | None
    step: float  # about the largest change that one image, or one group, can cause


def measure(
    metric: str,
    columns: Columns,
    truth: Truth,
    groups: Groups | None = None,
) -> Measured | None:
    """A metric of predictions; ``None`` if it is undefined.

    The interval comes from :class:`MeanOfFractions`; for regression, Student's interval by the
    infinitesimal jackknife (:func:`influence_interval`). It counts groups if there are any.
    """
    known = METRICS[metric]
    values = getattr(columns, known.values)
    slices = [slice(column, column + 1) for column in range(truth.shape[1])]
    if known.columns == "all":
        slices = [slice(None)]
    elif known.columns == "last":
        slices = slices[-1:]
    fractions = MeanOfFractions()
    total = torch.zeros(len(truth), dtype=torch.float64)
    measured: list[float] = []
    counts: list[int] = []
    for place in slices:
        part = known.measure(values[:, place], truth[:, place])
        if part is None:
            continue
        value, influences, images = part
        count = _count_units(images, truth[:, place], groups)
        total += influences
        measured.append(value)
        counts.append(count)
        if known.is_fraction:
            fractions.add(value, sum_by_group(influences, groups), count)
    if not measured:
        return None
    mean = sum(measured) / len(measured)
    influences = total / len(measured)
    if known.is_fraction:
        interval: Interval | None = fractions.interval()
    else:
        interval = influence_interval(mean, sum_by_group(influences, groups), known.bounds)
    return Measured(mean, influences, interval, 1 / min(counts) / len(counts))


def _count_units(count: int, truth: Truth, groups: Groups | None) -> int:
    """The number of images, or of their groups, that a fraction of ``count`` images depends on."""
    if groups is None:
        return count
    are_positive = truth.any(dim=1)
    parts = [groups]
    if count == int(are_positive.sum()):
        parts = [groups[are_positive]]
    elif count < len(truth):
        parts = [groups[are_positive], groups[~are_positive]]
    return min(len(part.unique()) for part in parts)
