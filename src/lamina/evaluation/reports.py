"""What a model is worth on one split, as a frozen value that prints, and is stored as JSON."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from rich.console import Console
from rich.table import Table

from lamina.errors import LaminaError
from lamina.evaluation.intervals import Interval
from lamina.values import fields_to_plain, from_plain


@dataclass(frozen=True, kw_only=True)
class Report(ABC):
    """What every kind of report tells; a figure that these images leave undefined is ``None``.

    Attributes:
        split: the images that were judged: ``train``, ``val`` or ``test``.
        images: how many there were.
        loss: mean loss over them, without label smoothing.
        seconds: how long the judging took.
        views: ways that an image was shown where one was not enough.
        reviewed_images: how many were shown in all of them.
        data_name: the data set, and
        data_fingerprint: its content, where the caller filled them in.
    """

    split: str
    images: int
    loss: float
    seconds: float
    views: int = 1
    reviewed_images: int = 0
    data_name: str | None = None
    data_fingerprint: str | None = None
    kind: ClassVar[str]
    score_name: ClassVar[str]

    @property
    def score(self) -> float:
        """The headline figure, which is the field that ``score_name`` names."""
        score: float = getattr(self, self.score_name)
        return score

    @abstractmethod
    def __str__(self) -> str:
        """A table for people."""

    def _tell_images(self) -> str:
        count = "1 image" if self.images == 1 else f"{self.images:,} images"
        return count if self.views == 1 else f"{count}, {self.reviewed_images:,} of them in {self.views} views"

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"kind": self.kind, **fields_to_plain(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Report:
        """The report that :meth:`to_json` wrote.

        Raises:
            LaminaError: the values are not a report's.
        """
        for kind in (ClassReport, LabelReport, NumberReport):
            if kind.kind == values.get("kind"):
                try:
                    return from_plain(kind, _fill_absent(values), "report")
                except ValueError as error:
                    raise LaminaError(f"This is not a report: {error}. Evaluate the model again.") from error
        raise LaminaError(f"Expected a report of classes, labels or numbers, got {values.get('kind')!r}.")


# What older lamina did not store: of a report, and of each part of it, which stand in a field named as the kind.
_ABSENT_FIELDS: dict[str, dict[str, Any]] = {
    "classes": {"balanced_accuracy": None, "question": None},
    "labels": {"micro_f1": None, "macro_f1": None},
    "numbers": {},
}
_ABSENT_IN_PARTS: dict[str, dict[str, Any]] = {
    "classes": {},
    "labels": {"precision": None, "recall": None, "f1": None},
    "numbers": {"root_mean_squared_error": None, "baseline_error": None},
}


def _fill_absent(values: Mapping[str, Any]) -> dict[str, Any]:
    kind = values["kind"]
    absent = {"views": 1, "reviewed_images": 0} | _ABSENT_FIELDS[kind]
    fields = absent | {name: value for name, value in values.items() if name != "kind"}
    if isinstance(parts := fields.get(kind), list):
        fields[kind] = [_ABSENT_IN_PARTS[kind] | part if isinstance(part, dict) else part for part in parts]
    return fields


@dataclass(frozen=True)
class ClassScores:
    """How well one class is told from the others; fractions from 0 to 1.

    Attributes:
        name: of the class.
        precision: of the images taken for this class, those that are of it; ``None`` where none was.
        recall: of this class's images, those that were found; ``None`` where there are none.
        f1: harmonic mean of both; ``None`` where the class neither is there nor was seen.
        support: images of this class.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class QuestionScores:
    """How well the images that answer a question with yes are put before the others; nothing here needs a threshold.

    Attributes:
        name: the question.
        average_precision: from 0 to 1, the share of yes being what guessing gets; ``None`` where there is no yes.
        roc_auc: how often an image of yes is thought likelier than one of no, from 0 to 1, 0.5 being what guessing
            gets; ``None`` where there is no yes, or no no.
    """

    name: str
    average_precision: float | None
    roc_auc: float | None


@final
@dataclass(frozen=True, kw_only=True)
class ClassReport(Report):
    """The report of a model that gives each image one class, or a yes or no.

    Attributes:
        accuracy: the fraction of images whose most probable class is theirs.
        accuracy_interval: its 95 % interval (Wilson).
        balanced_accuracy: the mean of the classes' recalls, in which each counts alike however many images it has;
            ``None`` in a report of an older lamina.
        calibration_error: mean distance between the probability of the class chosen and how often it is right, over
            15 equal bins (Guo et al., On calibration of modern neural networks, 2017, equation 3).
        classes: the scores of each class.
        confusion: images by class (rows) and by class chosen (columns).
        question: what more there is to tell of a yes or no.
    """

    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float | None
    calibration_error: float
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    question: QuestionScores | None = None
    kind = "classes"
    score_name = "accuracy"

    def most_confused(self, count: int = 5) -> list[tuple[str, str, int]]:
        """The class, what it was taken for, and how many images: the most frequent mistakes, at most ``count``."""
        names = [scores.name for scores in self.classes]
        mistakes = (
            (names[row], names[column], images)
            for row, counts in enumerate(self.confusion)
            for column, images in enumerate(counts)
            if images and row != column
        )
        return heapq.nlargest(count, mistakes, key=lambda mistake: mistake[2])

    def __str__(self) -> str:
        low, high = 100 * self.accuracy_interval.low, 100 * self.accuracy_interval.high
        lines = [
            f"{self.split} accuracy {format_percent(self.accuracy)} "
            f"(95 % interval {low:.1f} – {high:.1f} %, {self._tell_images()})",
            f"balanced accuracy {format_percent(self.balanced_accuracy)}, loss {self.loss:.4f}, "
            f"calibration error {format_percent(self.calibration_error)}",
        ]
        if self.question is not None:
            area = "–" if self.question.roc_auc is None else f"{self.question.roc_auc:.3f}"
            lines.append(
                f"{self.question.name}: average precision {format_percent(self.question.average_precision)}, "
                f"ROC AUC {area}"
            )
        lines += [
            "",
            _format_table(
                ("class", "precision", "recall", "F1", "images"),
                [
                    (
                        scores.name,
                        format_percent(scores.precision),
                        format_percent(scores.recall),
                        format_percent(scores.f1),
                        f"{scores.support:,}",
                    )
                    for scores in self.classes
                ],
            ),
        ]
        if mistakes := self.most_confused():
            support = {scores.name: scores.support for scores in self.classes}
            rows = [
                (truth, chosen, f"{images:,}", format_percent(images / support[truth]))
                for truth, chosen, images in mistakes
            ]
            lines += ["", _format_table(("most confused", "taken for", "images", "of the class"), rows, texts=2)]
        return "\n".join(lines)


