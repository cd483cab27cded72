"""Likely wrong labels, by confident learning (Northcutt, Jiang and Chuang, 2021, arXiv 1911.00068).

How many labels of a class are wrong is estimated from the probabilities of nets that were not trained on the images;
then as many are named, those first that the net contradicts most. What share this finds is measured on injected ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from lamina.data import Dataset, Images
from lamina.data.splits import Split
from lamina.errors import DataError
from lamina.targets import BINARY, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Targets
from lamina.training.randomness import derive_seed

TOLERANCE = 1e-6  # how far a probability may be below its threshold, so that rounding decides nothing
PLANTED_FRACTION = 0.02  # of the training labels that are exchanged: few, as the nets learn from them


@dataclass(frozen=True, eq=False)
class CrossPrediction:
    """Probabilities from nets that were not trained on the image: from one net, for ``others`` the mean over all."""

    own: Float32[np.ndarray, "n k"] = field(repr=False)
    others: tuple[Float32[np.ndarray, "_ k"], ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class SelectedRows:
    """Likely wrong labels, the most likely first, by the rows of their images."""

    rows: Int64[np.ndarray, " m"]
    suggested: Int64[np.ndarray, " m"]  # the most probable class of each
    scores: Float[np.ndarray, " m"]
    """From 0.5 to 1: half of one, plus half of how much more probable the suggested class is than the given."""


def count_confident(
    probabilities: Float[np.ndarray, "n k"], given: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, "k k"]:
    """For each given class (row), how many images confidently belong to each class (column): equations 1 and 2."""
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


def estimate_joint(probabilities: Float[np.ndarray, "n k"], given: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "k k"]:
    """How many images of each given class (row) truly belong to each class (column), by estimate (equation 3)."""
    joint = count_confident(probabilities, given)
    counts = np.bincount(given, minlength=len(joint))
    scaled = joint / joint.sum(axis=1, keepdims=True) * counts[:, None]
    # Of each row the largest remainders are rounded up, so that its sum stays.
    rounded = np.floor(scaled)
    missing = np.round(counts - rounded.sum(axis=1)).astype(np.int64)
    ranks = np.argsort(np.argsort(scaled - rounded, axis=1, kind="stable"), axis=1)
    return np.asarray(rounded + (ranks >= len(joint) - missing[:, None]), np.int64)


def select_by_confident_learning(
    probabilities: Float[np.ndarray, "n k"],
    given: Int64[np.ndarray, " n"],
    joint: Int64[np.ndarray, "k k"] | None = None,
) -> SelectedRows:
    """The likely wrong labels, found by pruning by noise rate (section 3.2, method 4).

    For each given class and each other, as many images as ``joint`` says (:func:`estimate_joint`), those with the
    largest difference of the two probabilities. The only image of a class is left out.
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


def find_disagreements(probabilities: Float[np.ndarray, "n k"], given: Int64[np.ndarray, " n"]) -> SelectedRows:
    """All images for which another class is more probable than the given one: a baseline."""
    return _rank(probabilities, given, np.ones(len(given), bool))


def _rank(
    probabilities: Float[np.ndarray, "n k"], given: Int64[np.ndarray, " n"], candidates: Bool[np.ndarray, " n"]
) -> SelectedRows:
    suggested, rows = probabilities.argmax(axis=1), np.arange(len(given))
    margins = probabilities[rows, suggested] - probabilities[rows, given]
    rows = np.flatnonzero(candidates & (margins > TOLERANCE))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    return SelectedRows(rows, suggested[rows], (1 + margins[rows]) / 2)


@dataclass(frozen=True)
class LabelIssue:
    """An image with a label that is likely wrong, in words, and its score as in :class:`SelectedRows`."""

    row: int
    column: int  # of the label in multi-label targets, else 0
    given: str
    suggested: str
    score: float


def find_label_issues(images: Images, probabilities: Float[np.ndarray, "n k"]) -> tuple[LabelIssue, ...]:
    """The likely wrong labels of ``images``, the most likely first; each label counts as two classes."""
    check_kind(images.kind)
    kind, names = images.kind, images.target_names
    label_issues = []
    for column, (columns, given) in enumerate(_split_columns(kind, probabilities, images.targets)):
        words = names if kind is SINGLE_LABEL else ("no", "yes")
        prefix = f"{names[column]}: " if kind is MULTI_LABEL else ""
        issues = select_by_confident_learning(columns, given)
        for row, suggested, score in zip(issues.rows.tolist(), issues.suggested, issues.scores.tolist(), strict=True):
            own, other = prefix + words[given[row]], prefix + words[suggested]
            label_issues.append(LabelIssue(row, column, own, other, round(score, 4)))
    return tuple(sorted(label_issues, key=lambda label_issue: -label_issue.score))


def count_disagreements(images: Images, probabilities: Float[np.ndarray, "n k"]) -> int:
    """How many labels of ``images`` are less probable than another, by :func:`find_disagreements`."""
    columns = _split_columns(images.kind, probabilities, images.targets)
    return sum(len(find_disagreements(own, given).rows) for own, given in columns)


