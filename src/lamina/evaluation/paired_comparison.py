"""``PairedComparison``: the difference of two runs or experiments, with a verdict in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lamina.errors import plural
from lamina.evaluation.intervals import ALPHA
from lamina.evaluation.paired import Verdict
from lamina.targets import Score
from lamina.training.events import Event


@dataclass(frozen=True)
class PairedComparison(Event):
    """The comparison of two runs or experiments, A and B. Differences are positive if A is better."""

    a: str  # name of A
    b: str  # name of B, the reference
    metric: str  # name of the score
    split: str  # that was evaluated
    a_score: float  # mean over seeds
    b_score: float
    difference: float  # mean over seeds
    interval: tuple[float, float]  # 95 % interval for new images and, with several seeds, new seeds
    significance: float  # level of the tests: 0.05, or less if there are several looks or tests; the interval fits it
    seeds_interval: tuple[float, float] | None  # 95 % interval for new seeds on these images; ``None`` for one seed
    equality_interval: tuple[float, float]  # lies within the margin if the verdict is ``equal``
    differences: tuple[float, ...]  # of each seed
    images: int
    p_value: float  # of no difference
    probability_better: float  # P(A > B) for one seed, on these images
    margin: float  # largest difference that counts as equal
    seeds_to_detect: int | None  # the margin, or a larger difference that was found; ``None`` if no number does
    image_half_width: float  # of the 95 % interval that would remain with any number of seeds
    verdict: Verdict  # on A
    train_seconds: tuple[float, float] | None = None  # means for A and B
    equal_time: tuple[float, float, float] | None = None  # seconds of the faster, and the val scores of A and B then

    @property
    def seeds(self) -> int:
        """The number of seeds, or of pairs of models."""
        return len(self.differences)

    @property
    def words(self) -> str:
        """The verdict in words, with interval, number of seeds and images, and margin."""
        images, margin = plural(self.images, "image", "images"), self._format(self.margin, unit=True)
        size = f"{plural(self.seeds, 'seed', 'seeds')}, {images}"
        size += ", adjusted for several tests" if self.significance < ALPHA else ""
        if self.verdict in ("better", "worse"):
            is_small = abs(self.difference) < self.margin
            text = (
                f"A is {self.verdict} by {self._format(abs(self.difference), unit=True)}"
                f"{f', less than the margin of {margin},' if is_small else ''} (95 % interval "
                f"{self._range(self.interval)}; {size})"
            )
        elif self.verdict == "equal":
            inner = f"difference {self._format(self.difference)}, 90 % interval {self._range(self.equality_interval)}"
            text = f"equal within {margin} ({inner}; {size})"
        else:
            text = f"undecided: {self._range(self.interval)} (95 % interval; {size})"
        if self.seeds == 1:
            return f"{text}; other seeds may differ"
        if self.verdict != "undecided":
            return text
        if self.seeds_to_detect is None:
            return f"{text}; more seeds will not help: {images} leave ±{self._format(self.image_half_width)}"
        is_more = self.seeds_to_detect > self.seeds
        seeds = f"about {self.seeds_to_detect} seeds would" if is_more else f"{self.seeds} seeds usually"
        return f"{text}; {seeds} detect {self._format(max(self.margin, abs(self.difference)), unit=True)}"

    def _format(self, value: float, *, unit: bool = False) -> str:
        if not Score(self.metric, value).is_fraction:
            return f"{value:.3g}".replace("-", "−")
        width = self.interval[1] - self.interval[0]
        digits = 2 if self.margin < 0.001 or 0 < width < 0.001 else 1
        return f"{100 * value:.{digits}f}{' points' * unit}".replace("-", "−")

    def _range(self, ends: tuple[float, float]) -> str:
        return " to ".join(map(self._format, ends))

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"event": "comparison", "seeds": self.seeds, "words": self.words}

    def __str__(self) -> str:
        a, b = (Score(self.metric, score) for score in (self.a_score, self.b_score))
        lines = [f"A {self.a}: {self.split} {a}", f"B {self.b}: {self.split} {b}", self.words]
        if self.seeds_interval is not None:
            lines.append(
                f"on these images alone: {self._range(self.seeds_interval)} (95 % interval for new seeds); A is better "
                f"in {100 * self.probability_better:.0f} % of the pairs"
            )
        if self.train_seconds is not None:
            lines.append("training time: A {:.1f} s, B {:.1f} s".format(*self.train_seconds))
        if self.equal_time is not None:
            seconds, a_score, b_score = self.equal_time
            vals = f"A val {Score(self.metric, a_score)}, B val {Score(self.metric, b_score)}"
            lines.append(f"after {seconds:.1f} s: {vals}")
        return "\n".join(lines)
