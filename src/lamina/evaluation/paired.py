"""Differences between two models or experiments, by seed and image: intervals, tests and the number of seeds needed."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float64
from torch.nn.functional import one_hot

from lamina.errors import DataError
from lamina.evaluation.intervals import ALPHA, LEVEL, Interval, matched_interval, t_p_value, t_quantile
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.scores import measure
from lamina.targets import MetricName, Score
from lamina.training.task import Binary, MultiLabel, SingleLabel, Task

Verdict: TypeAlias = Literal["better", "worse", "equal", "undecided"]
LOOKS = {4: 0.01, 8: 0.015, 16: 0.025}
"""Significance level at each number of seeds of a study that ends as soon as it is decided; they add up to 0.05
(Bonferroni's inequality), so at most 5 % of such studies claim a difference where there is none."""
POWER = 0.8  # fraction of studies that detect a difference
MOST_SEEDS = 1000  # if more are needed, seeds do not help


@dataclass(frozen=True)
class Effect:
    """The mean difference of two experiments, positive if the first is better, and its uncertainty.

    Attributes:
        difference: Mean over seeds and images.
        seeds: Number of pairs S.
        images: Number of images n.
        seed_variance: Variance of the difference between seeds on these images; 0 for one seed.
        image_variance: Variance of the expected difference between images.
        discordant: For one pair of models, the images that only the first and only the second gets correct, if the
            score is the accuracy.
    """

    difference: float
    seeds: int
    images: int
    seed_variance: float
    image_variance: float
    discordant: tuple[int, int] | None = None

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval of the difference for new images and, for several seeds, new seeds."""
        if self.discordant is not None:
            return matched_interval(*self.discordant, self.images, level)
        error, degrees = self._predict(self.seeds)
        half_width = error and t_quantile(degrees, level) * error
        return Interval(self.difference - half_width, self.difference + half_width)

    def p_value(self) -> float:
        """Two-sided p value of no difference, by Student's t or, for one pair of models, McNemar's exact test."""
        if self.discordant is not None:
            return mcnemar_p_value(*self.discordant)
        error, degrees = self._predict(self.seeds)
        if not error:
            return float(self.difference == 0)
        return t_p_value(self.difference / error, degrees)

    def judge(self, margin: float, alpha: float = ALPHA) -> Verdict:
        """Whether the first is better, worse, or equal within the margin.

        A difference is claimed if its p value is below ``alpha``. Equality is claimed if two one-sided tests at
        ``alpha`` reject a difference of the margin, so if the interval of level 1 - 2 ``alpha`` lies within the margin
        (TOST; Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987), 657-680).
        """
        if self.p_value() < alpha:
            return "better" if self.difference > 0 else "worse"
        inner = self.interval(1 - 2 * alpha)
        return "equal" if -margin < inner.low and inner.high < margin else "undecided"

    def seeds_to_detect(self, margin: float) -> int | None:
        """The number of seeds with which 80 % of studies detect a difference of the margin; ``None`` if none suffices.

        Both quantiles are Student's, with the degrees of freedom of this study, because the variance between seeds is
        estimated (Julious and Owen, Statistics in Medicine 25 (2006), 1789-1802).
        """

        def can_detect(seeds: int) -> bool:
            error, degrees = self._predict(seeds)
            return (t_quantile(degrees) + t_quantile(degrees, 2 * POWER - 1)) * error <= margin

        if self.seeds < 2 or not can_detect(MOST_SEEDS):
            return None
        return 2 + bisect_left(range(2, MOST_SEEDS + 1), True, key=can_detect)

    def image_half_width(self) -> float:
        """Half the width of the 95 % interval that would remain with any number of seeds."""
        return t_quantile(self.images - 1) * math.sqrt(self.image_variance / self.images)

    def _predict(self, seeds: int) -> tuple[float, int]:
        """Standard error with another number of seeds, and its degrees of freedom.

        The degrees of freedom are Satterthwaite's (Biometrics Bulletin 2 (1946), 110-114), rounded down.
        """
        by_seed, by_image = self.seed_variance / seeds, self.image_variance / self.images
        total = by_seed + by_image
        spread = by_seed**2 / max(1, self.seeds - 1) + by_image**2 / (self.images - 1)
        return math.sqrt(total), max(1, int(total**2 / spread)) if spread else 1


def measure_effect(differences: Float64[np.ndarray, "s n"], *, is_correctness: bool = False) -> Effect:
    """The effect from the differences of S seeds (rows) on n images (columns).

    Seeds and images are crossed random factors. With s_d² the variance of the seeds' means, s_δ² of the images' means,
    and s_e² of the interaction, the variance of the mean is s_d²/S + s_δ²/n - s_e²/(S·n) (Owen, The pigeonhole
    bootstrap, Annals of Applied Statistics 1 (2007), 386-411; Searle et al., Variance Components, 1992, chapter 4).
    Neither part is estimated below the lower limit that the interaction implies.

    Args:
        differences: Score of the first minus score of the second, such as 1, 0 or -1 for an image.
        is_correctness: Whether the differences are of correct predictions, for McNemar's exact test with one seed.
    """
    seeds, images = differences.shape
    mean, by_seed, by_image = differences.mean(), differences.mean(axis=1), differences.mean(axis=0)
    if seeds == 1:
        better, worse = int((differences > 0).sum()), int((differences < 0).sum())
        return Effect(
            float(mean), 1, images, 0.0, float(by_image.var(ddof=1)), (better, worse) if is_correctness else None
        )
    rest = differences - by_seed[:, None] - by_image + mean
    interaction = float(np.square(rest).sum()) / ((seeds - 1) * (images - 1))
    return Effect(
        float(mean),
        seeds,
        images,
        max(float(by_seed.var(ddof=1)), interaction / images),
        max(float(by_image.var(ddof=1)) - interaction / seeds, 0.0),
    )


def mcnemar_p_value(better: int, worse: int) -> float:
    """Exact two-sided p value of McNemar's test (Psychometrika 12 (1947), 153-157): a binomial test of 1/2."""
    total = better + worse
    tail = sum(math.comb(total, count) for count in range(min(better, worse) + 1))
    return min(1.0, float(2 * tail / 2**total))


