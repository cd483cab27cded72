"""Label issues by confident learning (Northcutt, Jiang and Chuang, 2021, arXiv 1911.00068).

Confident learning estimates how many labels of each class are incorrect, from the probabilities of
nets that were not trained on the images, and selects that number of labels, the least probable
first. Injected label errors measure its recall.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from lamina.data import Dataset, Images
from lamina.data.splits import Split
from lamina.errors import DataError
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Targets
from lamina.training.randomness import derive_seed

TOLERANCE = 1e-6  # of thresholds, so that rounding decides nothing
INJECTED_FRACTION = 0.02  # of the training labels: few, because the nets learn from them


@dataclass(frozen=True, eq=False)
class CrossPrediction:
    """Probabilities from nets not trained on the images; for ``others``, the mean over folds."""

    own: Float32[np.ndarray, "n k"] = field(repr=False)
    others: tuple[Float32[np.ndarray, "_ k"], ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class SelectedRows:
    """The rows of images with label issues, the most likely issue first."""

    rows: Int64[np.ndarray, " m"]
    suggested: Int64[np.ndarray, " m"]  # the most probable class
    scores: Float[np.ndarray, " m"]  # (1 + p(suggested) - p(given)) / 2, from 0.5 to 1


def count_confident(
    probabilities: Float[np.ndarray, "n k"], given: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, "k k"]:
    """Count the images by given class (row) and confident class (column): equations 1 and 2."""
    classes = probabilities.shape[1]
    counts = np.bincount(given, minlength=classes)
    own = np.bincount(given, probabilities[np.arange(len(given)), given], minlength=classes)
    thresholds = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
    are_confident = probabilities >= thresholds - TOLERANCE
    are_several = are_confident.sum(axis=1) > 1
    confident = np.where(are_several, probabilities.argmax(axis=1), are_confident.argmax(axis=1))
    joint = np.zeros((classes, classes), np.int64)
    are_counted = are_confident.any(axis=1)
    np.add.at(joint, (given[are_counted], confident[are_counted]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    return joint


def estimate_joint(
    probabilities: Float[np.ndarray, "n k"], given: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, "k k"]:
    """Estimate the number of images by given class (row) and true class (column): equation 3."""
    joint = count_confident(probabilities, given)
    counts = np.bincount(given, minlength=len(joint))
    scaled = joint / joint.sum(axis=1, keepdims=True) * counts[:, None]
    # Rounding up the largest remainders of each row keeps its sum.
    rounded = np.floor(scaled)
    missing = np.round(counts - rounded.sum(axis=1)).astype(np.int64)
    ranks = np.argsort(np.argsort(scaled - rounded, axis=1, kind="stable"), axis=1)
    return np.asarray(rounded + (ranks >= len(joint) - missing[:, None]), np.int64)


def select_by_confident_learning(
    probabilities: Float[np.ndarray, "n k"],
    given: Int64[np.ndarray, " n"],
    joint: Int64[np.ndarray, "k k"] | None = None,
) -> SelectedRows:
    """Select label issues with "prune by noise rate" (section 3.2, method 4).

    For each pair of a given class and another class, this selects the number of images that
    ``joint`` has (:func:`estimate_joint`), those with the largest difference of the two
    probabilities. It never selects the only image of a class.
    """
    joint = estimate_joint(probabilities, given) if joint is None else joint
    found = np.zeros(len(given), bool)
    for own in np.flatnonzero(joint.sum(axis=1) > 1):
        rows = np.flatnonzero(given == own)
        for other in np.flatnonzero(joint[own]):
            if other != own:
                margins = probabilities[rows, other] - probabilities[rows, own]
                found[rows[np.argsort(-margins, kind="stable")[: joint[own, other]]]] = True
    return _rank(probabilities, given, found)


def find_disagreements(
    probabilities: Float[np.ndarray, "n k"], given: Int64[np.ndarray, " n"]
) -> SelectedRows:
    """All images whose likeliest class is not the given one: a baseline for confident learning."""
    return _rank(probabilities, given, np.ones(len(given), bool))


def _rank(
    probabilities: Float[np.ndarray, "n k"],
    given: Int64[np.ndarray, " n"],
    candidates: Bool[np.ndarray, " n"],
) -> SelectedRows:
    suggested, rows = probabilities.argmax(axis=1), np.arange(len(given))
    margins = probabilities[rows, suggested] - probabilities[rows, given]
    rows = np.flatnonzero(candidates & (margins > TOLERANCE))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    return SelectedRows(rows, suggested[rows], (1 + margins[rows]) / 2)


@dataclass(frozen=True)
class LabelIssue:
    """A probably incorrect label, with the probabilities of the given and the likely label."""

    row: int
    column: int  # of the label for multi-label targets, else 0
    given: str
    likely: str
    given_probability: float
    likely_probability: float

    @property
    def score(self) -> float:
        """From 0.5 to 1, as in :class:`SelectedRows`."""
        return round((1 + self.likely_probability - self.given_probability) / 2, 4)

    def explain(self, who: str) -> str:
        """The reason, as text; ``who`` predicted the probabilities."""
        return (
            f"{who}: {100 * self.likely_probability:.1f} % {self.likely}, "
            f"{100 * self.given_probability:.1f} % {self.given}"
        )


def find_label_issues(
    images: Images, probabilities: Float[np.ndarray, "n k"]
) -> tuple[LabelIssue, ...]:
    """The label issues of ``images``, likeliest first; multi-label targets are two classes each."""
    check_kind(images.kind)
    kind, names = images.kind, images.target_names
    label_issues = []
    for column, (columns, given) in enumerate(_split_columns(kind, probabilities, images.targets)):
        classes = names if kind is SINGLE_LABEL else ("no", "yes")
        prefix = f"{names[column]}: " if kind is MULTI_LABEL else ""
        issues = select_by_confident_learning(columns, given)
        for row, likely in zip(issues.rows.tolist(), issues.suggested.tolist(), strict=True):
            own, other = prefix + classes[given[row]], prefix + classes[likely]
            values = float(columns[row, given[row]]), float(columns[row, likely])
            label_issues.append(LabelIssue(row, column, own, other, *values))
    return tuple(sorted(label_issues, key=lambda label_issue: -label_issue.score))


def count_disagreements(images: Images, probabilities: Float[np.ndarray, "n k"]) -> int:
    columns = _split_columns(images.kind, probabilities, images.targets)
    return sum(len(find_disagreements(own, given).rows) for own, given in columns)


class Agreement(NamedTuple):
    """How often the given label is the net's most probable class."""

    # mean over the classes; for multi-label and binary targets, over yes and no of each label
    value: float
    guessed: float  # the value of a net that guesses

    @property
    def is_weak(self) -> bool:
        """Whether the agreement is closer to guessing than to 1."""
        return self.value < (1 + self.guessed) / 2


