"""Reports: a model's metrics on one split; they print, show in notebooks, and convert to JSON."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lamina.errors import LaminaError, plural
from lamina.evaluation.advice import advise, advise_on_classes, find_verdict
from lamina.evaluation.calibration import Rejection
from lamina.evaluation.intervals import Interval
from lamina.evaluation.scores import ClassScores, LabelScores, NumberScores, QuestionScores
from lamina.markup import Markup, card, join, matrix, note, short_table, wrap
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, MetricName, Score
from lamina.text import escape, format_percent, format_table
from lamina.values import fields_to_json, from_json_values

MATRIX_CLASSES = 20  # a notebook shows no confusion matrix for more classes


@dataclass(frozen=True)
class Baseline:
    """The score of a constant prediction on the same images, and the model's gain over it.

    Attributes:
        value: the baseline's score, in the metric of :attr:`Report.score`.
        gain: how much better the model is: the difference of the two scores, positive if the model
            is better.
        gain_interval: 95 % interval of the gain on these images; ``None`` for one image.
    """

    value: float
    gain: float
    gain_interval: Interval | None

    @property
    def is_beaten(self) -> bool:
        """Whether the interval of the gain lies above 0."""
        return self.gain_interval is not None and self.gain_interval.low > 0


@dataclass(frozen=True, kw_only=True, repr=False)
class Report(ABC):
    """Base class of the reports. A metric that is undefined on these images is ``None``.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        images: number of images.
        loss: mean loss, without label smoothing.
        baseline: the score of a constant prediction: the training images' majority class, label
            frequencies or median.
        metrics: custom metrics by name; ``None`` if undefined.
        seconds: duration of the evaluation.
        data_name: name of the data set, if the caller set it.
        data_fingerprint: fingerprint of the data set, if the caller set it.
        chosen_score: the score by ``Recipe.metric``; ``None`` if that is the default for this kind
            of target.
        undefined: the recipe's metric if these images leave it undefined, because all have one
            target; the score is then the default metric.
        score_interval: the 95 % interval of the score on these images
            (:func:`~lamina.evaluation.scores.measure` states how); ``None`` if there is none.
    """

    split: str
    images: int
    loss: float
    seconds: float
    baseline: Baseline
    metrics: dict[str, float | None] = field(default_factory=dict)
    data_name: str | None = None
    data_fingerprint: str | None = None
    chosen_score: Score | None = None
    undefined: MetricName | None = None
    score_interval: Interval | None = None
    _kind: ClassVar[Kind]

    @property
    def kind(self) -> Kind:
        """The kind of targets: single-label, binary, multi-label or regression."""
        return self._kind

    @property
    def score(self) -> Score:
        """The metric of the recipe.

        By default, it is accuracy, mean average precision or mean absolute error.
        """
        default = self.kind.metrics[0]
        return self.chosen_score or Score(default, getattr(self, default))

    def summary_lines(self) -> list[str]:
        """The metrics as lines of text.

        First come an undefined metric, the score and the baseline; last come custom metrics.
        """
        lines = self._metric_lines()
        if self.undefined is not None:
            reason = f"all targets of {self._format_images()} are equal"
            title = Score(self.undefined, 0.0).title
            lines.insert(
                0,
                f"{self.split} {title} is undefined, because {reason}; the score is the"
                f" {self.score.title}",
            )
        return lines + [
            f"{self.split} {name} {_format(value, '.4g')}" for name, value in self.metrics.items()
        ]

    @abstractmethod
    def _metric_lines(self) -> list[str]: ...

    @abstractmethod
    def describe_baseline(self) -> str:
        """The baseline with its prediction, such as ``baseline (always cat)``."""

    @abstractmethod
    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The column heads, and a row for each class, label or number."""

    def advice(self) -> str:
        """What to try if the model does not beat the baseline."""
        return advise(self)

    def format_gain(self, gain: float) -> str:
        """A gain in percentage points; for regression, in the unit of the numbers."""
        return f"{100 * gain:.1f} points" if self.score.is_fraction else f"{gain:.4g}"

    def describe_score(self, mean_of: str = "") -> str:
        """The score with its interval and the number of images."""
        words = f"{self.split} {self.score.title} {self.score.format(self.score.value, 1)}{mean_of}"
        if self.score_interval is None:
            return f"{words} ({self._format_images()})"
        low, high = (
            self.score.format(end, 1) for end in (self.score_interval.low, self.score_interval.high)
        )
        low = low.removesuffix(" %")
        return f"{words} (95 % interval {low} to {high}, {self._format_images()})"

    def _describe_others(
        self, metrics: Mapping[str, float | None], error: float, uncalibrated: float | None
    ) -> str:
        """The metrics that are defined, without the score; the loss, and the calibration error."""
        shown = {
            name: value
            for name, value in metrics.items()
            if name != self.score.title and value is not None
        }
        before = (
            "not calibrated"
            if uncalibrated is None
            else f"{format_percent(uncalibrated)} before calibration"
        )
        if uncalibrated is not None and self.split == "val":
            before += "; the calibration was fitted to these images"
        others = [f"{name} {format_percent(value)}" for name, value in shown.items()]
        return ", ".join(
            [
                *others,
                f"loss {self.loss:.4f}",
                f"calibration error {format_percent(error)} ({before})",
            ]
        )

    def _describe_gain(self) -> str:
        gain, interval = self.baseline.gain, self.baseline.gain_interval
        text = f"gain {self.format_gain(gain)}"
        if interval is None:
            return text
        low, high = (
            self.format_gain(end).removesuffix(" points") for end in (interval.low, interval.high)
        )
        return f"{text} (95 % interval {low} to {high})"

    def _remarks(self) -> str:
        """Text below the table."""
        return ""

    def headline(self) -> dict[str, float]:
        """The default metric and the score, keyed as in a history: ``{"test_accuracy": 0.75}``."""
        default = self.kind.metrics[0]
        both = {default: getattr(self, default), self.score.name: self.score.value}
        return {f"{self.split}_{name}": value for name, value in both.items()}

    def __str__(self) -> str:
        lines = [*find_verdict(self), *self.summary_lines(), "", format_table(*self.table())]
        return "\n".join([*lines, "", remarks] if (remarks := self._remarks()) else lines)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.split} {self.score},"
            f" {plural(self.images, 'image', 'images')})"
        )

    def _repr_html_(self) -> str:
        lines = (wrap("p", line) for line in (*find_verdict(self), *self.summary_lines()))
        return card(repr(self), *lines, short_table(*self.table()), self._show_mistakes())

    def _show_mistakes(self) -> Markup:
        """What a notebook shows below the table: the remarks, or the confusion matrix."""
        return join([note(remarks)] if (remarks := self._remarks()) else [])

    def _format_images(self) -> str:
        return "1 image" if self.images == 1 else f"{self.images:,} images"

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; ``kind`` is the name of :attr:`kind`."""
        return {"kind": self.kind.name, **fields_to_json(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Report:
        """The report from the values of :meth:`to_json`.

        Raises:
            LaminaError: the values are not a report.
        """
        reports: dict[str, type[Report]] = {
            SINGLE_LABEL.name: ClassReport,
            BINARY.name: ClassReport,
            MULTI_LABEL.name: LabelReport,
            REGRESSION.name: NumberReport,
        }
        kind = values.get("kind")
        if kind not in reports:
            raise LaminaError(
                f"The report's kind is {kind!r}; it must be one of {', '.join(reports)}. Evaluate"
                " the model again."
            )
        fields = {name: value for name, value in values.items() if name != "kind"}
        try:
            return from_json_values(reports[kind], fields, "report")
        except ValueError as error:
            raise LaminaError(
                f"The report is damaged: {error}. Evaluate the model again."
            ) from error


@dataclass(frozen=True, kw_only=True, repr=False)
class ClassReport(Report):
    """The report of a single-label or binary model.

    Attributes:
        accuracy: the fraction of images with a correct prediction.
        accuracy_interval: its 95 % interval (Wilson).
        balanced_accuracy: the mean recall of the classes.
        top5_accuracy: the fraction of images whose class is among the five most likely; ``None``
            below ten classes.
        calibration_error: mean difference between the probability of the predicted class and the
            accuracy, over 15 equal bins (Guo et al., On calibration of modern neural networks,
            2017, equation 3).
        uncalibrated_error: the calibration error without the model's temperature; ``None`` if it
            has no temperature.
        rejections: the effect of several confidence thresholds.
        classes: the metrics of each class.
        confusion: number of images by true class (rows) and predicted class (columns).
        majority: the most frequent class of the training images (``no`` or ``yes`` for binary),
            which is the baseline.
        question: more metrics of a binary model; ``None`` for single-label.
    """

    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    calibration_error: float
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    majority: str
    top5_accuracy: float | None = None
    uncalibrated_error: float | None = None
    rejections: tuple[Rejection, ...] = ()
    question: QuestionScores | None = None

    @property
    def kind(self) -> Kind:
        return SINGLE_LABEL if self.question is None else BINARY

    def most_confused(self, count: int = 5) -> list[tuple[str, str, int]]:
        """The most frequent errors: true class, predicted class and number of images."""
        names = [scores.name for scores in self.classes]
        errors = (
            (names[row], names[column], images)
            for row, counts in enumerate(self.confusion)
            for column, images in enumerate(counts)
            if images and row != column
        )
        return heapq.nlargest(count, errors, key=lambda error: error[2])

    def _metric_lines(self) -> list[str]:
        accuracies = {
            "": self.accuracy,
            "top-5 ": self.top5_accuracy,
            "balanced ": self.balanced_accuracy,
        }
        others = {f"{name}accuracy": value for name, value in accuracies.items()}
        lines = [
            self.describe_score(),
            (
                f"{self.describe_baseline()}: {format_percent(self.baseline.value)},"
                f" {self._describe_gain()}"
            ),
            self._describe_others(others, self.calibration_error, self.uncalibrated_error),
        ]
        if self.question is not None:
            lines.append(
                f"{escape(self.question.name)}: average precision"
                f" {format_percent(self.question.average_precision)}, ROC AUC"
                f" {_format(self.question.roc_auc, '.3f')}"
            )
        return lines

    def describe_baseline(self) -> str:
        return f"baseline (always {escape(self.majority)})"

    def advice(self) -> str:
        return advise_on_classes(self)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        rows = [
            (
                each.name,
                *map(format_percent, (each.precision, each.recall, each.f1)),
                f"{each.support:,}",
            )
            for each in self.classes
        ]
        return ("class", "precision", "recall", "F1", "images"), rows

    def _show_mistakes(self) -> Markup:
        if not 1 < len(self.classes) <= MATRIX_CLASSES:
            return join([])
        names = [scores.name for scores in self.classes]
        rows = [
            (name, [(f"{images:,}", images / max(1, sum(counts))) for images in counts])
            for name, counts in zip(names, self.confusion, strict=True)
        ]
        return join(
            [note("rows: true class, columns: predicted class"), matrix(names, rows, "true class")]
        )

    def _remarks(self) -> str:
        support = {scores.name: scores.support for scores in self.classes}
        rows = [
            (truth, predicted, f"{images:,}", format_percent(images / support[truth]))
            for truth, predicted, images in self.most_confused()
        ]
        return (
            format_table(("true class", "predicted", "images", "share of class"), rows, texts=2)
            if rows
            else ""
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class LabelReport(Report):
    """The report of a multi-label model.

    The baseline scores each label with its frequency in the training images.

    Attributes:
        mean_average_precision: the mean over labels; labels without images are left out.
        micro_f1: F1 over all predictions, so frequent labels count most.
        baseline_micro_f1: micro F1 of predicting the labels that more than half of the training
            images have.
        macro_f1: the mean F1 over labels; labels without images are left out.
        calibration_error: mean difference between predicted probability and frequency, over 15
            equal bins of the probabilities of all labels.
        uncalibrated_error: the calibration error without the model's temperatures; ``None`` if it
            has none.
        labels: the metrics of each label.
    """

    mean_average_precision: float
    micro_f1: float
    baseline_micro_f1: float
    macro_f1: float
    calibration_error: float
    labels: tuple[LabelScores, ...]
    uncalibrated_error: float | None = None
    _kind = MULTI_LABEL

    def _metric_lines(self) -> list[str]:
        precision, micro, macro = self.mean_average_precision, self.micro_f1, self.macro_f1
        others = {"mean average precision": precision, "micro F1": micro, "macro F1": macro}
        return [
            self.describe_score(),
            (
                f"{self.describe_baseline()}: {format_percent(self.baseline.value)}, micro F1 "
                f"{format_percent(self.baseline_micro_f1)}, {self._describe_gain()}"
            ),
            self._describe_others(others, self.calibration_error, self.uncalibrated_error),
        ]

    def describe_baseline(self) -> str:
        return "baseline (label frequencies)"

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        rows = [
            (
                each.name,
                *map(
                    format_percent, (each.average_precision, each.precision, each.recall, each.f1)
                ),
                f"{each.support:,}",
            )
            for each in self.labels
        ]
        return ("label", "average precision", "precision", "recall", "F1", "images"), rows

    def _remarks(self) -> str:
        absent = ", ".join(escape(scores.name) for scores in self.labels if not scores.support)
        return f"not evaluated, because no {self.split} image has them: {absent}" if absent else ""


@dataclass(frozen=True, kw_only=True, repr=False)
class NumberReport(Report):
    """The report of a regression model.

    Attributes:
        mean_absolute_error: the mean over all numbers, whose units may differ.
        numbers: the metrics of each number.
    """

    mean_absolute_error: float
    numbers: tuple[NumberScores, ...]
    _kind = REGRESSION

    def _metric_lines(self) -> list[str]:
        mean_of = f", the mean of {len(self.numbers)} numbers" if len(self.numbers) > 1 else ""
        return [
            self.describe_score(mean_of),
            f"{self.describe_baseline()}: {self.baseline.value:.4g}, {self._describe_gain()}",
            f"loss {self.loss:.4f}",
        ]

    def describe_baseline(self) -> str:
        return f"baseline (always the {'medians' if len(self.numbers) > 1 else 'median'})"

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        rows: list[tuple[str, ...]] = [
            (
                each.name,
                f"{each.mean_absolute_error:.4g}",
                f"{each.baseline_error:.4g}",
                f"{each.root_mean_squared_error:.4g}",
                _format(each.r2, ".3f"),
            )
            for each in self.numbers
        ]
        return ("number", "mean absolute error", "baseline error", "RMSE", "R²"), rows


def _format(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)
