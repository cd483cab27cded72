"""Calibration on ``val``: temperatures and decision thresholds; confidence thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn import functional

from lamina.data.splits import Split
from lamina.errors import RunError, plural, warn
from lamina.evaluation.intervals import (
    ALL,
    Groups,
    Z,
    measure_design_effect,
    wilson_interval,
)
from lamina.evaluation.outputs import Outputs
from lamina.targets import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Targets, kind_of
from lamina.text import escape
from lamina.training.recipe import Aim
from lamina.training.task import Task
from lamina.values import Range, check_fields

LEAST_IMAGES = 50  # to fit a temperature to
LEAST_OF_LABEL = 30  # images with a label, and images without, to fit a temperature for that label
COOLEST = 0.05
HOTTEST = 20.0
BISECTIONS = 40
MINIMA = ("recall", "precision")  # aims that are a minimum
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
        above = f"{escape(self.name)}: above {100 * self.value:.2f} %"
        recall = describe_fraction(self.found, self.positive, self.design_effect)
        precision = describe_fraction(self.found, self.predicted, self.design_effect)
        return f"{above}: recall {recall}, precision {precision}"

    def find_lack(self, aim: Aim) -> str:
        """Why the images do not support the aim, or how many would; empty if they do.

        They support it if the 95 % interval of the recall or precision is not below it.
        """
        images = self.positive
        what = f"images with {escape(self.name)}"
        if aim.name == "precision" and self.positive:
            images = self.predicted
            what = f"images predicted as {escape(self.name)}"
        needed: float = LEAST_OF_LABEL
        if aim.name in MINIMA:
            # Fewer images cannot show the aim, even if all of them are correct (Wilson's interval).
            needed = Z**2 * aim.value / (1 - aim.value)
        needed = math.ceil(needed * self.design_effect)
        if images and not _reaches(aim, self.found, images):
            return (
                f"no threshold reaches {aim} for {escape(self.name)} on these images; 0.5 is used"
            )
        if images < needed:
            return f"{images:,} {what} are too few to support {aim}; about {needed:,} are needed"
        if not _reaches(aim, self.found, images, self.design_effect):
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
        task = task.with_temperatures(self.temperatures)
        if not self.thresholds:
            return task
        values = tuple(threshold.value for threshold in self.thresholds)
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
    has_choice = task.kind is not SINGLE_LABEL or task.outputs > 1
    if task.kind is REGRESSION or len(logits) < LEAST_IMAGES or not has_choice:
        return ()
    values = torch.from_numpy(logits).double()
    truth = torch.from_numpy(np.array(targets)).view(len(values), -1)
    # keeps the temperature above 0 if every prediction is correct (Platt, 1999)
    softening = 1 / (len(values) + 2)
    rest = softening
    if task.kind is SINGLE_LABEL:
        truth = functional.one_hot(truth[:, 0], task.outputs)
        rest = softening / (task.outputs - 1)
    wanted = truth.double() * (1 - softening - rest) + rest
    activate = task.with_temperatures(()).probabilities
    common = _fit_temperature(activate, values, wanted)
    if task.kind is SINGLE_LABEL:
        return (common,)
    temperatures = [common] * task.outputs
    if task.kind is MULTI_LABEL:
        for place, count in enumerate(truth.sum(0).tolist()):
            if LEAST_OF_LABEL <= count <= len(values) - LEAST_OF_LABEL:
                column = slice(place, place + 1)
                temperatures[place] = _fit_temperature(
                    activate, values[:, column], wanted[:, column]
                )
    return tuple(temperatures)


def _fit_temperature(
    activate: Callable[[Tensor], Tensor], values: Float64[Tensor, "n k"], wanted: Tensor
) -> float:
    """The temperature of logits whose probabilities are closest to the wanted ones."""
    # The loss is convex in 1 / temperature: bisection finds where its slope is 0.
    low = math.log(1 / HOTTEST)
    high = math.log(1 / COOLEST)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        errors = activate(values * math.exp(middle)) - wanted
        if float(errors.mul(values).mean()) < 0:
            low = middle
        else:
            high = middle
    return float(min(HOTTEST, max(COOLEST, math.exp(-(low + high) / 2))))


def choose_thresholds(
    task: Task,
    logits: Float32[np.ndarray, "n k"],
    targets: Targets,
    aim: Aim,
    groups: Groups | None = None,
) -> tuple[Threshold, ...]:
    """The decision threshold of each label that achieves the aim, or else 0.5.

    With ``recall``, it is the threshold with the highest precision among those whose recall has a
    95 % interval (Wilson) that is not below the aim. Then new images achieve the aim, too, in at
    least 95 % of such choices. With ``precision``, the two metrics swap roles. If no threshold
    qualifies, the recall or precision on these images decides. If no image has the label, the
    threshold is 0.5.
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
    levels = np.concatenate([[1.0], np.unique(probabilities)[::-1], [0.0]])
    # Predictions cannot distinguish probabilities that rounding makes equal.
    are_apart = -np.diff(levels) > TIE_MARGIN * levels[:-1]
    are_apart[[0, -1]] = True
    values = ((levels[:-1] + levels[1:]) / 2)[are_apart]  # from the highest threshold
    predicted = _count_above(probabilities, values)
    correct = _count_above(probabilities[truth], values)
    positive = int(truth.sum())
    match aim.name:
        case "f1":
            worth = 2 * correct / np.maximum(predicted + positive, 1)
        case "recall":
            worth = correct / np.maximum(predicted, 1)
        case "precision":
            worth = correct / max(positive, 1)
        case "miss":
            worth = -(aim.value * (positive - correct) + (predicted - correct))
    wholes = np.full_like(predicted, positive)
    if aim.name == "precision":
        wholes = predicted
    are_reached = _reaches(aim, correct, wholes)
    value = _find_best(aim, values, worth, are_reached, otherwise=0.5)
    # The design effect is measured at the threshold with which these images reach the aim.
    rounded = probabilities.astype(np.float32)
    above = rounded > np.float32(value)
    rows = truth
    if aim.name == "precision":
        rows = above
    effect = measure_design_effect(above & truth, groups, rows)
    are_shown = _reaches(aim, correct, wholes, effect)
    value = _find_best(aim, values, worth, are_shown, otherwise=value)
    above = rounded > np.float32(value)
    return Threshold(name, value, positive, int(above.sum()), int((above & truth).sum()), effect)