def measure_agreement(images: Images, probabilities: Float[np.ndarray, "n k"]) -> Agreement:
    """The agreement on ``images``, leaving out classes without images."""
    shares, guessed = [], 1.0
    for columns, given in _split_columns(images.kind, probabilities, images.targets):
        classes = columns.shape[1]
        counts = np.bincount(given, minlength=classes)
        agreeing = np.bincount(given[columns.argmax(axis=1) == given], minlength=classes)
        shares += (agreeing[counts > 0] / counts[counts > 0]).tolist()
        guessed = 1 / classes
    return Agreement(float(np.mean(shares)) if shares else 1.0, guessed)


def check_kind(kind: Kind) -> None:
    if kind is REGRESSION:
        raise DataError(
            "The targets are numbers; label checking needs classes or labels. To see the largest"
            " errors of a run's model instead, use lamina data DATA --with RUN"
        )


@dataclass(frozen=True)
class LabelFindings:
    """The label issues of each split, and the recall for injected label errors, if any."""

    label_issues: Mapping[Split, tuple[LabelIssue, ...]] = field(repr=False)
    disagreements: Mapping[Split, int]  # labels that are not the most probable class
    agreements: Mapping[Split, Agreement]
    injected: int = 0  # errors in the training labels of the nets
    injected_found: int = 0

    @property
    def injected_recall(self) -> float | None:
        return self.injected_found / self.injected if self.injected else None


