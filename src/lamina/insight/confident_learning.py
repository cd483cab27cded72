"""Label issues by confident learning (Northcutt, Jiang and Chuang, 2021, arXiv 1911.00068).

Confident learning estimates how many labels of each class are incorrect, from the probabilities of
nets that were not trained on the images, and selects that number of labels, the least probable
first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Int64

from lamina.data import Images
from lamina.data.corrections import COLUMNS
from lamina.data.splits import Split
from lamina.errors import DataError, plural
from lamina.insight.problems import Indices, Problem, Values, split_problems
from lamina.markup import Table
from lamina.shown import Shown
from lamina.targets import REGRESSION, SINGLE_LABEL, Kind
from lamina.text import format_percent

Joint: TypeAlias = Int64[np.ndarray, "k k"]  # images by label and true class
Rows: TypeAlias = Int64[np.ndarray, " m"]
TOLERANCE = 1e-6  # of thresholds, so that rounding decides nothing
PRECISION = (
    "Look at each image before you correct its label. In lamina's benchmark, 8 to 30 % of the"
    " listed labels were incorrect if 5 % of all labels were, and 57 to 74 % if 20 % were."
)


def count_confident(probabilities: Values, labels: Indices) -> Joint:
    """Count the images by label (row) and confident class (column): equations 1 and 2."""
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    of_labels = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, of_labels, minlength=classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    are_confident = probabilities >= thresholds - TOLERANCE
    are_several = are_confident.sum(axis=1) > 1
    confident = np.where(are_several, probabilities.argmax(axis=1), are_confident.argmax(axis=1))
    joint = np.zeros((classes, classes), np.int64)
    are_counted = are_confident.any(axis=1)
    np.add.at(joint, (labels[are_counted], confident[are_counted]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    return joint


def estimate_joint(probabilities: Values, labels: Indices) -> Joint:
    """Estimate the number of images by label (row) and true class (column): equation 3."""
    joint = count_confident(probabilities, labels)
    counts = np.bincount(labels, minlength=len(joint))
    scaled = joint / joint.sum(axis=1, keepdims=True) * counts[:, None]
    # Rounding up the largest remainders of each row keeps its sum.
    rounded = np.floor(scaled)
    missing = np.round(counts - rounded.sum(axis=1)).astype(np.int64)
    ranks = np.argsort(np.argsort(scaled - rounded, axis=1, kind="stable"), axis=1)
    return np.asarray(rounded + (ranks >= len(joint) - missing[:, None]), np.int64)


def select_by_confident_learning(
    probabilities: Values,
    labels: Indices,
    joint: Joint | None = None,
) -> Rows:
    """The rows with label issues by "prune by noise rate" (section 3.2, method 4), likeliest first.

    For each pair of a label and another class, this selects as many images as ``joint`` counts
    (:func:`estimate_joint`): the images with the largest difference of the two probabilities. It
    never selects the only image of a class.
    """
    if joint is None:
        joint = estimate_joint(probabilities, labels)
    are_selected = np.zeros(len(labels), bool)
    for label in np.flatnonzero(joint.sum(axis=1) > 1):
        rows = np.flatnonzero(labels == label)
        for other in np.flatnonzero(joint[label]):
            if other == label:
                continue
            margins = probabilities[rows, other] - probabilities[rows, label]
            order = np.argsort(-margins, kind="stable")
            are_selected[rows[order[: joint[label, other]]]] = True
    return _rank(probabilities, labels, are_selected)


def find_disagreements(probabilities: Values, labels: Indices) -> Rows:
    """All rows whose likeliest class is not the label: a baseline for confident learning."""
    return _rank(probabilities, labels, np.ones(len(labels), bool))


def _rank(probabilities: Values, labels: Indices, candidates: Bool[np.ndarray, " n"]) -> Rows:
    """The candidates with a likelier class than their label, by descending difference."""
    of_labels = probabilities[np.arange(len(labels)), labels]
    margins = probabilities.max(axis=1) - of_labels
    rows = np.flatnonzero(candidates & (margins > TOLERANCE))
    return rows[np.argsort(-margins[rows], kind="stable")]


@dataclass(frozen=True)
class LabelIssue:
    """A label worth checking, with the probabilities of the given and the likely label.

    Attributes:
        image: the name of the image.
        split: the split of the image.
        row: the row of the image in the split.
        column: the column of the label for multi-label targets, else 0.
        given: the label in the data set.
        likely: the label that is more probable.
        given_probability: the probability of ``given``, from 0 to 1.
        likely_probability: the probability of ``likely``.
    """

    image: str
    split: Split
    row: int
    column: int
    given: str
    likely: str
    given_probability: float
    likely_probability: float

    @property
    def score(self) -> float:
        """``(1 + likely_probability - given_probability) / 2``, from 0.5 to 1."""
        return round((1 + self.likely_probability - self.given_probability) / 2, 4)

    def values(self) -> tuple[str, str, str, str, float]:
        """The first columns of ``lamina.data.corrections``."""
        return self.image, self.split, self.given, self.likely, self.score

    def explain(self, who: str) -> str:
        """The reason, as text; ``who`` predicted the probabilities."""
        return (
            f"{who}: {100 * self.likely_probability:.1f} % {self.likely}, "
            f"{100 * self.given_probability:.1f} % {self.given}"
        )


class Agreement(NamedTuple):
    """How often the given label is the net's most probable class."""

    # mean over the classes; for multi-label and binary targets, over yes and no of each label
    value: float
    guessed: float  # the value of a net that guesses

    @property
    def is_weak(self) -> bool:
        """Whether the agreement is closer to guessing than to 1."""
        return self.value < (1 + self.guessed) / 2