@dataclass(frozen=True)
class LabelScores:
    """How well one label is told; fractions from 0 to 1. A label is told where it is likelier than not.

    Attributes:
        name: of the label.
        average_precision: over all thresholds, the label's share of the images being what guessing gets; ``None``
            where no image has the label.
        precision: of the images told to have the label, those that do; ``None`` where none was.
        recall: of the images that have it, those that were told to; ``None`` where none has it.
        f1: harmonic mean of both; ``None`` where the label neither is there nor was told.
        support: images that have the label.
    """

    name: str
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@final
@dataclass(frozen=True, kw_only=True)
class LabelReport(Report):
    """The report of a model that gives each image any number of labels.

    Attributes:
        mean_average_precision: the mean of the labels' average precisions, those without images left out.
        micro_f1: F1 of all answers together, in which frequent labels count most.
        macro_f1: the mean of the labels' F1, in which each counts alike, those without images left out. Both F1 are
            ``None`` in a report of an older lamina.
        labels: the scores of each label.
    """

    mean_average_precision: float
    micro_f1: float | None
    macro_f1: float | None
    labels: tuple[LabelScores, ...]
    kind = "labels"
    score_name = "mean_average_precision"

    def __str__(self) -> str:
        rows = [
            (
                scores.name,
                format_percent(scores.average_precision),
                format_percent(scores.precision),
                format_percent(scores.recall),
                format_percent(scores.f1),
                f"{scores.support:,}",
            )
            for scores in self.labels
        ]
        lines = [
            f"{self.split} mean average precision {format_percent(self.mean_average_precision)} "
            f"({self._tell_images()})",
            f"F1 {format_percent(self.micro_f1)} of all answers, {format_percent(self.macro_f1)} as the mean of the "
            f"labels; loss {self.loss:.4f}",
            "",
            _format_table(("label", "average precision", "precision", "recall", "F1", "images"), rows),
        ]
        if absent := [scores.name for scores in self.labels if not scores.support]:
            lines += ["", f"not judged, as no {self.split} image has them: {', '.join(absent)}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class NumberScores:
    """How near one number is told.

    Attributes:
        name: of the number.
        mean_absolute_error: in the number's own unit.
        baseline_error: the mean absolute error of always telling the mean of the training images: what a model must
            stay below to have learned anything.
        root_mean_squared_error: in the number's own unit; far over the mean absolute error where a few answers are far
            off. Both are ``None`` in a report of an older lamina.
        r2: coefficient of determination, at most 1; 0 is as good as always telling the mean of these images. ``None``
            where the number is the same in every image.
    """

    name: str
    mean_absolute_error: float
    baseline_error: float | None
    root_mean_squared_error: float | None
    r2: float | None


@final
@dataclass(frozen=True, kw_only=True)
class NumberReport(Report):
    """The report of a model that tells numbers.

    Attributes:
        mean_absolute_error: the mean of the numbers' errors, each in its own unit.
        numbers: the scores of each number.
    """

    mean_absolute_error: float
    numbers: tuple[NumberScores, ...]
    kind = "numbers"
    score_name = "mean_absolute_error"

    def __str__(self) -> str:
        rows = [
            (
                scores.name,
                f"{scores.mean_absolute_error:.4g}",
                "–" if scores.baseline_error is None else f"{scores.baseline_error:.4g}",
                "–" if scores.root_mean_squared_error is None else f"{scores.root_mean_squared_error:.4g}",
                "–" if scores.r2 is None else f"{scores.r2:.3f}",
            )
            for scores in self.numbers
        ]
        mean_of = f", the mean of {len(self.numbers)} numbers" if len(self.numbers) > 1 else ""
        return "\n".join(
            [
                f"{self.split} mean absolute error {self.mean_absolute_error:.4g}{mean_of} ({self._tell_images()})",
                f"loss {self.loss:.4f}",
                "",
                _format_table(("number", "mean absolute error", "always the mean", "RMSE", "R²"), rows),
            ]
        )


def format_percent(fraction: float | None) -> str:
    """A fraction as people read it, with one decimal.

    >>> format_percent(0.7552), format_percent(None)
    ('75.5 %', '–')
    """
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def _format_table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Columns as wide as they need be, the first ``texts`` of them to the left and the figures to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A class may be called "[red]" or ":cat:": names are text, never markup.
    console = Console(width=10_000, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))
