"""Metrics by their published formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from lamina.metrics import METRICS, Part
from lamina.training.task import Columns, Truth

CALIBRATION_BINS = 15


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
    fractions = MeanOfFractions()
    total = torch.zeros(len(truth), dtype=torch.float64)
    values: list[float] = []
    counts: list[int] = []
    for place in list_columns(metric, truth):
        part = _measure_part(metric, columns, truth, place)
        if part is None:
            continue
        value, compute_influences, images = part
        influences = compute_influences()
        count = _count_units(images, truth[:, place], groups)
        total += influences
        values.append(value)
        counts.append(count)
        if known.is_fraction:
            fractions.add(value, sum_by_group(influences, groups), count)
    if not values:
        return None
    mean = sum(values) / len(values)
    influences = total / len(values)
    if known.is_fraction:
        interval: Interval | None = fractions.interval()
    else:
        interval = influence_interval(mean, sum_by_group(influences, groups), known.bounds)
    return Measured(mean, influences, interval, 1 / min(counts) / len(counts))


def find_value(
    metric: str, columns: Columns, truth: Truth, places: Sequence[slice] | None = None
) -> float | None:
    """A metric of predictions, or of some of their columns; ``None`` if it is undefined."""
    if places is None:
        places = list_columns(metric, truth)
    parts = [_measure_part(metric, columns, truth, place) for place in places]
    values = [part[0] for part in parts if part is not None]
    return sum(values) / len(values) if values else None


def list_columns(metric: str, truth: Truth) -> list[slice]:
    """The columns of which a metric is the mean."""
    each = [slice(column, column + 1) for column in range(truth.shape[1])]
    return {"all": [slice(None)], "last": each[-1:], "each": each}[METRICS[metric].columns]


def _measure_part(metric: str, columns: Columns, truth: Truth, place: slice) -> Part | None:
    values = getattr(columns, METRICS[metric].values)
    return METRICS[metric].measure(values[:, place], truth[:, place])


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
