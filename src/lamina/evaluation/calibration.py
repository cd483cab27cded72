"""Calibration on ``val``: temperatures, confidence threshold, prediction sets and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from lamina.data.splits import Split
from lamina.errors import RunError, plural, warn
from lamina.evaluation.intervals import (
    Groups,
    Z,
    count_independent_hits,
    measure_design_effect,
    wilson_interval,
)
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.scores import CALIBRATION_BINS
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Targets, kind_of
from lamina.text import escape
from lamina.training.recipe import Aim
from lamina.training.task import Task
from lamina.values import Range, check_fields

LEAST_IMAGES = 50  # to fit a temperature to
LEAST_OF_LABEL = 30  # images with a label, and images without, to fit a temperature for that label
COOLEST = 0.05
HOTTEST = 20.0
BISECTIONS = 40
ROUNDING = 1e-9  # of a number of images
# fraction by which predict may round a probability differently, in float32 and seven digits
TIE_MARGIN = 1e-6
REJECTION_LIMITS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # confidence thresholds in a report


@dataclass(frozen=True)
class Threshold:
    """A label (or the yes-or-no question) is predicted if its probability is above ``value``.

    Attributes:
        name: the label or question.
        value: the threshold, from 0 to 1.
        positive: number of images with the label, among those that the threshold was chosen on.
        predicted: number of images above the threshold.
        found: number of images with the label that are above the threshold.
        design_effect: number of these images that count as one, because images of a group are
            alike; 1 if images are not grouped.
    """

    name: str
    value: Annotated[float, Range(0, 1)]
    positive: int
    predicted: int
    found: int
    design_effect: Annotated[float, Range(1)] = 1.0

    def __str__(self) -> str:
        rates = (("recall", self.positive), ("precision", self.predicted))
        independent_hits = self.found / self.design_effect
        shown = ", ".join(
            f"{name} {describe_fraction(independent_hits, count / self.design_effect)}"
            for name, count in rates
        )
        return f"{escape(self.name)}: above {100 * self.value:.2f} %: {shown}"

    def find_lack(self, aim: Aim) -> str:
        """Why the images do not support the aim, or how many would; empty if they do.

        They support it if the 95 % interval of the recall or precision is not below it.
        """
        images = self.positive
        what = f"images with {escape(self.name)}"
        needed = LEAST_OF_LABEL
        if aim.name in ("recall", "precision"):
            # Fewer images cannot show the aim, even if all of them are correct (Wilson's interval).
            needed = math.ceil(Z**2 * aim.value / (1 - aim.value))
        if aim.name == "precision" and self.positive:
            images = self.predicted
            what = f"images predicted as {escape(self.name)}"
        reached = {"recall": self.positive, "precision": self.predicted}.get(aim.name, 0)
        if self.positive and self.found < aim.value * reached - ROUNDING:
            return (
                f"no threshold reaches {aim} for {escape(self.name)} on these images, so it is 0.5"
            )
        needed = math.ceil(needed * self.design_effect)
        independent_hits = self.found / self.design_effect
        if images < needed:
            return f"{images:,} {what} are too few to support {aim}; about {needed:,} are needed"
        if (
            reached
            and wilson_interval(independent_hits, reached / self.design_effect).low < aim.value
        ):
            return f"the {aim.name} of {escape(self.name)} may be below {aim.value:g} on new images"
        return ""


@dataclass(frozen=True)
class Calibration:
    """The temperatures that divide a model's logits, and the images that they were fitted to.

    Attributes:
        split: the split that the images belong to: ``val``, or ``train`` for the out-of-fold
            predictions of a cross-validation.
        images: number of images.
        temperatures: one for all classes, or one per label; above 1 for an overconfident model;
            empty for too few images.
        aim: what the thresholds were chosen for, such as ``recall=0.95``; empty without an aim.
        thresholds: one per label, for yes-or-no and multi-label models with an aim.
    """

    split: Split
    images: Annotated[int, Range(1)]
    temperatures: tuple[Annotated[float, Range(COOLEST, HOTTEST)], ...]
    aim: str = ""
    thresholds: tuple[Threshold, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, RunError, "calibration: ")

    @property
    def source(self) -> str:
        """The images, such as ``800 val images``."""
        out_of_fold = "out-of-fold predictions of " if self.split == "train" else ""
        return f"{out_of_fold}{self.images:,} {self.split} images"

    def check(self, task: Task) -> None:
        """Raise ``ValueError`` unless the task can have these temperatures and thresholds."""
        if task.kind is REGRESSION:
            raise ValueError("regression has no probabilities, so no temperatures")
        expected = 1 if task.kind is SINGLE_LABEL else task.outputs
        is_uncalibrated = bool(self.thresholds) and not self.temperatures
        if len(self.temperatures) != expected and not is_uncalibrated:
            temperatures = plural(expected, "temperature", "temperatures")
            raise ValueError(f"expected {temperatures} for {task.kind}")
        names = tuple(threshold.name for threshold in self.thresholds)
        if self.thresholds and names != task.target_names:
            raise ValueError(f"expected thresholds of {', '.join(task.target_names)}")

    def apply(self, task: Task) -> Task:
        """The task with these temperatures and thresholds."""
        if not self.thresholds:
            return task.with_temperatures(self.temperatures)
        values = tuple(threshold.value for threshold in self.thresholds)
        task = task.with_temperatures(self.temperatures)
        return replace(task, thresholds=values)  # type: ignore[call-arg]


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


def fit_temperatures(
    task: Task, logits: Float32[np.ndarray, "n k"], targets: Targets
) -> tuple[float, ...]:
    """The temperatures with the lowest loss.

    Guo et al., On calibration of modern neural networks, 2017, 4.2.
    """
    if task.kind is REGRESSION or len(logits) < LEAST_IMAGES:
        return ()
    values = torch.from_numpy(logits).double()
    # keeps the temperature above 0 if every prediction is correct (Platt, 1999)
    softening = 1 / (len(values) + 2)
    if task.kind is SINGLE_LABEL:
        classes = values.shape[1]
        if classes < 2:
            return ()
        wanted = torch.full_like(values, softening / (classes - 1))
        wanted[torch.arange(len(values)), torch.from_numpy(np.array(targets))] = 1 - softening

        def find_slope(sharpness: float) -> float:
            errors = (values * sharpness).softmax(1) - wanted
            return float(errors.mul(values).mean())

        return (_fit(find_slope),)
    truth = torch.from_numpy(np.array(targets)).view(len(values), -1)
    wanted = torch.where(truth, 1 - softening, softening).double()

    def fit(columns: Tensor, goals: Tensor) -> float:
        def find_slope(sharpness: float) -> float:
            errors = (columns * sharpness).sigmoid() - goals
            return float(errors.mul(columns).mean())

        return _fit(find_slope)

    temperatures = [fit(values, wanted)] * values.shape[1]
    if len(temperatures) > 1:
        for place, count in enumerate(truth.sum(0).tolist()):
            if LEAST_OF_LABEL <= count <= len(values) - LEAST_OF_LABEL:
                temperatures[place] = fit(values[:, place], wanted[:, place])
    return tuple(temperatures)


def choose_thresholds(
    task: Task,
    logits: Float32[np.ndarray, "n k"],
    targets: Targets,
    aim: Aim,
    groups: Groups | None = None,
) -> tuple[Threshold, ...]:
    """The decision threshold of each label that achieves the aim, or else 0.5.

    With ``recall``, it is the threshold of the highest precision among those whose 95 % interval
    (Wilson) is not below the aim, so that new images achieve it, too, in at least 95 % of such
    choices; and the other way round. If there are none, the fraction on these images decides.
    Without any image with the label, it is 0.5.
    """
    probabilities = task.probabilities(torch.from_numpy(logits).double()).numpy()
    columns = np.asarray(targets).reshape(len(logits), -1)
    return tuple(
        _choose_threshold(name, column, truth, aim, groups)
        for name, column, truth in zip(task.target_names, probabilities.T, columns.T, strict=True)
    )


def calibrate(task: Task, outputs: Outputs, aim: Aim | None) -> Calibration | None:
    """Temperatures, and thresholds if there is an aim, chosen on the outputs for a split.

    ``None`` if there are too few images and no aim; warns if there are too few for the aim.
    """
    logits = outputs.logits
    targets = outputs.targets
    has_labels = task.kind is not MULTI_LABEL or targets.any()
    if kind_of(targets) is not task.kind or not has_labels or not np.isfinite(logits).all():
        return None
    temperatures = fit_temperatures(task, logits, targets)
    if aim is None:
        return Calibration(outputs.split, len(logits), temperatures) if temperatures else None
    calibrated = task.with_temperatures(temperatures)
    thresholds = choose_thresholds(calibrated, logits, targets, aim, outputs.group_numbers)
    for threshold in thresholds:
        if lack := threshold.find_lack(aim):
            warn(f"{lack}.", remedy="Use more images in val (--val, or --folds), or a lower aim")
    return Calibration(outputs.split, len(logits), temperatures, str(aim), thresholds)


def _choose_threshold(
    name: str,
    probabilities: Float64[np.ndarray, " n"],
    truth: Bool[np.ndarray, " n"],
    aim: Aim,
    groups: Groups | None,
) -> Threshold:
    ranked, places = np.unique(-probabilities, return_inverse=True)  # from the highest probability
    # Predictions cannot tell apart what rounding makes equal.
    ties = np.concatenate([[0], (np.diff(ranked) > -TIE_MARGIN * ranked[:-1]).cumsum()])
    places = ties[places]
    predicted = np.concatenate([[0], np.bincount(places).cumsum()])
    correct = np.concatenate([[0], np.bincount(places, truth).cumsum()]).astype(np.int64)
    positive = int(truth.sum())
    wholes = predicted
    if aim.name == "recall":
        wholes = np.full_like(predicted, positive)
    are_reached = (correct >= aim.value * wholes - ROUNDING) & (correct > 0)
    best = _find_best(aim, are_reached, correct, predicted, positive)
    above = places < best if best is not None else probabilities.astype(np.float32) > 0.5
    effect = 1.0
    if groups is not None:
        rows = above if aim.name == "precision" else truth
        are_right = torch.from_numpy((above & truth)[rows])
        effect = measure_design_effect(are_right, groups[torch.from_numpy(rows.copy())])
    are_shown = _find_low_ends(correct, wholes, effect) >= aim.value
    shown = _find_best(aim, are_shown, correct, predicted, positive)
    if shown is not None:
        best = shown
        above = places < shown
    value = 0.5
    if best is not None:
        lowest = -ranked[ties < best][-1] if best else 1.0  # of the images above the threshold
        highest = -ranked[ties == best][0] if best <= ties[-1] else 0.0  # of the others
        value = float((lowest + highest) / 2)
    return Threshold(name, value, positive, int(above.sum()), int((above & truth).sum()), effect)


def _find_best(
    aim: Aim,
    are_reached: Bool[np.ndarray, " t"],
    correct: Int64[np.ndarray, " t"],
    predicted: Int64[np.ndarray, " t"],
    positive: int,
) -> int | None:
    """The place of the best threshold, from the highest; ``None`` if none reaches the aim."""
    match aim.name:
        case "f1":
            worth = 2 * correct / (predicted + positive + (predicted + positive == 0))
        case "recall":
            worth = np.where(are_reached, correct / np.maximum(1, predicted), -np.inf)
        case "precision":
            worth = np.where(are_reached, correct, -np.inf)
        case "miss":
            worth = -(aim.value * (positive - correct) + (predicted - correct))
    # Of equally good thresholds, that with more images found for recall, and with fewer false
    # alarms otherwise.
    best = int(worth.argmax())
    if aim.name == "recall":
        best = len(worth) - 1 - int(worth[::-1].argmax())
    return best if positive and worth[best] > -np.inf else None


def _find_low_ends(
    parts: Int64[np.ndarray, " t"], wholes: Int64[np.ndarray, " t"], design_effect: float
) -> Float64[np.ndarray, " t"]:
    """The low ends of the 95 % intervals of fractions (Wilson), 0 without images."""
    totals = np.maximum(wholes, 1) / design_effect
    fractions = parts / np.maximum(wholes, 1)
    half_widths = Z * np.sqrt(fractions * (1 - fractions) / totals + Z**2 / (4 * totals**2))
    centers = fractions + Z**2 / (2 * totals)
    ends: Float64[np.ndarray, " t"] = (centers - half_widths) / (1 + Z**2 / totals)
    return ends


def describe_hits(hits: Bool[Tensor, " n"], groups: Groups | None) -> str:
    """The fraction of hits as a percentage with its 95 % interval, which counts groups."""
    if not len(hits):
        return describe_fraction(0, 0)
    images = count_independent_hits(hits, groups)
    return describe_fraction(float(hits.double().mean()) * images, images)


def describe_fraction(part: float, whole: float) -> str:
    """A fraction of images as a percentage with its 95 % interval (Wilson)."""
    if not whole:
        return "–"
    interval = wilson_interval(part, whole)
    return (
        f"{100 * part / whole:.1f} % (95 % interval {100 * interval.low:.1f} to"
        f" {100 * interval.high:.1f} %)"
    )


def _fit(slope: Callable[[float], float]) -> float:
    # The loss is convex in 1 / temperature: bisection finds where its slope is 0.
    low = math.log(1 / HOTTEST)
    high = math.log(1 / COOLEST)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return float(min(HOTTEST, max(COOLEST, math.exp(-(low + high) / 2))))


def judge_predictions(
    task: Task, logits: Float[Tensor, "n k"], targets: Tensor
) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
    """The probabilities of predictions or labels, and whether they are correct or present."""
    probabilities = task.expand(task.probabilities(logits))
    if task.kind is MULTI_LABEL:
        return probabilities.flatten(), targets.flatten()
    chosen = task.to_columns(logits).chosen
    return probabilities[chosen], (chosen & task.to_truth(targets)).any(dim=1)


def find_favored(task: Task) -> int:
    """1 (yes) if a threshold below 0.5 predicts yes for images that are more likely no; else -1."""
    return 1 if task.kind is BINARY and task.cutoffs[0] < 0.5 else -1


def keep_favored(
    task: Task, chosen: Int64[Tensor, " n"], confidence: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The confidences to compare with the threshold: 1 for the favored class, never rejected."""
    return confidence.masked_fill(chosen == find_favored(task), 1.0)


