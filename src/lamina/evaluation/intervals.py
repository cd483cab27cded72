"""Confidence intervals of accuracies and of means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lamina.errors import LaminaError

LEVEL = 0.95
"""The probability with which an interval holds the true value."""


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, in the unit of the measurement."""

    low: float
    high: float


@dataclass(frozen=True)
class MeanInterval:
    """The mean of ``count`` values and its interval, whose ends are ``None`` for a single value."""

    mean: float
    low: float | None
    high: float | None
    count: int


def wilson_interval(correct: int, total: int) -> Interval:
    """Wilson's 95 % score interval of the fraction ``correct / total``; both ends are from 0 to 1.

    Unlike mean ± z·sd it stays within 0 … 1, and is valid near the ends and for few images.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of the American
    Statistical Association 22 (1927), 209-212: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), where z is the
    normal quantile.

    Raises:
        LaminaError: unless 0 ≤ correct ≤ total and 1 ≤ total.

    >>> interval = wilson_interval(7552, 10_000)
    >>> print(f"{interval.low:.4f} {interval.high:.4f}")
    0.7467 0.7635
    """
    if not 0 <= correct <= total or total == 0:
        raise LaminaError(f"Expected 0 ≤ correct ≤ total and a total of at least 1, got {correct} of {total}.")
    z = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
    fraction = correct / total
    centre = fraction + z**2 / (2 * total)
    half_width = z * math.sqrt(fraction * (1 - fraction) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    # With none or all correct the end is exactly 0 or 1; rounding must not move it past the fraction.
    return Interval(
        low=min((centre - half_width) / scale, fraction) if correct else 0.0,
        high=max((centre + half_width) / scale, fraction) if correct < total else 1.0,
    )


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """The mean of independent measurements, such as the scores of several seeds, with Student's 95 % t interval.

    It assumes that they are normally distributed. Student, The probable error of a mean, Biometrika 6 (1908), 1-25.

    Raises:
        LaminaError: there are no values, or one is NaN or infinity.

    >>> interval = mean_interval([0.7512, 0.7548, 0.7560])
    >>> print(f"{interval.mean:.3f} from {interval.low:.3f} to {interval.high:.3f}")
    0.754 from 0.748 to 0.760
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise LaminaError(f"Expected at least one value, and finite ones, got {list(values)}.")
    count = len(values)
    mean = statistics.fmean(values)
    if count == 1:
        return MeanInterval(mean, None, None, count)
    half_width = t_quantile(count - 1) * statistics.stdev(values) / math.sqrt(count)
    return MeanInterval(mean, mean - half_width, mean + half_width, count)


def t_quantile(degrees_of_freedom: int) -> float:
    """The t for which Student's T lies between -t and t with probability 0.95.

    >>> round(t_quantile(2), 3)
    4.303
    """
    # The probability grows with the angle whose tangent is t/√ν; being bounded, it can be found by bisection.
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        is_below = _probability_within(middle, degrees_of_freedom) < LEVEL
        low, high = (middle, high) if is_below else (low, middle)
    return math.sqrt(degrees_of_freedom) * math.tan(low)


def _probability_within(angle: float, degrees_of_freedom: int) -> float:
    """P(|T| < √ν·tan(angle)), by the finite series 26.7.3 and 26.7.4 of Abramowitz and Stegun (1964)."""
    odd = degrees_of_freedom % 2
    cosine = math.cos(angle)
    series, term = 0.0, cosine**odd
    for exponent in range(odd, degrees_of_freedom - 1, 2):
        series += term
        term *= cosine**2 * (exponent + 1) / (exponent + 2)
    within = math.sin(angle) * series
    return (angle + within) * 2 / math.pi if odd else within
