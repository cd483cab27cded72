"""Reports: a model's metrics on one split; they print, show in notebooks, and convert to JSON."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lamina.errors import LaminaError, plural
from lamina.evaluation import words
from lamina.evaluation.calibration import Rejection
from lamina.evaluation.intervals import Interval
from lamina.evaluation.scores import ClassScores, LabelScores, NumberScores, QuestionScores
from lamina.metrics import Constant
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Score
from lamina.values import fields_to_json, from_json_values


@dataclass(frozen=True)
class Baseline:
    """The score of a constant prediction on the same images, and the model's gain over it.

    Attributes:
        constant: what it predicts, from the training images: ``majority``, the most frequent class;
            ``positive``, yes or every label; ``frequencies``, the frequency of each label;
            ``frequent``, the labels with the highest micro F1; ``medians`` or ``means``.
        value: the baseline's score, in the metric of :attr:`Report.score`.
        gain: how much better the model is: the difference of the two scores, positive if the model
            is better.
        gain_interval: 95 % interval of the gain on these images; ``None`` for one image.
    """

    constant: Constant
    value: float
    gain: float
    gain_interval: Interval | None

    @property
    def is_beaten(self) -> bool:
        """Whether the interval of the gain lies above 0."""
        return self.gain_interval is not None and self.gain_interval.low > 0


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """Base class of the reports. A metric that is undefined on these images is ``None``.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        images: number of images.
        groups: number of groups of images, which the intervals count; ``None`` if images are not
            grouped.
        loss: mean loss, without label smoothing.
        baseline: the score of the constant prediction that is best for this metric; ``None`` if the
            score is a custom metric.
        metrics: custom metrics by name; ``None`` if undefined.
        seconds: duration of the evaluation.
        data_name: name of the data set, if the caller set it.
        data_fingerprint: fingerprint of the data set, if the caller set it.
        chosen_score: the score by ``Recipe.metric``; ``None`` if that is the default for this kind
            of target.
        undefined: the recipe's metric if it is undefined on these images, because all have the same
            target, or if it is a custom metric that was not passed; the score is then the default
            metric.
        score_interval: the 95 % interval of the score on these images, by the method of
            :func:`~lamina.evaluation.scores.measure`; ``None`` if there is none, as for custom
            metrics.
    """

    split: str
    images: int
    loss: float
    seconds: float
    baseline: Baseline | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    data_name: str | None = None
    data_fingerprint: str | None = None
    chosen_score: Score | None = None
    undefined: str | None = None
    score_interval: Interval | None = None
    groups: int | None = None
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

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The column headings, and a row for each class, label or number."""
        return words.tabulate(self)

    def headline(self) -> dict[str, float]:
        """The default metric and the score, keyed as in a history: ``{"test_accuracy": 0.75}``."""
        default = self.kind.metrics[0]
        both = {default: getattr(self, default), self.score.name: self.score.value}
        return {f"{self.split}_{name}": value for name, value in both.items()}

    def __str__(self) -> str:
        return words.describe(self)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.split} {self.score},"
            f" {plural(self.images, 'image', 'images')})"
        )

    def _repr_html_(self) -> str:
        return words.to_html(self)

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
        fields = dict(values)
        kind = fields.pop("kind", None)
        if kind not in reports:
            raise LaminaError(
                f"The report's kind is {kind!r}; it must be one of {', '.join(reports)}. Evaluate"
                " the model again."
            )
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
        balanced_accuracy: the mean recall of the classes.
        top5_accuracy: the fraction of images whose class is among the five most likely; ``None``
            below ten classes.
        calibration_error: mean difference between the probability of the predicted class and the
            accuracy, over 15 equal bins (Guo et al., On calibration of modern neural networks,
            2017, equation 3).
        uncalibrated_error: the calibration error without the model's temperature; ``None`` if it
            has no temperature.
        calibration_floor: the calibration error of perfect probabilities on as many images.
        rejections: the effect of several confidence thresholds.
        classes: the metrics of each class.
        confusion: number of images by true class (rows) and predicted class (columns).
        majority: the most frequent class of the training images (``no`` or ``yes`` for binary).
        question: more metrics of a binary model; ``None`` for single-label.
    """

    accuracy: float
    balanced_accuracy: float
    calibration_error: float
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    majority: str
    top5_accuracy: float | None = None
    uncalibrated_error: float | None = None
    calibration_floor: float = 0.0
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


@dataclass(frozen=True, kw_only=True, repr=False)
class LabelReport(Report):
    """The report of a multi-label model.

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
        calibration_floor: the calibration error of perfect probabilities on as many images.
        labels: the metrics of each label.
    """

    mean_average_precision: float
    micro_f1: float
    baseline_micro_f1: float
    macro_f1: float
    calibration_error: float
    labels: tuple[LabelScores, ...]
    uncalibrated_error: float | None = None
    calibration_floor: float = 0.0
    _kind = MULTI_LABEL


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
