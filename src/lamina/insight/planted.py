"""The likely wrong labels of a data set, and what share of wrong ones the search finds, measured on planted ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from lamina.data import Dataset, Images
from lamina.data.images import Split
from lamina.errors import DataError
from lamina.insight.folds import CrossPrediction
from lamina.insight.labels import (
    Agreement,
    Suspect,
    check_kind,
    count_disagreements,
    find_suspects,
    mark,
    measure_agreement,
)
from lamina.targets import SINGLE_LABEL
from lamina.training.randomness import derive_seed

PLANTED_FRACTION = 0.02
"""Fraction of the training labels that are exchanged: few, as the nets learn from them."""


@dataclass(frozen=True)
class LabelFindings:
    """Likely wrong labels, and how well planted ones were found.

    Attributes:
        suspects: of each split, the most likely first.
        disagreements: of each split, how many labels are merely less probable than another.
        agreements: of each split, how well the nets know its classes.
        planted: number of training labels that were made wrong before the nets were trained, by exchanging them.
        planted_found: how many of these were found.
    """

    suspects: Mapping[Split, tuple[Suspect, ...]]
    disagreements: Mapping[Split, int]
    agreements: Mapping[Split, Agreement]
    planted: int
    planted_found: int

    @property
    def planted_recall(self) -> float:
        """The fraction of the planted flips that was found: of mistakes that are as frequent as the classes are.

        It says little of mistakes in a rare class, of which few are planted, or between two classes that are alike.
        """
        return self.planted_found / self.planted


def find_wrong_labels(
    dataset: Dataset, predict: Callable[[Images, Sequence[Images]], CrossPrediction], seed: int = 0
) -> LabelFindings:
    """The likely wrong labels of every split, from nets trained once, on training pictures with planted flips.

    A net's answer for a picture does not depend on that picture's own label, as it was not trained on it. So the same
    probabilities serve twice: with the flipped labels, to count how many flips are found, and with the labels as they
    are, to find those that are wrong. Nothing is trained on ``val`` and ``test``.

    Args:
        dataset: with classes or labels.
        predict: such as :func:`~lamina.insight.folds.cross_predict`, with its arguments.
        seed: of the flips.

    Raises:
        DataError: the targets are numbers, or all training pictures have the same.
    """
    flipped = plant_flips(dataset.train, PLANTED_FRACTION, derive_seed(seed, "planted"))
    others = {split: images for split, images in dataset.splits.items() if split != "train"}
    prediction = predict(flipped, list(others.values()))
    are_planted = flipped.targets != dataset.train.targets
    are_found = mark(find_suspects(flipped, prediction.own), flipped.targets) & are_planted
    probabilities = {"train": prediction.own, **dict(zip(others, prediction.others, strict=True))}
    return LabelFindings(
        {split: find_suspects(images, probabilities[split]) for split, images in dataset.splits.items()},
        {split: count_disagreements(images, probabilities[split]) for split, images in dataset.splits.items()},
        {split: measure_agreement(images, probabilities[split]) for split, images in dataset.splits.items()},
        int(are_planted.sum()),
        int(are_found.sum()),
    )


def plant_flips(images: Images, fraction: float, seed: int = 0) -> Images:
    """The images with that fraction of their labels exchanged at random between pictures of different classes.

    So each class keeps its number of pictures, and a rare one gets few that are foreign. At least two labels are
    exchanged, and fewer than that fraction where most pictures are of one class. Of multi-label and binary targets,
    that fraction of each label's rarer answers, mostly yes, is flipped, and as many of its other answers.

    Raises:
        DataError: the targets are numbers, or all pictures have the same.

    >>> images = Images.from_arrays(np.zeros((4, 1, 1), np.uint8), [0, 1, 2, 0])
    >>> plant_flips(images, 0.5).targets.tolist()
    [0, 1, 0, 2]
    """
    check_kind(images.kind)
    targets = np.array(images.targets)
    if (targets == targets[:1]).all():
        raise DataError("Expected pictures of two classes or more to exchange labels between them, got one.")
    random = np.random.default_rng(seed)
    if images.kind is SINGLE_LABEL:
        _exchange(targets, max(2, round(fraction * len(targets))), random)
    else:
        _flip(targets.reshape(len(targets), -1), fraction, random)  # a view
    return dataclasses.replace(images, targets=targets)


def _exchange(targets: Int64[np.ndarray, " n"], count: int, random: np.random.Generator) -> None:
    """Exchange labels in place among ``count`` pictures drawn at random, so that each gets another, if it can."""
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
