"""The likely wrong labels of a data set, and what share of wrong ones the search finds, measured on planted ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lamina.data import Dataset, Images
from lamina.data.images import Split
from lamina.insight.folds import CrossPrediction
from lamina.insight.labels import Suspect, check_kind, count_disagreements, find_suspects, mark
from lamina.targets import SINGLE_LABEL
from lamina.training.randomness import derive_seed

PLANTED_FRACTION = 0.02
"""Fraction of the training labels that are flipped: few, as the nets learn from them."""


@dataclass(frozen=True)
class LabelFindings:
    """Likely wrong labels, and how well planted ones were found.

    Attributes:
        suspects: of each split, the most likely first.
        disagreements: of each split, how many labels are merely less probable than another.
        planted: number of training labels that were flipped at random before the nets were trained.
        planted_found: how many of these were found.
    """

    suspects: Mapping[Split, tuple[Suspect, ...]]
    disagreements: Mapping[Split, int]
    planted: int
    planted_found: int

    @property
    def planted_recall(self) -> float:
        """The fraction of the planted flips that was found."""
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
        DataError: the targets are numbers.
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
        int(are_planted.sum()),
        int(are_found.sum()),
    )


def plant_flips(images: Images, fraction: float, seed: int = 0) -> Images:
    """The images with that fraction of their labels, at least one, flipped at random to another, each as likely.

    Of a multi-label target, single labels are flipped from yes to no or from no to yes.

    >>> images = Images.from_arrays(np.zeros((4, 1, 1), np.uint8), [0, 1, 2, 0])
    >>> plant_flips(images, 0.25).targets.tolist()
    [0, 1, 2, 2]
    """
    check_kind(images.kind)
    random, targets = np.random.default_rng(seed), np.array(images.targets)
    flat = targets.reshape(-1)  # a view
    places = random.choice(len(flat), max(1, round(fraction * len(flat))), replace=False)
    if images.kind is SINGLE_LABEL:
        classes = len(images.target_names)
        flat[places] = (flat[places] + random.integers(1, classes, size=len(places))) % classes
    else:
        flat[places] = ~flat[places]
    return dataclasses.replace(images, targets=targets)