class SplitLabels(NamedTuple):
    """How the probabilities of a split's images agree with its labels."""

    labels: int  # of all images
    disagreements: int  # labels that are not the most probable class
    agreement: Agreement


@dataclass(frozen=True, eq=False)
class LabelIssues(Shown):
    """The labels of a data set that are worth checking, and how far to trust this list.

    Attributes:
        issues: the labels, the most probably incorrect ones first.
        splits: how often the nets agree with the labels, by split.
        judge: who predicted the probabilities: ``the model``, or nets that were trained on other
            images.
        images: the images by split.
    """

    texts: ClassVar[int] = 4
    issues: tuple[LabelIssue, ...]
    splits: Mapping[Split, SplitLabels]
    judge: str
    images: Mapping[Split, Images] = field(repr=False)

    def headline(self) -> str:
        """The number of labels worth checking, as text."""
        return plural(len(self.issues), "label", "labels") + " worth checking"

    def table(self) -> Table:
        """The column heads, and a row for each label issue; the first four columns are text."""
        return COLUMNS[:5], [row[:5] for row in self.corrections()]

    def remarks(self) -> Sequence[str]:
        """The number of label issues in each split, and how far to trust this list."""
        return (*self.summary_lines(), *self.warnings(), PRECISION)

    def corrections(self) -> Sequence[Sequence[str]]:
        """The rows of the table of corrections; the columns are in ``lamina.data.corrections``."""
        rows = []
        for issue in self.issues:
            *texts, score = issue.values()
            rows.append((*texts, f"{score:.4f}", issue.explain(self.judge), ""))
        return rows

    def to_json(self) -> dict[str, Any]:
        """JSON values: ``label_issues``, and the ``agreement`` by split."""
        issues = [dict(zip(COLUMNS, issue.values(), strict=False)) for issue in self.issues]
        agreement = {split: judged.agreement.value for split, judged in self.splits.items()}
        return {"label_issues": issues, "agreement": agreement}

    def summary_lines(self) -> list[str]:
        """How many labels of each split are worth checking."""
        counts = Counter(issue.split for issue in self.issues)
        lines = []
        for split, judged in self.splits.items():
            share = 100 * counts[split] / judged.labels
            are = plural(judged.labels, "label is", "labels are")
            lines.append(
                f"{split}: {counts[split]:,} of {are} worth checking ({share:.1f} %); for"
                f" {judged.disagreements:,}, another label is more probable"
            )
        return lines

    def warnings(self) -> list[str]:
        """A warning for each split for which the nets are too weak to judge labels."""
        lines = []
        for split, judged in self.splits.items():
            if judged.agreement.is_weak:
                lines.append(
                    f"only {format_percent(judged.agreement.value)} of the {split} labels agree"
                    f" with {self.judge}, averaged over classes (by chance:"
                    f" {format_percent(judged.agreement.guessed)}). A weak model flags correct"
                    " labels, so most of the listed labels are likely correct. Train a better net,"
                    " or add images."
                )
        return lines


