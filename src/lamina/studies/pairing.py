"""What the two runs of a pair share: their seed, and the images that they are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from lamina.data import Dataset
from lamina.data.held_out import hold_out
from lamina.errors import RecipeError, check_type
from lamina.studies.experiment import Decision, Experiment


@dataclass(frozen=True)
class Pairing:
    """The seed and the images of each pair of runs; pairs count from 0.

    Attributes:
        folds: Number of folds of ``train`` and ``val``; the pairs of a seed hold out one fold after
            another. ``None`` to train on ``train``.
    """

    folds: int | None = None

    def __post_init__(self) -> None:
        check_type(self.folds, (int,), "folds", "a whole number")
        if self.folds is not None and self.folds < 2:
            raise RecipeError(f"folds is {self.folds}; it must be at least 2.", "Use folds=5.")

    def find_place(self, pair: int) -> tuple[int, int]:
        """The number of the seed, from 0, and of the fold, from 1."""
        seed, fold = divmod(pair, self.folds or 1)
        return seed, fold + 1

    def name_pair(self, pair: int) -> str:
        """``seed0``, or ``fold1-seed0``."""
        seed, fold = self.find_place(pair)
        return f"seed{seed}" if self.folds is None else f"fold{fold}-seed{seed}"

    def draw(self, experiment: Experiment, pair: int) -> Experiment:
        """The experiment with the seed and the images of a pair."""
        seed, fold = self.find_place(pair)
        dataset = experiment.dataset
        if self.folds is not None:
            dataset = hold_out(dataset, fold, self.folds)
        return replace(experiment, dataset=dataset).with_seed(experiment.recipe.seed + seed)

    def announce(self, dataset: Dataset) -> Iterator[Decision]:
        """How the images are used, if that differs from the default."""
        if self.folds is not None:
            images = len(dataset.train) + len(dataset.val or ())
            text = f"parts of the {images:,} images of train and val; each image is scored once"
            reason = ""
            if dataset.test is not None:
                reason = f"{len(dataset.test):,} images of test are not used"
            yield Decision("folds", text, reason)

    def describe(self) -> dict[str, Any]:
        """The settings of a study; none if all pairs have the images of the data set."""
        return {name: value for name, value in asdict(self).items() if value}


ALL_IMAGES = Pairing()
"""All pairs are trained on ``train``."""
