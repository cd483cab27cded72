"""Compare tables of scores by seed and image: from lamina's runs, or from any two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from lamina.errors import DataError, check_type
from lamina.evaluation.intervals import ALPHA, LEVEL, Groups, number_groups
from lamina.evaluation.paired import (
    Effect,
    choose_levels,
    measure_effect,
    measure_fold_effect,
    pool_groups,
    seed_deviation,
)
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.targets import Score

POINTS = 0.005
NUMBERS = 0.01
"""Default margin: half a percentage point; for regression, a fraction of the reference's score."""


@dataclass(frozen=True, eq=False)
class ScoreTables:
    """The scores of experiments by seed and image; all are compared with the last, the reference.

    Attributes:
        scores: for each experiment, a value of each image (column) with each seed (row).
        metric: name of the score, the mean of the values.
        split: split of the images.
        groups: the number of each image's group; ``None`` if images are not grouped.
        step: the largest change of the score that one image, or group, can cause; by default the
            change of a mean.
        folds: the number of each image's fold, if scores are out of fold; otherwise ``None``.
    """

    scores: Mapping[str, Float64[np.ndarray, "s n"]]
    metric: str
    split: str
    groups: Groups | None = None
    step: float | None = None
    folds: Groups | None = None

    @property
    def score(self) -> Score:
        """The score of the reference."""
        *_, reference = self.scores.values()
        return Score(self.metric, float(reference.mean()))

    def choose_margin(self) -> float:
        """The default margin."""
        if self.score.is_fraction:
            return POINTS
        return NUMBERS * abs(self.score.value) or NUMBERS

    def measure_effect(self, name: str) -> Effect:
        """The difference of an experiment from the reference, with its uncertainty."""
        differences = self.find_differences(name)
        if self.folds is not None:
            by_image = differences.mean(axis=0)
            return measure_fold_effect(by_image, self.folds, self.metric, self.step)
        return measure_effect(differences, self.metric, self.groups, self.step)

    def find_differences(self, name: str) -> Float64[np.ndarray, "s n"]:
        """The differences of an experiment from the reference, positive if it is better."""
        *_, reference = self.scores.values()
        sign = -1 if self.score.lower_is_better else 1
        differences: Float64[np.ndarray, "s n"] = sign * (self.scores[name] - reference)
        return differences


def compare_scores(
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups: Sequence[object] | np.ndarray | None = None,
    margin: float | None = None,
    level: float = LEVEL,
) -> PairedComparison:
    """Compare two methods by their scores of the same images, from any library.

    The interval applies to new seeds and new images, as in :func:`lamina.compare`.

    Args:
        a: Scores of the first method, (S, n) for S seeds or runs and n images, or (n,) for one
            model. 1 and 0, or booleans, for correct and incorrect predictions; otherwise, numbers
            whose mean is the metric, higher for better: pass errors with a minus sign. For a metric
            that is not a mean, its value plus n times the influence of each image.
        b: Scores of the second method, the reference, with the same seeds and images as ``a``.
        groups: The group of each image, such as its patient; intervals then treat groups, not
            images, as independent.
        margin: Largest difference that counts as equal, by default 0.005 for 1 and 0, and otherwise
            1 % of B's mean. Choose it before you see a result.
        level: Level of the intervals.

    Returns:
        The comparison; ``print`` it. Differences are positive if A is better.

    Raises:
        DataError: The shapes differ, a score is not finite, or an argument is out of its range.

    Source: Searle et al., Variance Components, 1992, chapter 4; Banerjee, Sankhyā 22 (1960); for
    groups, Miller, arXiv 2411.00640.

    >>> generator = np.random.default_rng(0)
    >>> first, second = (generator.random((5, 400)) < accuracy for accuracy in (0.9, 0.7))
    >>> compare_scores(first, second).verdict
    'better'
    """
    check_type(margin, (Real,), "margin", "a number, such as 0.005")
    check_type(level, (Real,), "level", "a number, such as 0.95", is_optional=False)
    try:
        first = np.atleast_2d(np.asarray(a, np.float64))
        second = np.atleast_2d(np.asarray(b, np.float64))
    except (TypeError, ValueError) as error:
        raise DataError(f"Scores must be arrays of numbers (seeds, images): {error}.") from error
    images = first.shape[-1]
    names = []
    if groups is not None:
        values = np.ravel(np.asarray(groups, object)).tolist()
        if any(map(_is_missing, values)):
            raise DataError("An image has no group. Give it one, if necessary for itself alone.")
        names = [str(value) for value in values]
    fits = first.shape == second.shape and first.ndim == 2 and images > 1
    if not fits or (groups is not None and len(names) != images):
        raise DataError(
            f"The scores have the shapes {first.shape} and {second.shape}, and there are"
            f" {len(names)} groups. Expected two arrays (seeds, images) of one shape, with at"
            " least 2 images, and a group for each image or none."
        )
    both = np.stack([first, second])
    if not np.isfinite(both).all():
        raise DataError("A score is NaN or infinite. Give each image a number with each seed.")
    if not 0.5 <= level < 1 or (margin is not None and not 0 < margin < np.inf):
        raise DataError(
            f"level is {level} and margin {margin}. Use a level from 0.5 to 1, such as 0.95, and a"
            " positive margin."
        )
    metric = "accuracy" if np.isin(both, (0, 1)).all() else "score"
    tables = ScoreTables({"a": first, "b": second}, metric, "test", number_groups(names))
    return compare_tables(tables, margin, 1 - level)[0]


def _is_missing(group: object) -> bool:
    """Whether it is empty text, ``None`` or NaN, also NumPy's and pandas'."""
    return not group if isinstance(group, str) else str(group) in ("None", "nan", "NaT", "<NA>")


def compare_tables(
    tables: ScoreTables,
    margin: float | None = None,
    alpha: float = ALPHA,
    last_alpha: float | None = None,
) -> list[PairedComparison]:
    """Compare all experiments with the last, together at the significance level ``alpha``.

    Their levels are chosen by Holm's method. ``last_alpha`` is the significance level of a study's
    last look, whose interval is narrowest.
    """
    if margin is None:
        margin = tables.choose_margin()
    *names, _ = tables.scores
    effects = [tables.measure_effect(name) for name in names]
    levels = choose_levels(effects, alpha)
    last_level = 1 - (last_alpha or alpha) / len(names)
    return [
        _compare(tables, name, effect, level, last_level, margin)
        for name, effect, level in zip(names, effects, levels, strict=True)
    ]


def _compare(
    tables: ScoreTables,
    name: str,
    effect: Effect,
    level: float,
    last_level: float,
    margin: float,
) -> PairedComparison:
    *_, reference = tables.scores
    table = tables.find_differences(name)
    differences = table.mean(axis=1)
    if tables.folds is not None:
        differences = pool_groups(table.mean(axis=0)[None], tables.folds)[0]
    return PairedComparison(
        a=name,
        b=reference,
        metric=tables.metric,
        split=tables.split,
        a_score=float(tables.scores[name].mean()),
        b_score=tables.score.value,
        effect=effect,
        level=level,
        last_level=last_level,
        margin=margin,
        differences=tuple(differences.tolist()),
        images=table.shape[1],
        a_deviation=seed_deviation(tables.scores[name], tables.groups),
        b_deviation=seed_deviation(tables.scores[reference], tables.groups),
        groups=None if tables.groups is None else len(tables.groups.unique()),
        folds=None if tables.folds is None else len(differences),
    )
