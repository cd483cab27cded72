"""``Report``: a model's metrics on one split; it prints, shows in notebooks, converts to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lamina.errors import LaminaError, name_some, plural
from lamina.evaluation.calibration import Rejection
from lamina.evaluation.intervals import Interval
from lamina.markup import Markup, Table, matrix, note
from lamina.metrics import METRICS, Constant
from lamina.shown import Shown
from lamina.targets import KindName, Score, find_kind
from lamina.text import format_percent
from lamina.values import from_json_values

MATRIX_CLASSES = 20  # a notebook shows no confusion matrix for more classes
MAJORITY_FRACTION = 0.9  # of the images in one class: accuracy is misleading
SAME_CLASS_FRACTION = 0.95  # of the predictions: the model has hardly started to learn
NAMED_LABELS = 9
NOUNS = {"multi-label": "label", "regression": "number"}


@dataclass(frozen=True)
class Baseline:
    """The score of a constant prediction on the same images, and the model's gain over it.

    Attributes:
        constant: what it predicts, from the training images: ``majority``, the most frequent class;
            ``positive``, yes or every label; ``frequencies``, the frequency of each label;
            ``frequent``, the labels with the highest micro F1; ``medians`` or ``means``.
        prediction: the same in words, such as ``always cat``.
        value: the baseline's score, in the metric of :attr:`Report.score`.
        gain: how much better the model is: the difference of the two scores, positive if the model
            is better.
        gain_interval: 95 % interval of the gain on these images; ``None`` for one image.
    """

    constant: Constant
    prediction: str
    value: float
    gain: float
    gain_interval: Interval | None

    @property
    def is_beaten(self) -> bool:
        """Whether the interval of the gain lies above 0."""
        return self.gain_interval is not None and self.gain_interval.low > 0


@dataclass(frozen=True)
class Row:
    """A class, label or number.

    Attributes:
        name: the class, ``no`` or ``yes``, the label or the number.
        images: number of images that have it.
        metrics: the metrics by name; ``None`` if undefined.
    """

    name: str
    images: int
    metrics: dict[str, float | None]


@dataclass(frozen=True, kw_only=True, repr=False)
class Report(Shown):
    """The metrics of a model on one split. A metric that is undefined there is ``None``.

    Attributes:
        kind: the kind of target: ``single-label``, ``binary``, ``multi-label`` or ``regression``.
        split: ``train``, ``val`` or ``test``.
        images: number of images.
        groups: number of groups of images, which the intervals count; ``None`` if images are not
            grouped.
        score: the metric of the recipe; by default, accuracy, mean average precision or mean
            absolute error.
        score_interval: the 95 % interval of the score on these images; ``None`` if there is none,
            as for custom metrics.
        undefined: the recipe's metric if it is undefined on these images, because all have the same
            target, or if it is a custom metric that was not passed; the score is then the default
            metric.
        baseline: the score of the constant prediction that is best for this metric; ``None`` if the
            score is a custom metric.
        loss: mean loss, without label smoothing.
        metrics: the other metrics by name: those of :data:`~lamina.metrics.METRICS` that are
            reported for this kind of target, then custom metrics.
        rows: the metrics of each class, label or number.
        errors: incorrect predictions of single-label and binary models: the place in ``rows`` of
            the true class and of the predicted class, and the number of images, the most frequent
            first.
        calibration_error: mean difference between the probability of the predicted class and the
            accuracy (for labels, between probability and frequency), over 15 equal bins (Guo et
            al., On calibration of modern neural networks, 2017, equation 3); ``None`` for
            regression.
        uncalibrated_error: the calibration error without the model's temperatures; ``None`` if it
            has none.
        calibration_floor: the calibration error of perfect probabilities on as many images.
        rejections: the effect of several confidence thresholds.
        seconds: duration of the evaluation.
        data_name: name of the data set, if the caller set it.
        data_fingerprint: fingerprint of the data set, if the caller set it.
    """

    printed_rows: ClassVar[int] = 50
    kind: KindName
    split: str
    images: int
    groups: int | None = None
    score: Score
    score_interval: Interval | None = None
    undefined: str | None = None
    baseline: Baseline | None = None
    loss: float
    metrics: dict[str, float | None]
    rows: tuple[Row, ...]
    errors: tuple[tuple[int, int, int], ...] = ()
    calibration_error: float | None = None
    uncalibrated_error: float | None = None
    calibration_floor: float = 0.0
    rejections: tuple[Rejection, ...] = ()
    seconds: float
    data_name: str | None = None
    data_fingerprint: str | None = None

    def headline(self) -> str:
        """The score with its interval and the number of images."""
        score = self.score
        words = f"{self.split} {score.title} {score.format(score.value, 1)}"
        if self.kind == "regression" and len(self.rows) > 1 and self.baseline is not None:
            words += f", the mean of {len(self.rows)} numbers"
        images = count_images(self.images, self.groups)
        if self.score_interval is None:
            return f"{words} ({images})"
        low = score.format(self.score_interval.low, 1).removesuffix(" %")
        high = score.format(self.score_interval.high, 1)
        return f"{words} (95 % interval {low} to {high}, {images})"

    def lines(self) -> list[str]:
        """A verdict and advice if the model does not beat the baseline; then the metrics."""
        warnings = [] if self.is_better else self.verdict()
        return [*warnings, *self.details()]

    @property
    def is_better(self) -> bool:
        """Whether the model beats the baseline, or there is none."""
        return self.baseline is None or self.baseline.is_beaten

    def verdict(self) -> list[str]:
        """Whether the model beats the baseline; if it does not, what to do."""
        if self.baseline is None:
            return ["There is no baseline, because the score is your own metric."]
        baseline = f"the baseline ({self.baseline.prediction})"
        if self.is_better:
            return [f"The model is better than {baseline}."]
        interval = self.baseline.gain_interval
        if interval is not None and interval.high < 0:
            return [f"The model is worse than {baseline}.", self._advise(self.baseline.gain)]
        verdict = f"The model is not measurably better than {baseline}."
        return [verdict, self._advise(self.baseline.gain)]

    def _advise(self, gain: float) -> str:
        steps = "Train for more steps (more epochs or smaller batches)"
        if self.kind in ("single-label", "binary"):
            largest = max(self.rows, key=lambda row: row.images)
            share = largest.images / self.images
            if share == 1:
                return f"All images are {largest.name}. Evaluate on other classes too."
            if share >= MAJORITY_FRACTION and self.score.name == "accuracy":
                return (
                    f"{format_percent(share)} of the images are {largest.name}, so accuracy is"
                    " misleading. To raise the balanced accuracy, train with class_weights; set"
                    " metric to balanced_accuracy to score by it."
                )
            counts = [sum(column) for column in zip(*self.confusion(), strict=True)]
            if gain <= 0 and max(counts) >= SAME_CLASS_FRACTION * self.images:
                return (
                    f"The model predicts {self.rows[counts.index(max(counts))].name} for"
                    f" {format_percent(max(counts) / self.images)} of the images: it has hardly"
                    f" started to learn. {steps}."
                )
        if gain > 0:
            images = count_images(self.images, self.groups)
            return (
                f"On {images}, a gain of {format_gain(self.score, gain)} may be due to chance."
                " Evaluate on more images, or train longer or on more images."
            )
        return f"{steps} or on more images, and check that the targets are correct."

    def details(self) -> list[str]:
        """Lines with an undefined metric, the gain over the baseline, and the other metrics."""
        lines = [] if self.undefined is None else [self.describe_undefined()]
        if self.baseline is None:
            lines.append("no baseline, because the score is your own metric")
        else:
            lines.append(self._describe_gain(self.baseline))
        parts = []
        for name, value in self.metrics.items():
            if name != self.score.name and value is not None:
                score = Score(name, value)
                parts.append(f"{score.title} {score.format(value, 1)}")
        parts.append(f"loss {self.loss:.4f}")
        if self.calibration_error is not None:
            parts.append(self._describe_calibration(self.calibration_error))
        return [*lines, ", ".join(parts)]

    def describe_undefined(self) -> str:
        """Why the score is not the metric of the recipe."""
        name = self.undefined or ""
        reason = f"all targets of {plural(self.images, 'image', 'images')} are equal"
        if name not in METRICS:
            reason = "it is your own metric and its function was not passed"
        title = Score(name, 0.0).title
        instead = self.score.title
        return f"{self.split} {title} is undefined, because {reason}; the score is the {instead}"

    def _describe_gain(self, baseline: Baseline) -> str:
        value = self.score.format(baseline.value, 1)
        gain = format_gain(self.score, baseline.gain)
        text = f"baseline ({baseline.prediction}): {value}, gain {gain}"
        if baseline.gain_interval is None:
            return text
        low = format_gain(self.score, baseline.gain_interval.low).removesuffix(" points")
        high = format_gain(self.score, baseline.gain_interval.high).removesuffix(" points")
        return f"{text} (95 % interval {low} to {high})"

    def _describe_calibration(self, error: float) -> str:
        before = "not calibrated"
        if self.uncalibrated_error is not None:
            before = f"{format_percent(self.uncalibrated_error)} before calibration"
            if self.split == "val":
                before += "; the calibration was fitted to these images"
        floor = f"perfect probabilities: {format_percent(self.calibration_floor)}"
        return f"calibration error {format_percent(error)} ({floor}; {before})"

    def table(self) -> Table:
        """The column heads, and a row for each class, label or number."""
        names = list(self.rows[0].metrics)
        heads = [Score(name, 0.0).title for name in names]
        rows = []
        for row in self.rows:
            cells = [Score(name, 0.0).format(row.metrics[name], 1) for name in names]
            rows.append((row.name, *cells, f"{row.images:,}"))
        return (NOUNS.get(self.kind, "class"), *heads, "images"), rows

    def remarks(self) -> list[str]:
        """The most frequent errors, or the labels that no image has."""
        absent = [row.name for row in self.rows if not row.images]
        if self.kind == "multi-label" and absent:
            names = name_some(absent, NAMED_LABELS)
            return [f"not evaluated, because no {self.split} image has them: {names}"]
        return [
            f"{true} is predicted as {predicted}: {plural(images, 'image', 'images')}"
            for true, predicted, images in self.most_confused()
        ]

    def most_confused(self, count: int = 5) -> list[tuple[str, str, int]]:
        """The most frequent errors: true class, predicted class and number of images."""
        return [
            (self.rows[true].name, self.rows[predicted].name, images)
            for true, predicted, images in self.errors[:count]
        ]

    def confusion(self) -> list[list[int]]:
        """The number of images by true class (rows) and predicted class (columns)."""
        table = [[0] * len(self.rows) for _ in self.rows]
        for place, row in enumerate(self.rows):
            table[place][place] = row.images
        for true, predicted, images in self.errors:
            table[true][predicted] = images
            table[true][true] -= images
        return table

    def figures(self) -> Sequence[Markup]:
        """The confusion matrix."""
        has_classes = self.kind in ("single-label", "binary")
        if not has_classes or not 1 < len(self.rows) <= MATRIX_CLASSES:
            return ()
        rows = [
            (row.name, [(f"{images:,}", images / max(1, row.images)) for images in counts])
            for row, counts in zip(self.rows, self.confusion(), strict=True)
        ]
        heading = note("rows: true class, columns: predicted class")
        return heading, matrix([row.name for row in self.rows], rows, "true class")

    def values(self) -> dict[str, float]:
        """The default metric and the score, keyed as in a history: ``{"test_accuracy": 0.75}``."""
        default = find_kind(self.kind).metrics[0]
        value = self.metrics[default]
        both = {} if value is None else {default: value}
        both[self.score.name] = self.score.value
        return {f"{self.split}_{name}": value for name, value in both.items()}

    def __repr__(self) -> str:
        return f"Report({self.split} {self.score}, {plural(self.images, 'image', 'images')})"

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Report:
        """The report from the values of :meth:`to_json`.

        Raises:
            LaminaError: the values are not a report.
        """
        try:
            return from_json_values(Report, values, "report")
        except ValueError as error:
            raise LaminaError(
                f"The report is damaged: {error}. Evaluate the model again."
            ) from error


def count_images(images: int, groups: int | None) -> str:
    """The number of images and, if there are any, of their groups."""
    count = plural(images, "image", "images")
    return count if groups is None else f"{count} in {plural(groups, 'group', 'groups')}"


def format_gain(score: Score, gain: float, decimals: int = 1) -> str:
    """A gain in percentage points; for regression, in the unit of the numbers."""
    return f"{100 * gain:.{decimals}f} points" if score.is_fraction else f"{gain:.4g}"


def describe_deviation(score: Score, deviation: float | None) -> str:
    """The standard deviation over seeds, excluding variation due to images, to follow a mean."""
    if deviation is None:
        return ""
    if deviation == 0:
        return " (standard deviation over seeds too small to measure with these images)"
    return f" (standard deviation over seeds {format_gain(score, deviation, 2)})"
