"""The metrics of a model on one split: frozen values that print, also in a notebook, and are stored as JSON."""

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
from lamina.markup import Markup, card, join, matrix, note, short_table, wrap
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Score
from lamina.text import escape, format_percent, format_table
from lamina.values import fields_to_json, from_json_values

MATRIX_CLASSES = 20  # that a notebook shows a confusion matrix of


@dataclass(frozen=True)
class Baseline:
    """What always predicting the same reaches on the same images, in the metric of :attr:`Report.score`."""

    value: float
    gain: float  # how much better the model is: by how much its score is higher, or lower if it is an error
    gain_interval: Interval | None  # the 95 % interval of the gain, over the same images; ``None`` for one image

    @property
    def is_beaten(self) -> bool:
        """Whether the model is better by more than chance: its interval lies above 0."""
        return self.gain_interval is not None and self.gain_interval.low > 0


@dataclass(frozen=True, kw_only=True, repr=False)
class Report(ABC):
    """What all kinds of report have; a metric that these images leave undefined is ``None``.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        images: how many there were.
        loss: mean loss over them, without label smoothing.
        baseline: what a constant answer reaches on them: the majority class or the median of the training images, or
            the labels' frequencies.
        metrics: the user's own, by name; ``None`` where one is undefined.
        seconds: how long the evaluation took.
        views: views of an image that were averaged where the model was unsure (:func:`views_of`).
        reviewed_images: images whose views were averaged.
        data_name, data_fingerprint: of the data set, where the caller filled them in.
    """

    split: str
    images: int
    loss: float
    seconds: float
    baseline: Baseline
    metrics: dict[str, float | None] = field(default_factory=dict)
    views: int = 1
    reviewed_images: int = 0
    data_name: str | None = None
    data_fingerprint: str | None = None
    _kind: ClassVar[Kind]

    @property
    def kind(self) -> Kind:
        """The kind of target that the model was evaluated on."""
        return self._kind

    @property
    def score(self) -> Score:
        """The headline figure."""
        return Score(self.kind.score_name, getattr(self, self.kind.score_name), lower_is_better=self.kind is REGRESSION)

    def figures(self) -> list[str]:
        """The metrics in words, the score and the baseline first, the user's own last."""
        own = [f"{self.split} {name} {_format(value, '.4g')}" for name, value in self.metrics.items()]
        return [*self._figures(), *own]

    @abstractmethod
    def _figures(self) -> list[str]:
        """The metrics of lamina's own, in words."""

    @abstractmethod
    def describe_baseline(self) -> str:
        """The baseline in words."""

    @abstractmethod
    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The heads, and a row for each class, label or number."""

    def advice(self) -> str:
        """What to try where the model does not beat the baseline."""
        return advise(self)

    def format_gain(self, gain: float) -> str:
        """A gain with its unit: in points of a percentage, but in the numbers' own unit for regression."""
        return f"{gain:.4g}" if self.score.lower_is_better else f"{100 * gain:.1f} points"

    def _describe_gain(self) -> str:
        gain, interval = self.baseline.gain, self.baseline.gain_interval
        text = f"a gain of {self.format_gain(gain)}"
        if interval is None:
            return text
        low, high = (self.format_gain(end).removesuffix(" points") for end in (interval.low, interval.high))
        return f"{text} (95 % interval {low} to {high})"

    def _remarks(self) -> str:
        """What is printed below the table."""
        return ""

    def headline(self) -> dict[str, float]:
        """The score under the name of its split, as a history's row has it: ``{"test_accuracy": 0.75}``."""
        return {f"{self.split}_{self.score.name}": self.score.value}

    def __str__(self) -> str:
        lines = [*find_verdict(self), *self.figures(), "", format_table(*self.table())]
        return "\n".join([*lines, "", remarks] if (remarks := self._remarks()) else lines)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.split} {self.score}, {plural(self.images, 'image', 'images')})"

    def _repr_html_(self) -> str:
        lines = (wrap("p", line) for line in (*find_verdict(self), *self.figures()))
        return card(repr(self), *lines, short_table(*self.table()), self._show_mistakes())

    def _show_mistakes(self) -> Markup:
        """What a notebook shows below the table."""
        return join([note(remarks)] if (remarks := self._remarks()) else [])

    def _format_images(self) -> str:
        count = "1 image" if self.images == 1 else f"{self.images:,} images"
        return count if self.views == 1 else f"{count}, {self.reviewed_images:,} of them in {self.views} views"

    def to_json(self) -> dict[str, Any]:
        """The report as plain values; ``kind`` is the name of the kind of target."""
        return {"kind": self.kind.name, **fields_to_json(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Report:
        """The report that :meth:`to_json` wrote.

        Raises:
            LaminaError: the values are not a report's.
        """
        reports: dict[str, type[Report]] = {
            SINGLE_LABEL.name: ClassReport,
            BINARY.name: ClassReport,
            MULTI_LABEL.name: LabelReport,
            REGRESSION.name: NumberReport,
        }
        kind = values.get("kind")
        if kind not in reports:
            raise LaminaError(f"Expected a report of kind {', '.join(reports)}, got {kind!r}.")
        fields = {name: value for name, value in values.items() if name != "kind"}
        try:
            return from_json_values(reports[kind], fields, "report")
        except ValueError as error:
            raise LaminaError(f"This is not a report: {error}. Evaluate the model again.") from error


@dataclass(frozen=True)
class ClassScores:
    """The metrics of one class, as fractions from 0 to 1; ``None`` where they are not defined."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int  # images of this class


@dataclass(frozen=True)
class QuestionScores:
    """The metrics of a yes-or-no question that need no threshold; ``None`` where they are not defined."""

    name: str
    average_precision: float | None  # from 0 to 1; guessing gets the fraction of yes
    roc_auc: float | None  # how often an image of yes scores higher than one of no, from 0 to 1; guessing gets 0.5


@dataclass(frozen=True, kw_only=True, repr=False)
class ClassReport(Report):
    """The report of a single-label or binary model.

    Attributes:
        accuracy: the fraction of images whose most likely class is right.
        accuracy_interval: its 95 % interval (Wilson).
        balanced_accuracy: the mean of the classes' recalls, however many images each has.
        calibration_error: mean distance between the probability of the predicted class and how often it is right, over
            15 equal bins (Guo et al., On calibration of modern neural networks, 2017, equation 3).
        uncalibrated_error: the same without the model's temperature; ``None`` if it has none.
        rejections: how many images keep their answer, and how many of these are right, where unsure ones are rejected.
        confusion: images by true class (rows) and predicted class (columns).
        majority: the class that most training images have, of ``no`` and ``yes`` for binary; the baseline's answer.
        question: more metrics of a binary model; ``None`` for single-label.
    """

    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    calibration_error: float
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    majority: str
    uncalibrated_error: float | None = None
    rejections: tuple[Rejection, ...] = ()
    question: QuestionScores | None = None

    @property
    def kind(self) -> Kind:
        return SINGLE_LABEL if self.question is None else BINARY

    def most_confused(self, count: int = 5) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: the true class, the predicted one, and how many images."""
        names = [scores.name for scores in self.classes]
        mistakes = (
            (names[row], names[column], images)
            for row, counts in enumerate(self.confusion)
            for column, images in enumerate(counts)
            if images and row != column
        )
        return heapq.nlargest(count, mistakes, key=lambda mistake: mistake[2])

    def _figures(self) -> list[str]:
        low, high = 100 * self.accuracy_interval.low, 100 * self.accuracy_interval.high
        lines = [
            f"{self.split} accuracy {format_percent(self.accuracy)} "
            f"(95 % interval {low:.1f} to {high:.1f} %, {self._format_images()})",
            f"{self.describe_baseline()}: {format_percent(self.baseline.value)}, {self._describe_gain()}",
            f"balanced accuracy {format_percent(self.balanced_accuracy)}, loss {self.loss:.4f}, "
            f"{_describe_calibration(self, self.calibration_error, self.uncalibrated_error)}",
        ]
        if self.question is not None:
            lines.append(
                f"{escape(self.question.name)}: average precision {format_percent(self.question.average_precision)}, "
                f"ROC AUC {_format(self.question.roc_auc, '.3f')}"
            )
        return lines

    def describe_baseline(self) -> str:
        return f"always answering {escape(self.majority)}"

    def advice(self) -> str:
        return advise_on_classes(self)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        rows = [(each.name, *map(format_percent, (each.precision, each.recall, each.f1)), f"{each.support:,}")
                for each in self.classes]  # fmt: skip
        return ("class", "precision", "recall", "F1", "images"), rows

    def _show_mistakes(self) -> Markup:
        if not 1 < len(self.classes) <= MATRIX_CLASSES:
            return join([])
        names = [scores.name for scores in self.classes]
        rows = [
            (name, [(f"{images:,}", images / max(1, sum(counts))) for images in counts])
            for name, counts in zip(names, self.confusion, strict=True)
        ]
        return join([note("true classes by row, predicted classes by column"), matrix(names, rows, "true class")])

    def _remarks(self) -> str:
        support = {scores.name: scores.support for scores in self.classes}
        rows = [
            (truth, predicted, f"{images:,}", format_percent(images / support[truth]))
            for truth, predicted, images in self.most_confused()
        ]
        return format_table(("true class", "predicted", "images", "share of class"), rows, texts=2) if rows else ""


@dataclass(frozen=True)
class LabelScores:
    """The metrics of one label, as for a class. A label is predicted where it is more likely than not."""

    name: str
    average_precision: float | None  # over all thresholds; guessing gets the fraction of images that have the label
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, kw_only=True, repr=False)
class LabelReport(Report):
    """The report of a multi-label model, whose baseline scores each label with its share of the training images.

    Attributes:
        mean_average_precision: the mean of the labels' average precisions, leaving out labels without images.
        micro_f1: F1 of all answers together, in which frequent labels count most.
        baseline_micro_f1: that of the baseline, which answers the labels of more than half of the training images.
        macro_f1: the mean of the labels' F1, leaving out labels without images.
        calibration_error: mean distance between the probability of a label and how often it is there, over 15 equal
            bins of all labels' answers.
        uncalibrated_error: the same without the model's temperatures; ``None`` if it has none.
    """

    mean_average_precision: float
    micro_f1: float
    baseline_micro_f1: float
    macro_f1: float
    calibration_error: float
    labels: tuple[LabelScores, ...]
    uncalibrated_error: float | None = None
    _kind = MULTI_LABEL

    def _figures(self) -> list[str]:
        return [
            f"{self.split} mean average precision {format_percent(self.mean_average_precision)} "
            f"({self._format_images()})",
            f"{self.describe_baseline()}: {format_percent(self.baseline.value)}, micro F1 "
            f"{format_percent(self.baseline_micro_f1)}, {self._describe_gain()}",
            f"micro F1 {format_percent(self.micro_f1)}, macro F1 {format_percent(self.macro_f1)}, "
            f"loss {self.loss:.4f}, {_describe_calibration(self, self.calibration_error, self.uncalibrated_error)}",
        ]

    def describe_baseline(self) -> str:
        return "answering with the labels' frequencies"

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        rows = [
            (each.name, *map(format_percent, (each.average_precision, each.precision, each.recall, each.f1)),
             f"{each.support:,}") for each in self.labels
        ]  # fmt: skip
        return ("label", "average precision", "precision", "recall", "F1", "images"), rows

    def _remarks(self) -> str:
        absent = ", ".join(escape(scores.name) for scores in self.labels if not scores.support)
        return f"not evaluated, as no {self.split} image has them: {absent}" if absent else ""


@dataclass(frozen=True)
class NumberScores:
    """The metrics of one predicted number, errors in its own unit."""

    name: str
    mean_absolute_error: float
    baseline_error: float  # the mean absolute error of always predicting the median of the training images
    root_mean_squared_error: float
    r2: float | None  # coefficient of determination, at most 1; always predicting the mean of these images gets 0


@dataclass(frozen=True, kw_only=True, repr=False)
class NumberReport(Report):
    """The report of a regression model."""

    mean_absolute_error: float  # the mean of the numbers' errors, each in its own unit
    numbers: tuple[NumberScores, ...]
    _kind = REGRESSION

    def _figures(self) -> list[str]:
        mean_of = f", the mean of {len(self.numbers)} numbers" if len(self.numbers) > 1 else ""
        return [
            f"{self.split} mean absolute error {self.mean_absolute_error:.4g}{mean_of} ({self._format_images()})",
            f"{self.describe_baseline()}: {self.baseline.value:.4g}, {self._describe_gain()}",
            f"loss {self.loss:.4f}",
        ]

    def describe_baseline(self) -> str:
        return f"always answering the {'medians' if len(self.numbers) > 1 else 'median'}"

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        rows: list[tuple[str, ...]] = [
            (each.name, f"{each.mean_absolute_error:.4g}", f"{each.baseline_error:.4g}",
             f"{each.root_mean_squared_error:.4g}", _format(each.r2, ".3f")) for each in self.numbers
        ]  # fmt: skip
        return ("number", "mean absolute error", "error of the median", "RMSE", "R²"), rows


def _describe_calibration(report: Report, error: float, uncalibrated: float | None) -> str:
    before = "not calibrated"
    if uncalibrated is not None:
        before = f"{format_percent(uncalibrated)} before calibration"
        before += ", which is fitted to these images" if report.split == "val" else ""
    return f"calibration error {format_percent(error)} ({before})"


def _format(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)
