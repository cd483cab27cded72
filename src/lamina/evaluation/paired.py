"""Differences of two models or experiments, by seed and image: intervals, tests, seeds needed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64

from lamina.errors import DataError, LaminaError
from lamina.evaluation.intervals import (
    ALPHA,
    LEVEL,
    Groups,
    Interval,
    sum_by_group,
    t_quantile,
)
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.scores import Measured, measure
from lamina.metrics import METRICS
from lamina.targets import Kind, Score
from lamina.training.task import Columns, Regression, Task

Verdict: TypeAlias = Literal["better", "worse", "equal", "undecided"]
LOOKS = {4: 0.01, 8: 0.015, 16: 0.025}
"""Significance level at each number of seeds of a study that ends as soon as it is decided; they
add up to 0.05 (Bonferroni's inequality). At most 5 % of such studies make a false claim if each
interval holds: if the differences between seeds are roughly normally
distributed (docs/explanation/verdicts.md)."""
POWER = 0.8  # fraction of studies that detect a difference
MOST_SEEDS = 1000  # larger numbers are not announced


@dataclass(frozen=True)
class Effect:
    """The mean difference of two experiments, positive if the first is better, with uncertainty."""

    difference: float  # mean over seeds and images
    seeds: int  # number of pairs S, or of folds
    images: int  # number n of independent images, or of groups of images
    seed_variance: float  # of the difference between seeds on these images; 0 for one seed
    image_variance: float  # of the expected difference between images, or groups
    limit: float | None = None  # largest possible difference, if there is one
    # of the variance between folds, the part that more folds do not reduce, because their training
    # images are mostly the same
    overlap: float = 0.0

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval of the difference for new images and, for several seeds, new seeds."""
        half_width = self.half_width(level)
        return self.clip(self.difference - half_width, self.difference + half_width)

    def clip(self, low: float, high: float) -> Interval:
        """The interval without impossible differences."""
        if self.limit is None:
            return Interval(low, high)
        return Interval(max(low, -self.limit), min(high, self.limit))

    def half_width(self, level: float, seeds: int | None = None) -> float:
        """Half the width of the interval, or its expected value with another number of seeds.

        The variances of seeds and of images have their own degrees of freedom, so each gets its own
        quantile. (One for the sum, with Satterthwaite's degrees of freedom, claims too many
        differences with 2 to 4 seeds.)
        """
        seeds = seeds or self.seeds
        quantile = t_quantile(max(1, min(seeds, self.seeds) - 1), level)
        by_seed = quantile**2 * self.seed_variance * (1 / seeds + self.overlap)
        return math.sqrt(by_seed + self.image_half_width(level) ** 2)

    def image_half_width(self, level: float = LEVEL) -> float:
        """Half the width of the interval that would remain with any number of seeds."""
        return t_quantile(self.images - 1, level) * math.sqrt(self.image_variance / self.images)

    def judge(self, margin: float, level: float = LEVEL) -> Verdict:
        """Whether the first is better, worse, or equal, by the interval of this level.

        A difference is claimed if the interval excludes 0, equality if it lies within the margin:
        two one-sided tests at (1 - ``level``) / 2 (Schuirmann, Journal of Pharmacokinetics and
        Biopharmaceutics 15 (1987), 657-680).
        """
        interval = self.interval(level)
        if interval.low > 0 or interval.high < 0:
            return "better" if interval.low > 0 else "worse"
        return "equal" if -margin < interval.low and interval.high < margin else "undecided"

    def seeds_to_detect(self, margin: float, level: float = LEVEL) -> int | None:
        """The number of seeds with which 80 % of studies detect a difference of the margin.

        It is larger than this study's number, and ``None`` if over 1,000. Both quantiles have
        the degrees of freedom of this study, because the variance between seeds is estimated
        (Julious and Owen, Statistics in Medicine 25 (2006), 1789-1802).
        """

        def can_detect(seeds: int) -> bool:
            return self.half_width(level, seeds) + self.half_width(2 * POWER - 1, seeds) <= margin

        if not 2 <= self.seeds < MOST_SEEDS or not can_detect(MOST_SEEDS):
            return None
        more = range(self.seeds + 1, MOST_SEEDS + 1)
        return more[bisect_left(more, True, key=can_detect)]


def measure_effect(
    differences: Float64[np.ndarray, "s n"],
    metric: str = "accuracy",
    groups: Groups | None = None,
    step: float | None = None,
) -> Effect:
    """The effect from the differences of S seeds (rows) on n images (columns).

    Seeds and images are crossed random factors. With s_d² the variance of the seeds' means, s_δ² of
    the images' means, and s_e² of the interaction, the variance of the mean is s_d²/S + s_δ²/n -
    s_e²/(S·n) (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007), 386-411;
    Searle et al., Variance Components, 1992, chapter 4). Neither part is estimated below the lower
    limit that the interaction implies.

    For fractions, half an image is added in favor of each model (Agresti and Min, Statistics in
    Medicine 24 (2005), 729-740), in the class where one image counts most. Otherwise, models that
    predict alike on a few images would have no variance.

    With groups, n is the number of groups, and all variances are of the sums over a group.

    Args:
        differences: Score of the first minus score of the second, such as 1, 0 or -1 for an image.
        metric: The metric, whose possible values limit the interval.
        groups: Number of each image's group.
        step: The largest change of a fraction that one image or group can cause, by default 1/n.
    """
    table = pool_groups(differences, groups)
    seeds, images = table.shape
    by_image = table.mean(axis=0)
    limit, added = _allow_for_few(metric, images, step)
    interaction = _measure_interaction(table)
    seed_variance = 0.0
    if seeds > 1:
        seed_variance = max(float(table.mean(axis=1).var(ddof=1)), interaction / images)
    image_variance = max(float(by_image.var(ddof=1)) - interaction / seeds, 0.0) + added
    return Effect(float(table.mean()), seeds, images, seed_variance, image_variance, limit)


def measure_fold_effect(
    differences: Float64[np.ndarray, " n"],
    folds: Groups,
    metric: str = "accuracy",
    step: float | None = None,
) -> Effect:
    """The effect from out-of-fold differences on n images, by the corrected t test.

    The training sets of k folds overlap, so the variance between folds counts 1/k + 1/(k - 1)
    times, not 1/k times: 1/(k - 1) is the ratio of held-out images to training images (Nadeau and
    Bengio, Machine Learning 52 (2003), 239-281).

    Args:
        differences: Score of the first minus score of the second for each image.
        folds: Number of each image's fold.
        metric: As for :func:`measure_effect`.
        step: As for :func:`measure_effect`.
    """
    effect = average_folds(pool_groups(differences[None], folds)[0])
    limit, added = _allow_for_few(metric, len(differences), step)
    return replace(effect, images=len(differences), image_variance=added, limit=limit)


def average_folds(values: Float64[np.ndarray, " k"]) -> Effect:
    """The mean of the values of k folds, as in :func:`measure_fold_effect`."""
    count = len(values)
    return Effect(
        difference=float(values.mean()),
        seeds=count,
        images=count,
        seed_variance=float(values.var(ddof=1)),
        image_variance=0.0,
        overlap=1 / (count - 1),
    )


def _allow_for_few(metric: str, images: int, step: float | None) -> tuple[float | None, float]:
    """The largest possible difference, and the variance of half an image in favor of each model."""
    if not Score(metric, 0.0).is_fraction:
        return None, 0.0
    return 1.0, images * ((step or 1 / images) * images / (images + 2)) ** 2


def seed_deviation(
    scores: Float64[np.ndarray, "s n"], groups: Groups | None = None
) -> float | None:
    """The standard deviation over seeds of a score on infinitely many images; ``None`` for one.

    On n images, the variance between seeds contains the variance of the interaction of seeds and
    images, s_e²/n, which is removed (Jordan, arXiv 2304.01910, 2023).
    """
    table = pool_groups(scores, groups)
    seeds, images = table.shape
    if seeds == 1:
        return None
    variance = float(table.mean(axis=1).var(ddof=1)) - _measure_interaction(table) / images
    return math.sqrt(max(variance, 0.0))


def pool_groups(
    values: Float64[np.ndarray, "s n"], groups: Groups | None
) -> Float64[np.ndarray, "s g"]:
    """A value for each group, so that their mean equals the mean over images."""
    if groups is None:
        return values
    means = values.mean(axis=1, keepdims=True)
    sums = sum_by_group(torch.from_numpy(values - means), groups).numpy()
    if sums.shape[1] < 2:
        raise DataError(
            "All images are in one group, so the variation between groups cannot be measured."
            " Evaluate on images of several groups."
        )
    pooled: Float64[np.ndarray, "s g"] = means + sums * sums.shape[1] / values.shape[1]
    return pooled


def _measure_interaction(table: Float64[np.ndarray, "s n"]) -> float:
    """The variance s_e² of the interaction of seeds and images; 0 for one seed."""
    seeds, images = table.shape
    if seeds == 1:
        return 0.0
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    return float(np.square(rest).sum() / ((seeds - 1) * (images - 1)))


def choose_levels(effects: Sequence[Effect], alpha: float = ALPHA) -> list[float]:
    """The level of the interval of each of several effects, by Holm's method.

    With probability 1 - ``alpha``, no interval excludes 0 for an effect that is zero (Holm,
    Scandinavian Journal of Statistics 6 (1979), 65-70). Intervals that include 0 have Bonferroni's
    level.
    """
    levels = [1 - alpha / len(effects)] * len(effects)
    left = list(range(len(effects)))
    while left:
        level = 1 - alpha / len(left)
        intervals = {place: effects[place].interval(level) for place in left}
        different = [
            place for place in left if not intervals[place].low <= 0 <= intervals[place].high
        ]
        if not different:
            break
        for place in different:
            levels[place] = level
        left = [place for place in left if place not in different]
    return levels


def score_images(task: Task, outputs: Outputs) -> Float64[np.ndarray, " n"]:
    """A value for each image; their mean is the metric, their variance gives its variance.

    For the accuracy, 1 for a correct prediction and 0 for an incorrect one; for the mean absolute
    error, the error. For a metric that is not a mean over images, its value plus n times the
    image's influence, which linearizes it (infinitesimal jackknife).

    Raises:
        DataError: The metric is undefined, because all images have the same target.
        LaminaError: The metric is a custom metric.
    """
    measured = measure_outputs(task, outputs)
    count = len(outputs.logits)
    return np.round((measured.value + count * measured.influences).numpy(), 12)


def measure_outputs(task: Task, outputs: Outputs) -> Measured:
    """The metric of stored outputs; raises what :func:`score_images` raises."""
    logits = torch.from_numpy(outputs.logits).double()
    columns = task.to_columns(logits)
    if isinstance(task, Regression):  # the outputs are numbers already
        columns = Columns(logits, logits)
    metric = find_metric(task)
    truth = task.to_truth(torch.from_numpy(np.array(outputs.targets)))
    measured = measure(metric, columns, truth, outputs.group_numbers)
    if measured is None:
        raise DataError(
            f"The {Score(metric, 0.0).title} of the {outputs.split} images is undefined. Add"
            " images."
        )
    return measured


def find_metric(task: Task) -> str:
    """The metric to compare models by; ``LaminaError`` for a custom metric."""
    check_comparable(task.score_name, task.kind)
    return task.score_name


def check_comparable(metric: str, kind: Kind) -> None:
    """Raise ``LaminaError`` for a custom metric."""
    if metric not in METRICS:
        raise LaminaError(
            f"The score of these models is {metric}, your own metric, but models are compared by a"
            f" metric of lamina: {', '.join(kind.metrics)}. Train with one, or pass your"
            " metric's value of each image to lamina.compare_scores."
        )
