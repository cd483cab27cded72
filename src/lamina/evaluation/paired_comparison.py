"""``PairedComparison``: the difference of two runs or experiments, with a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lamina.evaluation.difference_sketch import sketch_differences
from lamina.evaluation.intervals import mean_interval
from lamina.evaluation.paired import LOOKS, MOST_SEEDS, Effect, Verdict
from lamina.evaluation.report import count_images, describe_deviation
from lamina.evaluation.shared_images import Sharing
from lamina.markup import Markup, Table
from lamina.shown import Shown
from lamina.targets import Score
from lamina.training.events import Event
from lamina.values import to_json_values


@dataclass(frozen=True)
class PairedComparison(Shown, Event):
    """Compares two runs or experiments, A and B; differences are positive if A is better.

    Verdict, intervals and the number of seeds needed follow from the effect and the level.
    """

    texts: ClassVar[int] = 3
    a: str  # name of A
    b: str  # name of B, the reference
    metric: str  # name of the score
    split: str  # that was evaluated
    a_score: float  # mean over seeds
    b_score: float
    effect: Effect  # the difference with its variances
    level: float  # of all intervals: 0.95, or more if there are several looks or comparisons
    last_level: float  # of the intervals at the last look
    margin: float  # largest difference that counts as equal
    differences: tuple[float, ...]  # of each seed, or of each fold
    images: int
    # standard deviations over seeds, excluding variation due to images; ``None`` for one seed
    a_deviation: float | None = None
    b_deviation: float | None = None
    groups: int | None = None  # number of groups of images; ``None`` if images are not grouped
    folds: int | None = None  # number of folds; ``None`` if all pairs have the same images
    # which images were compared, if the runs were evaluated on different ones
    sharing: Sharing | None = None

    @property
    def difference(self) -> float:
        """The mean difference over seeds."""
        return self.effect.difference

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the difference for new images and, with several seeds, new seeds."""
        interval = self.effect.interval(self.level)
        return interval.low, interval.high

    @property
    def verdict(self) -> Verdict:
        """Whether A is better, worse or equal, by the interval and the margin."""
        return self.effect.judge(self.margin, self.level)

    @property
    def seeds(self) -> int:
        """The number of seeds, of pairs of models, or of folds."""
        return len(self.differences)

    @property
    def seeds_interval(self) -> tuple[float, float] | None:
        """The interval for new seeds on these images; ``None`` for one seed, and for folds."""
        mean = mean_interval(self.differences, self.level)
        if self.folds is not None or mean.low is None or mean.high is None:
            return None
        interval = self.effect.clip(mean.low, mean.high)
        return interval.low, interval.high

    @property
    def seeds_to_detect(self) -> int | None:
        """The number of seeds that would detect a difference of the margin.

        ``None`` if it is more than 1,000, for one seed, and for folds.
        """
        if self.folds is not None:
            return None
        return self.effect.seeds_to_detect(self.margin, self.level)

    @property
    def image_half_width(self) -> float:
        """Half the width of the interval at the last look, with any number of seeds."""
        return self.effect.image_half_width(self.last_level)

    @property
    def is_limited(self) -> bool:
        """Whether the images alone prevent a verdict, with any number of seeds.

        More seeds on these images would find a difference within ``seeds_interval``. No difference
        in it leads to a verdict if all are within the interval that the images leave, and that
        interval is wider than the margin. With fewer than four seeds, ``seeds_interval`` is too
        imprecise.
        """
        if self.seeds_interval is None or self.seeds < min(LOOKS):
            return False
        largest = max(map(abs, self.seeds_interval))
        return self.image_half_width >= max(self.margin, largest)

    @property
    def is_decided(self) -> bool:
        """Whether there is a verdict, or more seeds cannot lead to one."""
        return self.verdict != "undecided" or self.is_limited

    def headline(self) -> str:
        """The verdict in words, with interval, number of seeds and images, and margin."""
        if self.folds is not None:
            return self._describe_verdict(f"{self.folds} folds, {self._images}")
        if self.seeds == 1:
            text = self._describe_verdict(f"one pair of models, {self._images}")
            return f"{text}; other seeds may differ"
        return self._describe_verdict(f"{self.seeds} seeds, {self._images}")

    def _describe_verdict(self, size: str) -> str:
        margin = self.format(self.margin, unit=True)
        low, high = self.interval
        if self.verdict == "undecided":
            interval = self._range(low, high, unit=True)
            return f"undecided: {interval} ({self._level}; {size}){self._advise()}"
        if self.verdict == "equal":
            return f"equal within {margin} ({self._level} {self._range(low, high)}; {size})"
        if self.verdict == "worse":
            low, high = -high, -low
        difference = self.format(abs(self.difference), unit=True)
        if abs(self.difference) < self.margin:
            difference += f", less than the margin of {margin},"
        interval = f"{self._level} {self._range(low, high)}"
        return f"A is {self.verdict} by {difference} ({interval}; {size})"

    def _advise(self) -> str:
        """What more seeds would do."""
        if self.seeds == 1 or self.folds is not None:
            return ""
        if self.is_limited:
            left = self.format(self.image_half_width, unit=True)
            return f"; more seeds will not help: {self._images} leave ±{left}"
        margin = self.format(self.margin, unit=True)
        if self.seeds_to_detect is None:
            return f"; perhaps more than {MOST_SEEDS:,} seeds are needed to detect {margin}"
        return f"; about {self.seeds_to_detect} seeds would detect {margin}"

    @property
    def _images(self) -> str:
        return count_images(self.images, self.groups)

    @property
    def _level(self) -> str:
        return f"{100 * self.level:.4g} % interval"

    def format(self, value: float, *, unit: bool = False) -> str:
        """A difference, in percentage points if the metric is a fraction."""
        if not Score(self.metric, value).is_fraction:
            return f"{value:z.3g}".replace("-", "−")
        width = self.interval[1] - self.interval[0]
        digits = 2 if self.margin < 0.001 or 0 < width < 0.001 else 1
        return f"{100 * value:z.{digits}f}{' points' * unit}".replace("-", "−")

    def _range(self, low: float, high: float, *, unit: bool = False) -> str:
        return f"{self.format(low)} to {self.format(high, unit=unit)}"

    def table(self) -> Table:
        """The headings and rows of a table of A and B with their scores."""
        rows = [("A", self.a, self.a_words), ("B", self.b, self.b_words)]
        return ("", "net or run", self.split), rows

    @property
    def a_words(self) -> str:
        """The score of A with its standard deviation over seeds."""
        return self._describe_score(self.a_score, self.a_deviation)

    @property
    def b_words(self) -> str:
        """The score of B with its standard deviation over seeds."""
        return self._describe_score(self.b_score, self.b_deviation)

    def _describe_score(self, value: float, deviation: float | None) -> str:
        score = Score(self.metric, value)
        return f"{score}{describe_deviation(score, deviation)}"

    def remarks(self) -> list[str]:
        """The images, the interval for new seeds, and in how many pairs or folds A is better."""
        lines = [] if self.sharing is None else self.sharing.lines(self.metric)
        better = sum(difference > 0 for difference in self.differences)
        equal = sum(difference == 0 for difference in self.differences)
        pairs = f"{better} of {self.seeds} {'pairs' if self.folds is None else 'folds'}"
        if equal:
            pairs += f", equal in {equal}"
        if self.folds is not None:
            text = "the interval allows for overlapping training sets"
            return [*lines, f"A is better in {pairs}; {text}"]
        if self.seeds_interval is None:
            return lines
        interval = self._range(*self.seeds_interval, unit=True)
        seeds = f"for new seeds on these images: {interval} ({self._level})"
        return [*lines, f"{seeds}; A is better in {pairs}"]

    def figures(self) -> Sequence[Markup]:
        """The difference with its intervals."""
        return [sketch_differences([self])]

    def to_json(self) -> dict[str, Any]:
        """The fields, and what follows from them."""
        names = ("difference", "interval", "verdict", "seeds", "seeds_interval", "seeds_to_detect")
        derived = {name: to_json_values(getattr(self, name)) for name in names}
        words = {"words": self.headline(), "remarks": self.remarks()}
        return {"event": "comparison", **words, **derived, **super().to_json()}
