"""Compare tables of scores by seed and image: of lamina's runs, or of any two methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from lamina.evaluation.intervals import ALPHA, Groups, mean_interval
from lamina.evaluation.paired import (
    LOOKS,
    Effect,
    Verdict,
    find_differences,
    measure_effect,
    probability_better,
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
        step: the largest change of the score that one image, or group, can cause; by default that
            of a mean.
        train_seconds: mean seconds of training, if known.
    """

    scores: Mapping[str, Float64[np.ndarray, "s n"]]
    metric: str
    split: str
    groups: Groups | None = None
    step: float | None = None
    train_seconds: Mapping[str, float] | None = None

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
        return measure_effect(self.find_differences(name), self.metric, self.groups, self.step)

    def find_differences(self, name: str) -> Float64[np.ndarray, "s n"]:
        """The differences of an experiment from the reference, positive if it is better."""
        *_, reference = self.scores.values()
        sign = -1 if self.score.lower_is_better else 1
        differences: Float64[np.ndarray, "s n"] = sign * (self.scores[name] - reference)
        return differences


def compare_tables(
    tables: ScoreTables, margin: float | None = None, alpha: float = ALPHA
) -> list[PairedComparison]:
    """Compare all experiments with the last, together at the significance level ``alpha``.

    Several comparisons are adjusted: differences by Holm's method, equality and intervals by
    Bonferroni's.
    """
    if margin is None:
        margin = tables.choose_margin()
    *names, _ = tables.scores
    effects = [tables.measure_effect(name) for name in names]
    are_different = find_differences(effects, alpha)
    level = 1 - alpha / len(names)
    last_level = 1 - max(alpha, *LOOKS.values()) / len(names)  # its interval is the narrowest
    comparisons = []
    for name, effect, is_different in zip(names, effects, are_different, strict=True):
        comparison = _describe(tables, name, effect, (level, last_level), margin)
        if is_different:
            verdict: Verdict = "better" if effect.difference > 0 else "worse"
            comparison = replace(comparison, verdict=verdict)
        comparisons.append(comparison)
    return comparisons


def _describe(
    tables: ScoreTables, name: str, effect: Effect, levels: tuple[float, float], margin: float
) -> PairedComparison:
    """The comparison at the level of this look; the second level is that of the last look."""
    level, last_level = levels
    *_, reference = tables.scores
    interval = effect.interval(level)
    table = tables.find_differences(name)
    differences = tuple(table.mean(axis=1).tolist())
    seeds_interval = None
    mean = mean_interval(differences, level)
    if mean.low is not None and mean.high is not None:
        for_seeds = effect.clip(mean.low, mean.high)
        seeds_interval = (for_seeds.low, for_seeds.high)
    groups = None
    if tables.groups is not None:
        groups = effect.images
    train_seconds = None
    if tables.train_seconds is not None:
        train_seconds = (tables.train_seconds[name], tables.train_seconds[reference])
    return PairedComparison(
        a=name,
        b=reference,
        metric=tables.metric,
        split=tables.split,
        a_score=float(tables.scores[name].mean()),
        b_score=tables.score.value,
        difference=effect.difference,
        level=level,
        interval=(interval.low, interval.high),
        seeds_interval=seeds_interval,
        differences=differences,
        images=table.shape[1],
        groups=groups,
        probability_better=probability_better(differences),
        margin=margin,
        seeds_to_detect=effect.seeds_to_detect(margin, 1 - level),
        image_half_width=effect.image_half_width(last_level),
        verdict=effect.judge(margin, 1 - level),
        a_deviation=seed_deviation(tables.scores[name], tables.groups),
        b_deviation=seed_deviation(tables.scores[reference], tables.groups),
        train_seconds=train_seconds,
    )
