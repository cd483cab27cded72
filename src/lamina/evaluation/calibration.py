"""Calibration on ``val``: temperatures, the confidence threshold, prediction sets and prediction intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from lamina.data.splits import Split
from lamina.errors import RunError
from lamina.evaluation.scores import CALIBRATION_BINS
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Targets
from lamina.training.task import Task
from lamina.values import Range, check_fields

LEAST_IMAGES = 50  # to fit a temperature to
LEAST_OF_LABEL = 30  # images with a label, and images without, to fit a temperature for that label
COOLEST, HOTTEST = 0.05, 20.0
BISECTIONS = 40
TIE_MARGIN = 1e-6  # fraction by which predict may round a probability differently, in float32 and seven digits
REJECTION_LIMITS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # confidence thresholds in a report


@dataclass(frozen=True)
class Calibration:
    """The temperatures that divide a model's logits, and the images that they were fitted to.

    Attributes:
        split: the split that the images belong to, normally ``val``.
        images: number of images.
        temperatures: one for all classes, or one per label; above 1 for an overconfident model.
    """

    split: Split
    images: Annotated[int, Range(1)]
    temperatures: tuple[Annotated[float, Range(COOLEST, HOTTEST)], ...]

    def __post_init__(self) -> None:
        check_fields(self, RunError, "calibration: ")


@dataclass(frozen=True)
class Rejection:
    """The effect of a confidence threshold: predictions with a lower probability are rejected.

    Attributes:
        limit: the confidence threshold, from 0 to 1.
        coverage: fraction of the predictions that are kept.
        accuracy: fraction of the kept predictions that are correct; ``None`` if none is kept.
    """

    limit: float
    coverage: float
    accuracy: float | None


def fit_temperatures(task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets) -> tuple[float, ...]:
    """The temperatures with the lowest loss (Guo et al., On calibration of modern neural networks, 2017, 4.2)."""
    if task.kind is REGRESSION or len(logits) < LEAST_IMAGES:
        return ()
    values = torch.from_numpy(logits).double()
    softening = 1 / (len(values) + 2)  # keeps the temperature above 0 if every prediction is correct (Platt, 1999)
    if task.kind is SINGLE_LABEL:
        classes = values.shape[1]
        if classes < 2:
            return ()
        wanted = torch.full_like(values, softening / (classes - 1))
        wanted[torch.arange(len(values)), torch.from_numpy(np.array(targets))] = 1 - softening
        return (_fit(lambda sharpness: float(((values * sharpness).softmax(1) - wanted).mul(values).mean())),)
    truth = torch.from_numpy(np.array(targets)).view(len(values), -1)
    wanted = torch.where(truth, 1 - softening, softening).double()

    def fit(columns: Tensor, goals: Tensor) -> float:
        return _fit(lambda sharpness: float(((columns * sharpness).sigmoid() - goals).mul(columns).mean()))

    counts = truth.sum(0)
    common = fit(values, wanted)
    return tuple(
        fit(values[:, place], wanted[:, place])
        if LEAST_OF_LABEL <= count <= len(values) - LEAST_OF_LABEL and values.shape[1] > 1
        else common
        for place, count in enumerate(counts.tolist())
    )


def _fit(slope: Callable[[float], float]) -> float:
    # The loss is convex in 1 / temperature: bisection finds where its slope is 0.
    low, high = math.log(1 / HOTTEST), math.log(1 / COOLEST)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return float(min(HOTTEST, max(COOLEST, math.exp(-(low + high) / 2))))


def expand_probabilities(task: Task, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n m"]:
    """The probability of each class or label; for binary, of no and of yes; for regression, the numbers."""
    probabilities = task.probabilities(logits)
    return torch.cat([1 - probabilities, probabilities], dim=1) if task.kind is BINARY else probabilities


def judge_predictions(
    task: Task, logits: Float[Tensor, "n k"], targets: Tensor
) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
    """The probability of each prediction, and whether it is correct; for labels, whether the image has each label."""
    probabilities = task.probabilities(logits)
    if task.kind is MULTI_LABEL:
        return probabilities.flatten(), targets.flatten()
    if task.kind is BINARY:
        yes, chosen = probabilities[:, 0], task.decide(logits)[:, 0]
        return torch.where(chosen, yes, 1 - yes), chosen == targets
    confidence, chosen = probabilities.max(dim=1)
    return confidence, chosen == targets


def find_bins(confidence: Float[Tensor, " n"], is_correct: Bool[Tensor, " n"]) -> list[tuple[float, float, int]]:
    """Mean probability, fraction correct and count, for each of 15 equal bins that is not empty."""
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    counts = torch.bincount(bins, minlength=CALIBRATION_BINS)
    sums, correct = (
        torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, bins, values.double())
        for values in (confidence, is_correct)
    )
    return [
        (float(sums[place]) / count, float(correct[place]) / count, count)
        for place, count in enumerate(counts.tolist())
        if count
    ]


def measure_rejection(confidence: Float[Tensor, " n"], is_correct: Bool[Tensor, " n"], limit: float) -> Rejection:
    kept = confidence >= limit
    count = int(kept.sum())
    return Rejection(limit, count / len(kept), float(is_correct[kept].double().mean()) if count else None)


def fit_sets(
    probabilities: Float64[np.ndarray, "n k"], targets: Int64[np.ndarray, " n"], coverage: float
) -> float | None:
    """The lowest probability of a class in a prediction set; ``None`` for too few images."""
    # Sadinle, Lei and Wasserman, Least ambiguous set-valued classifiers with bounded error levels, 2019.
    own = np.sort(probabilities[np.arange(len(targets)), targets])[::-1]
    place = math.ceil((len(own) + 1) * coverage) - 1
    return float(own[place]) * (1 - TIE_MARGIN) if place < len(own) else None


def choose_sets(probabilities: Float64[np.ndarray, "n k"], threshold: float) -> Bool[np.ndarray, "n k"]:
    """The classes in each prediction set: all that reach the threshold, and always the most likely one."""
    chosen = probabilities >= threshold
    chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
    return chosen


def fit_intervals(
    predicted: Float64[np.ndarray, "n k"], targets: Float64[np.ndarray, "n k"], coverage: float
) -> Float64[np.ndarray, " k"]:
    """Half the width of each number's prediction interval (Lei et al., 2018); infinite for too few images."""
    residuals = np.sort(np.abs(predicted - targets), axis=0)
    place = math.ceil((len(residuals) + 1) * coverage) - 1
    return residuals[place] if place < len(residuals) else np.full(residuals.shape[1], np.inf)