def judge_labels(
    images: Mapping[Split, Images],
    probabilities: Mapping[Split, Values],
    judge: str = "the model",
) -> LabelIssues:
    """Find the labels to check, by split, from probabilities that ``judge`` predicted."""
    issues: list[LabelIssue] = []
    splits: dict[Split, SplitLabels] = {}
    for split, part in images.items():
        issues += find_label_issues(part, probabilities[split])
        agreement = measure_agreement(part, probabilities[split])
        disagreements = 0
        for problem, of_classes in _judge_problems(part, probabilities[split]):
            disagreements += len(find_disagreements(of_classes, problem.truth))
        splits[split] = SplitLabels(part.targets.size, disagreements, agreement)
    issues.sort(key=lambda issue: -issue.score)
    return LabelIssues(tuple(issues), splits, judge, images)


def find_label_issues(images: Images, probabilities: Values) -> tuple[LabelIssue, ...]:
    """The label issues of ``images``, likeliest first; a multi-label column is two classes."""
    check_kind(images.kind)
    issues = []
    for problem, of_classes in _judge_problems(images, probabilities):
        for row in select_by_confident_learning(of_classes, problem.truth).tolist():
            label = problem.truth[row]
            likely = of_classes[row].argmax()
            issue = LabelIssue(
                image=images.names[row],
                split=images.split,
                row=row,
                column=problem.column,
                given=problem.classes[label],
                likely=problem.classes[likely],
                given_probability=float(of_classes[row, label]),
                likely_probability=float(of_classes[row, likely]),
            )
            issues.append(issue)
    return tuple(sorted(issues, key=lambda issue: -issue.score))


def measure_agreement(images: Images, probabilities: Values) -> Agreement:
    """The agreement on ``images``, leaving out classes without images."""
    shares: list[float] = []
    guessed = 1.0
    for problem, of_classes in _judge_problems(images, probabilities):
        classes = len(problem.classes)
        counts = np.bincount(problem.truth, minlength=classes)
        are_equal = of_classes.argmax(axis=1) == problem.truth
        agreeing = np.bincount(problem.truth[are_equal], minlength=classes)
        shares += (agreeing[counts > 0] / counts[counts > 0]).tolist()
        guessed = 1 / classes
    if not shares:
        return Agreement(1.0, guessed)
    return Agreement(float(np.mean(shares)), guessed)


def check_kind(kind: Kind) -> None:
    if kind is REGRESSION:
        raise DataError(
            "The targets are numbers; label checking needs classes or labels.",
            remedy="To see the largest errors of a run's model instead, use lamina report RUN",
        )


def _judge_problems(images: Images, probabilities: Values) -> Iterator[tuple[Problem, Values]]:
    """Each problem with the probabilities of its classes."""
    for problem in split_problems(images.kind, images.target_names, images.targets):
        of_classes = probabilities
        if images.kind is not SINGLE_LABEL:
            of_yes = probabilities[:, problem.column]
            of_classes = np.stack([1 - of_yes, of_yes], axis=1)
        yield problem, of_classes