def holm_levels(p_values: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """The significance level of each of several tests (Holm, Scandinavian Journal of Statistics 6 (1979), 65-70).

    With probability 1 - ``alpha``, no true null hypothesis has a p value below its level.
    """
    levels, level = [alpha] * len(p_values), alpha
    is_rejecting = True
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if is_rejecting:
            level = alpha / (len(p_values) - rank)
        levels[place] = level
        is_rejecting = is_rejecting and p_values[place] < level
    return levels


def probability_better(differences: Sequence[float]) -> float:
    """P(A > B): the fraction of pairs in which the first is better; ties count half (Bouthillier, MLSys 2021)."""
    return sum((difference > 0) + (difference == 0) / 2 for difference in differences) / len(differences)


def score_images(task: Task, outputs: Outputs) -> Float64[np.ndarray, " n"]:
    """A value for each image, whose mean is the task's metric, and whose variance gives the variance of the metric.

    For the accuracy, 1 for a correct image and 0 for others; for the mean absolute error, the error. For a metric that
    is no mean over images, its value plus n times the image's influence, which linearizes it (infinitesimal jackknife).

    Raises:
        DataError: The metric is undefined, because all images have the same target.
    """
    logits, targets = torch.from_numpy(outputs.logits).double(), torch.from_numpy(np.array(outputs.targets))
    match task:
        case SingleLabel():
            values = task.probabilities(logits)
            chosen, truth = (one_hot(each, task.outputs).bool() for each in (logits.argmax(dim=1), targets))
        case Binary():
            yes, values = task.decide(logits)[:, 0], torch.cat([-logits, logits], dim=1)
            chosen, truth = (torch.stack([~each, each], dim=1) for each in (yes, targets))
        case MultiLabel():
            values, chosen, truth = logits, task.decide(logits), targets
        case _:
            values, chosen, truth = logits, logits, targets.double()
    metric = find_metric(task)
    found = measure(metric, values, chosen, truth)
    if found is None:
        raise DataError(f"The {Score(metric, 0.0).title} of the {outputs.split} images is undefined. Add images.")
    return np.round((found.value + len(truth) * found.influences).numpy(), 12)


def find_metric(task: Task) -> MetricName:
    return cast(MetricName, task.metric or task.kind.metrics[0])