class Agreement(NamedTuple):
    """How often the given labels are a net's most probable ones."""

    value: float  # averaged over the classes; of multi-label and binary targets, over yes and no of each label
    guessed: float  # the same for a net that predicts at random

    @property
    def is_weak(self) -> bool:
        """Whether the net is nearer to guessing than to agreeing with the labels."""
        return self.value < (1 + self.guessed) / 2


def measure_agreement(images: Images, probabilities: Float[np.ndarray, "n k"]) -> Agreement:
    """How often the labels of ``images`` are the most probable; classes that they lack do not count."""
    shares, guessed = [], 1.0
    for columns, given in _split_columns(images.kind, probabilities, images.targets):
        classes = columns.shape[1]
        counts = np.bincount(given, minlength=classes)
        right = np.bincount(given[columns.argmax(axis=1) == given], minlength=classes)
        shares += (right[counts > 0] / counts[counts > 0]).tolist()
        guessed = 1 / classes
    return Agreement(float(np.mean(shares)) if shares else 1.0, guessed)


def check_kind(kind: Kind) -> None:
    """Raise ``DataError`` for numbers, which are not right or wrong."""
    if kind is REGRESSION:
        raise DataError(
            "Expected classes or labels, got numbers: a number is not right or wrong, so likely wrong ones are not "
            "looked for. Look at the largest errors of a run's model instead: lamina data DATA --with RUN"
        )


@dataclass(frozen=True)
class LabelFindings:
    """Likely wrong labels of each split, and how well injected ones were found."""

    label_issues: Mapping[Split, tuple[LabelIssue, ...]] = field(repr=False)
    disagreements: Mapping[Split, int]  # how many labels are merely less probable than another
    agreements: Mapping[Split, Agreement]
    injected: int  # training labels that were exchanged before the nets were trained
    injected_found: int

    @property
    def injected_recall(self) -> float:
        """The fraction of the injected flips that was found: of mistakes that are as frequent as the classes are."""
        return self.injected_found / self.injected


def check_labels(dataset: Dataset, predict: Callable[[Images, Sequence[Images]], CrossPrediction]) -> LabelFindings:
    """The likely wrong labels of every split, from nets trained once, on training images with injected flips."""
    # A net's prediction does not depend on an image's own label, as it was not trained on it. So the probabilities
    # serve twice: with the flipped labels, to count the flips that are found, and with the labels as they are.
    flipped = inject_label_errors(dataset.train, PLANTED_FRACTION, derive_seed(0, "injected"))
    others = {split: images for split, images in dataset.splits.items() if split != "train"}
    prediction = predict(flipped, list(others.values()))
    injected = np.argwhere((flipped.targets != dataset.train.targets).reshape(len(flipped), -1)).tolist()
    found = {(label_issue.row, label_issue.column) for label_issue in find_label_issues(flipped, prediction.own)}
    probabilities = {"train": prediction.own, **dict(zip(others, prediction.others, strict=True))}
    return LabelFindings(
        {split: find_label_issues(images, probabilities[split]) for split, images in dataset.splits.items()},
        {split: count_disagreements(images, probabilities[split]) for split, images in dataset.splits.items()},
        {split: measure_agreement(images, probabilities[split]) for split, images in dataset.splits.items()},
        len(injected),
        sum((row, column) in found for row, column in injected),
    )


def inject_label_errors(images: Images, fraction: float, seed: int = 0) -> Images:
    """The images with a fraction of their labels (of the rarer value of each label) exchanged between classes."""
    check_kind(images.kind)
    targets = np.array(images.targets)
    if (targets == targets[:1]).all():
        raise DataError("Expected images of two classes or more to exchange labels between them, got one.")
    random = np.random.default_rng(seed)
    if images.kind is SINGLE_LABEL:
        _exchange(targets, max(2, round(fraction * len(targets))), random)
    else:
        _flip(targets.reshape(len(targets), -1), fraction, random)  # a view
    return dataclasses.replace(images, targets=targets)


def _exchange(targets: Int64[np.ndarray, " n"], count: int, random: np.random.Generator) -> None:
    """Exchange labels in place among ``count`` images drawn at random, so that each gets another, if it can."""
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
    """Flip in place a fraction of each label's rarer answers, and as many of the other."""
    are_rarer = targets == (targets.mean(axis=0) <= 0.5)
    rows, columns = np.nonzero(are_rarer)
    chosen = random.choice(len(rows), max(1, round(fraction * len(rows))), replace=False)
    targets[rows[chosen], columns[chosen]] ^= True
    for column, count in zip(*np.unique(columns[chosen], return_counts=True), strict=True):
        targets[random.choice(np.flatnonzero(~are_rarer[:, column]), count, replace=False), column] ^= True


def _split_columns(
    kind: Kind, probabilities: Float[np.ndarray, "n k"], targets: Targets
) -> list[tuple[Float[np.ndarray, "n c"], Int64[np.ndarray, " n"]]]:
    """The problems with classes that the targets are: one, or one of no and yes for each label."""
    if kind is SINGLE_LABEL:
        return [(probabilities, targets)]
    labels = targets[:, None] if kind is BINARY else targets
    return [
        (np.stack([1 - of_yes, of_yes], axis=1), given.astype(np.int64))
        for of_yes, given in zip(probabilities.T, labels.T, strict=True)
    ]