def find_bins(
    confidence: Float[Tensor, " n"], is_correct: Bool[Tensor, " n"]
) -> list[tuple[float, float, int]]:
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


def measure_rejection(
    confidence: Float[Tensor, " n"], is_correct: Bool[Tensor, " n"], limit: float
) -> Rejection:
    is_sure = confidence >= limit
    coverage = float(is_sure.double().mean())
    accuracy = float(is_correct[is_sure].double().mean()) if coverage else None
    return Rejection(limit, coverage, accuracy)


def fit_sets(
    probabilities: Float64[np.ndarray, "n k"], targets: Int64[np.ndarray, " n"], coverage: float
) -> float | None:
    """The lowest probability of a class in a prediction set; ``None`` for too few images."""
    # Sadinle, Lei and Wasserman, Least ambiguous set-valued classifiers with bounded error levels,
    # 2019.
    ranked = np.sort(probabilities[np.arange(len(targets)), targets])[::-1]
    place = math.ceil((len(ranked) + 1) * coverage) - 1
    if place >= len(ranked):
        return None
    return float(ranked[place]) * (1 - TIE_MARGIN)


def choose_sets(
    probabilities: Float64[np.ndarray, "n k"], threshold: float
) -> Bool[np.ndarray, "n k"]:
    """The classes of each prediction set: all that reach the threshold, and the most likely one."""
    chosen = probabilities >= threshold
    chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
    return chosen


def fit_intervals(
    predicted: Float64[np.ndarray, "n k"], targets: Float64[np.ndarray, "n k"], coverage: float
) -> Float64[np.ndarray, " k"]:
    """Half-width of each prediction interval (Lei et al., 2018); infinite for too few images."""
    residuals = np.sort(np.abs(predicted - targets), axis=0)
    place = math.ceil((len(residuals) + 1) * coverage) - 1
    half_widths: Float64[np.ndarray, " k"] = np.full(residuals.shape[1], np.inf)
    if place < len(residuals):
        half_widths = residuals[place]
    return half_widths
