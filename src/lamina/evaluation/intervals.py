"""Confidence intervals: for fractions, other metrics, and means over seeds."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

Groups: TypeAlias = Int64[Tensor, " n"]
"""The number of each image's group, such as its patient or video."""
ALPHA = 0.05  # significance level
LEVEL = 1 - ALPHA
Z = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
ALL = slice(None)  # images
ROUNDING = 1e-15  # variances below are rounding errors
NEWTON_STEPS = 40
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)  # to integrate numerically from -1 to 1


@dataclass(frozen=True)
class Interval:
    """An interval from ``low`` to ``high``, in the unit of the metric."""

    low: float
    high: float


@dataclass(frozen=True)
class MeanInterval:
    """The mean of ``count`` values; ``low`` and ``high`` are ``None`` for a single value."""

    mean: float
    low: float | None
    high: float | None
    count: int


def wilson_interval(correct: float, total: float, design_effect: float = 1.0) -> Interval:
    """Wilson's 95 % interval (1927) of ``correct / total``; valid near 0 and 1 and for few images.

    With a design effect, that many images count as one (:func:`measure_design_effect`).
    """
    fraction = correct / total
    images = total / design_effect
    center = fraction + Z**2 / (2 * images)
    half_width = Z * math.sqrt(fraction * (1 - fraction) / images + Z**2 / (4 * images**2))
    scale = 1 + Z**2 / images
    # With none or all correct, one end is exactly 0 or 1; rounding must not move it past the
    # fraction.
    return Interval(
        low=min((center - half_width) / scale, fraction) if correct else 0.0,
        high=max((center + half_width) / scale, fraction) if correct < total else 1.0,
    )


def influence_interval(
    value: float,
    influences: Float64[Tensor, " n"],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval | None:
    """The 95 % interval of a metric on n images, by Student's t; ``None`` for one image."""
    # Influences are the derivatives of the metric by the weight of each image. Their squares sum to
    # its variance: the infinitesimal jackknife (Efron, The Jackknife, the Bootstrap and Other
    # Resampling Plans, 1982, chapter 6).
    count = len(influences)
    if count == 1:
        return None
    half_width = t_quantile(count - 1) * math.sqrt(
        float(influences.square().sum()) * count / (count - 1)
    )
    low, high = bounds
    return Interval(max(value - half_width, low), min(value + half_width, high))


def number_groups(groups: Sequence[str]) -> Groups | None:
    """The number of each image's group; ``None`` if no two images share one."""
    names, numbers = np.unique(np.array(groups, np.str_), return_inverse=True)
    return torch.from_numpy(numbers) if len(names) < len(groups) else None


def sum_by_group(values: Float64[Tensor, "*s n"], groups: Groups | None) -> Float64[Tensor, "*s g"]:
    """The sums of the images' values in each group; without groups, the values.

    Images of a group are not independent, but groups are. A mean over images is a sum of the
    groups' influences, whose squares sum to its variance (the ultimate clusters of Hansen, Hurwitz
    and Madow, Sample Survey Methods and Theory, 1953; Miller, arXiv 2411.00640, 2024).
    """
    if groups is None:
        return values
    names, places = groups.unique(return_inverse=True)
    return values.new_zeros(*values.shape[:-1], len(names)).index_add_(-1, places, values)


def count_independent(value: float, influences: Float64[Tensor, " n"], count: int) -> float:
    """The number of independent images at which a fraction has this variance.

    Korn and Graubard, Survey Methodology 24 (1998), 193-201. ``influences`` has one value for each
    of ``count`` images or groups; without variance, the number is ``count``.
    """
    variance = float(influences.square().sum())
    binomial = value * (1 - value)
    if min(variance, binomial) <= ROUNDING or math.isclose(binomial, variance * count):
        return float(count)
    images = binomial / variance
    if count > 1:  # the variance is an estimate
        images *= (1 - 1 / count) * (Z / t_quantile(count - 1)) ** 2
    return images


def measure_design_effect(
    hits: Bool[np.ndarray, " n"],
    groups: Groups | None,
    rows: Bool[np.ndarray, " n"] | slice = ALL,
) -> float:
    """The number of images that count as one in the fraction of hits in ``rows`` (Kish, 1965).

    At least 1, and 1 for images without groups.
    """
    if groups is None or not hits[rows].size:
        return 1.0
    values = torch.from_numpy(hits[rows]).double()
    fraction = float(values.mean())
    influences = sum_by_group((values - fraction) / len(values), groups[rows])
    return max(len(values) / count_independent(fraction, influences, len(influences)), 1.0)


class MeanOfFractions:
    """The 95 % interval of a mean of fractions, which are added one after another.

    For one accuracy, it is Wilson's interval; for a balanced accuracy, it combines Wilson's
    intervals of the recalls. Each fraction gets Wilson's interval for the number of images at which
    a proportion has its variance (:func:`count_independent`). The intervals are combined with their
    correlations (MOVER: Zou and Donner, Statistics in Medicine 27 (2008), 1693-1702).
    """

    def __init__(self) -> None:
        self._values: list[float] = []
        self._steps = torch.zeros(2, 1, dtype=torch.float64)
        self._squares = torch.zeros(2, dtype=torch.float64)

    def add(self, value: float, influences: Float64[Tensor, " n"], count: int) -> None:
        """Add a fraction of ``count`` images, with the influences of all images or groups."""
        self._values.append(value)
        variance = float(influences.square().sum())
        images = count_independent(value, influences, count)
        interval = wilson_interval(value * images, images)
        widths = torch.tensor([value - interval.low, interval.high - value], dtype=torch.float64)
        if min(variance, value * (1 - value)) > ROUNDING:
            self._steps = self._steps + widths[:, None] * influences / math.sqrt(variance)
        else:
            self._squares += widths.square()

    def interval(self) -> Interval:
        mean = statistics.fmean(self._values)
        squares = self._squares + self._steps.square().sum(dim=1)
        down, up = (squares.sqrt() / len(self._values)).tolist()
        return Interval(max(mean - down, 0.0), min(mean + up, 1.0))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> MeanInterval:
    """The mean of values such as the scores of several seeds, with Student's interval."""
    count = len(values)
    mean = statistics.fmean(values)
    if count == 1:
        return MeanInterval(mean, None, None, count)
    half_width = t_quantile(count - 1, level) * statistics.stdev(values) / math.sqrt(count)
    return MeanInterval(mean, mean - half_width, mean + half_width, count)


@functools.cache
def t_quantile(degrees_of_freedom: int, level: float = LEVEL) -> float:
    """The t for which Student's T lies between -t and t with probability ``level``."""
    # With t = √ν·tan(angle), the probability is the integral of cos(x)^(ν - 1) from 0 to the angle,
    # times a constant. It is concave in t, so Newton's method approaches t from below.
    root = math.sqrt(degrees_of_freedom)
    logs = math.lgamma((degrees_of_freedom + 1) / 2) - math.lgamma(degrees_of_freedom / 2)
    constant = 2 * math.exp(logs) / math.sqrt(math.pi)
    quantile = statistics.NormalDist().inv_cdf((1 + level) / 2)  # t is larger
    for _ in range(NEWTON_STEPS):
        angle = math.atan(quantile / root)
        powers = np.cos(angle * (NODES + 1) / 2) ** (degrees_of_freedom - 1)
        probability = constant * angle / 2 * float(WEIGHTS @ powers)
        density = constant * math.cos(angle) ** (degrees_of_freedom + 1) / root
        quantile += (level - probability) / density
    return quantile