def _count_above(
    probabilities: Float64[np.ndarray, " n"], values: Float64[np.ndarray, " t"]
) -> Int64[np.ndarray, " t"]:
    return len(probabilities) - np.searchsorted(np.sort(probabilities), values, side="right")


def _reaches(aim: Aim, correct: Any, wholes: Any, design_effect: float = 0.0) -> Any:
    """Whether there are images, and the 95 % interval (Wilson) of a minimum is not below the aim.

    Without a design effect, whether the fraction itself is not below it.
    """
    if aim.name not in MINIMA:
        return wholes > 0
    # The interval contains the fractions that the score test does not reject.
    half_width = Z * np.sqrt(design_effect * wholes * aim.value * (1 - aim.value))
    return (wholes > 0) & (correct - aim.value * wholes >= half_width - ROUNDING)


def _find_best(
    aim: Aim,
    values: Float64[np.ndarray, " t"],
    worth: Float64[np.ndarray, " t"],
    are_suitable: Bool[np.ndarray, " t"],
    otherwise: float,
) -> float:
    """The suitable threshold that is worth most."""
    most = worth[are_suitable].max(initial=-np.inf)
    best = values[are_suitable & (worth == most)]
    if not len(best):
        return otherwise
    # Of equally good thresholds, recall takes the one that finds more images; other aims take the
    # one with fewer false alarms.
    if aim.name == "recall":
        return float(best.min())
    return float(best.max())


def describe_hits(
    hits: Bool[np.ndarray, " n"],
    groups: Groups | None,
    rows: Bool[np.ndarray, " n"] | slice = ALL,
) -> str:
    """The fraction of hits in ``rows`` as a percentage with its 95 % interval, by groups."""
    counted = hits[rows]
    effect = measure_design_effect(hits, groups, rows)
    return describe_fraction(int(counted.sum()), len(counted), effect)


def describe_fraction(part: int, whole: int, design_effect: float) -> str:
    """A fraction of images as a percentage with its 95 % interval (Wilson)."""
    if not whole:
        return "–"
    interval = wilson_interval(part, whole, design_effect)
    return (
        f"{100 * part / whole:.1f} % (95 % interval {100 * interval.low:.1f} to"
        f" {100 * interval.high:.1f} %)"
    )


def judge_predictions(
    task: Task, logits: Float[Tensor, "n k"], targets: Tensor
) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
    """The probabilities of predictions or labels, and whether they are correct or present."""
    probabilities = task.expand(task.probabilities(logits))
    if task.kind is MULTI_LABEL:
        return probabilities.flatten(), targets.flatten()
    chosen = task.to_columns(logits).chosen
    return probabilities[chosen], (chosen & task.to_truth(targets)).any(dim=1)


def measure_rejection(
    confidence: Float[Tensor, " n"], is_correct: Bool[Tensor, " n"], limit: float
) -> Rejection:
    is_sure = confidence >= limit
    coverage = float(is_sure.double().mean())
    accuracy = float(is_correct[is_sure].double().mean()) if coverage else None
    return Rejection(limit, coverage, accuracy)