def judge_labels(
    splits: Iterable[Images], probabilities: Iterable[Float[np.ndarray, "_ k"]]
) -> LabelFindings:
    """The label issues of splits, from the probabilities of their images."""
    pairs = list(zip(splits, probabilities, strict=True))
    return LabelFindings(
        {images.split: find_label_issues(images, found) for images, found in pairs},
        {images.split: count_disagreements(images, found) for images, found in pairs},
        {images.split: measure_agreement(images, found) for images, found in pairs},
    )


def check_labels(
    dataset: Dataset, predict: Callable[[Images, Sequence[Images]], CrossPrediction]
) -> LabelFindings:
    """The label issues of all splits, from nets trained once on labels with injected errors."""
    # No net was trained on the image that it predicts, so the probabilities do not depend on the
    # image's label. They serve twice: with the injected errors, to measure the recall, and with the
    # given labels.
    flipped = inject_label_errors(dataset.train, INJECTED_FRACTION, derive_seed(0, "injected"))
    train, *others = dataset.splits.values()
    prediction = predict(flipped, others)
    injected = np.argwhere((flipped.targets != train.targets).reshape(len(flipped), -1)).tolist()
    found = {
        (label_issue.row, label_issue.column)
        for label_issue in find_label_issues(flipped, prediction.own)
    }
    findings = judge_labels([train, *others], [prediction.own, *prediction.others])
    injected_found = sum((row, column) in found for row, column in injected)
    return dataclasses.replace(findings, injected=len(injected), injected_found=injected_found)


def inject_label_errors(images: Images, fraction: float, seed: int = 0) -> Images:
    """Exchange a fraction of the labels; for multi-label, of each label's rarer value."""
    check_kind(images.kind)
    targets = np.array(images.targets)
    if (targets == targets[:1]).all():
        raise DataError(
            "The training images have one class; label checking needs at least two. Add images of"
            " another class."
        )
    random = np.random.default_rng(seed)
    if images.kind is SINGLE_LABEL:
        _exchange(targets, max(2, round(fraction * len(targets))), random)
    else:
        _flip(targets.reshape(len(targets), -1), fraction, random)  # a view
    return dataclasses.replace(images, targets=targets)


def _exchange(targets: Int64[np.ndarray, " n"], count: int, random: np.random.Generator) -> None:
    """Exchange labels in place among ``count`` random images, if possible for different labels."""
    rows = random.choice(len(targets), count, replace=False)
    if (targets[rows] == targets[rows[0]]).all():
        rows[0] = random.choice(np.flatnonzero(targets != targets[rows[0]]))
    given = targets[rows]
    found = random.permutation(given)
    for place in np.flatnonzero(found == given):
        partners = np.flatnonzero((found != given[place]) & (given != found[place]))
        if found[place] == given[place] and len(partners):
            partner = random.choice(partners)
            found[[place, partner]] = found[[partner, place]]
    targets[rows] = found


def _flip(targets: Bool[np.ndarray, "n k"], fraction: float, random: np.random.Generator) -> None:
    """Flip in place a fraction of each label's rarer value, and as many of the frequent value."""
    are_rarer = targets == (targets.mean(axis=0) <= 0.5)
    rows, columns = np.nonzero(are_rarer)
    chosen = random.choice(len(rows), max(1, round(fraction * len(rows))), replace=False)
    targets[rows[chosen], columns[chosen]] ^= True
    for column, count in zip(*np.unique(columns[chosen], return_counts=True), strict=True):
        targets[
            random.choice(np.flatnonzero(~are_rarer[:, column]), count, replace=False), column
        ] ^= True


def _split_columns(
    kind: Kind, probabilities: Float[np.ndarray, "n k"], targets: Targets
) -> list[tuple[Float[np.ndarray, "n c"], Int64[np.ndarray, " n"]]]:
    """The targets as classification problems: one, or a no/yes problem for each label."""
    if kind is SINGLE_LABEL:
        return [(probabilities, targets)]
    labels = targets[:, None] if kind is BINARY else targets
    return [
        (np.stack([1 - of_yes, of_yes], axis=1), given.astype(np.int64))
        for of_yes, given in zip(probabilities.T, labels.T, strict=True)
    ]
