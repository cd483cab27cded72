"""``PairedComparison``: the difference of two runs or experiments, with a verdict in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lamina.errors import plural
from lamina.evaluation.paired import MOST_SEEDS, Verdict
from lamina.targets import Score
from lamina.training.events import Event


@dataclass(frozen=True)
class PairedComparison(Event):
    """Compares two runs or experiments, A and B; differences are positive if A is better."""

    a: str  # name of A
    b: str  # name of B, the reference
    metric: str  # name of the score
    split: str  # that was evaluated
    a_score: float  # mean over seeds
    b_score: float
    difference: float  # mean over seeds
    level: float  # of all intervals: 0.95, or more if there are several looks or comparisons
    interval: tuple[float, float]  # for new images and, with several seeds, new seeds
    # for new seeds on these images; ``None`` for one seed
    seeds_interval: tuple[float, float] | None
    differences: tuple[float, ...]  # of each seed
    images: int
    probability_better: float  # P(A > B) for one seed, on these images
    margin: float  # largest difference that counts as equal
    # the margin, or a larger difference that was found; ``None`` if more than 1,000
    seeds_to_detect: int | None
    # of the interval that would remain with any number of seeds, at the last look
    image_half_width: float
    verdict: Verdict  # on A
    train_seconds: tuple[float, float]  # means for A and B
    # score on val that all runs reach; mean seconds of A and B
    val_reached: tuple[float, float, float] | None = None
    # seconds; mean scores on val of A and B
    val_at_equal_seconds: tuple[float, float, float] | None = None

    @property
    def seeds(self) -> int:
        """The number of seeds, or of pairs of models."""
        return len(self.differences)

    @property
    def target(self) -> float:
        """The difference to detect: the margin, or a larger one that was found."""
        return max(self.margin, abs(self.difference))

    @property
    def is_limited(self) -> bool:
        """Whether the images alone prevent a verdict, with any number of seeds."""
        return self.image_half_width >= self.target

    @property
    def words(self) -> str:
        """The verdict in words, with interval, number of seeds and images, and margin."""
        images, margin = (
            plural(self.images, "image", "images"),
            self._format(self.margin, unit=True),
        )
        size = f"{'one pair of models' if self.seeds == 1 else f'{self.seeds} seeds'}, {images}"
        if self.verdict in ("better", "worse"):
            low, high = (
                self.interval
                if self.verdict == "better"
                else (-self.interval[1], -self.interval[0])
            )
            is_small = (
                f", less than the margin of {margin}," if abs(self.difference) < self.margin else ""
            )
            by_holm = "; significant by Holm's method" if low <= 0 else ""
            difference = f"{self._format(abs(self.difference), unit=True)}{is_small}"
            text = (
                f"A is {self.verdict} by {difference} ({self._level} {self._range(low, high)};"
                f" {size}{by_holm})"
            )
        elif self.verdict == "equal":
            text = f"equal within {margin} ({self._level} {self._range(*self.interval)}; {size})"
        else:
            text = (
                f"undecided: {self._range(*self.interval, unit=True)} ({self._level};"
                f" {size}){self._advice(images)}"
            )
        return f"{text}; other seeds may differ" if self.seeds == 1 else text

    def _advice(self, images: str) -> str:
        """What more seeds would do."""
        target, left = (
            self._format(value, unit=True) for value in (self.target, self.image_half_width)
        )
        if self.seeds == 1:
            return ""
        if self.is_limited:
            return f"; more seeds will not help: {images} leave ±{left}"
        if self.seeds_to_detect is None:
            return f"; perhaps more than {MOST_SEEDS:,} seeds are needed to detect {target}"
        return f"; about {self.seeds_to_detect} seeds would detect {target}"

    @property
    def _level(self) -> str:
        return f"{100 * self.level:.4g} % interval"

    def _format(self, value: float, *, unit: bool = False) -> str:
        if not Score(self.metric, value).is_fraction:
            return f"{value:z.3g}".replace("-", "−")
        width = self.interval[1] - self.interval[0]
        digits = 2 if self.margin < 0.001 or 0 < width < 0.001 else 1
        return f"{100 * value:z.{digits}f}{' points' * unit}".replace("-", "−")

    def _range(self, low: float, high: float, *, unit: bool = False) -> str:
        return f"{self._format(low)} to {self._format(high, unit=unit)}"

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"event": "comparison", "seeds": self.seeds, "words": self.words}

    def __str__(self) -> str:
        a, b = (Score(self.metric, score) for score in (self.a_score, self.b_score))
        lines = [f"A {self.a}: {self.split} {a}", f"B {self.b}: {self.split} {b}", self.words]
        if self.seeds_interval is not None:
            better = sum(difference > 0 for difference in self.differences)
            equal = sum(difference == 0 for difference in self.differences)
            pairs = f"{better} of {self.seeds} pairs"
            if equal:
                pairs += f", equal in {equal}"
            lines.append(
                f"for new seeds on these images: {self._range(*self.seeds_interval, unit=True)} "
                f"({self._level}); A is better in {pairs}"
            )
        lines.append("training time: A {:.1f} s, B {:.1f} s".format(*self.train_seconds))
        if self.val_reached is not None and self.val_at_equal_seconds is not None:
            score, (reached, *took), (seconds, *scores) = (
                a,
                self.val_reached,
                self.val_at_equal_seconds,
            )
            title, common = f"val {score.title}", score.format(reached)
            lines.append(
                "time to {} {} (all runs reach it): A {:.1f} s, B {:.1f} s".format(
                    title, common, *took
                )
            )
            lines.append(
                "{} after {:.1f} s: A {}, B {}".format(title, seconds, *map(score.format, scores))
            )
        return "\n".join(lines)
