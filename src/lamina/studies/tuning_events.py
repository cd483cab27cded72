"""Events and result of a tuning."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.errors import escape, plural
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.markup import card, table, wrap
from lamina.targets import Score
from lamina.text import format_table
from lamina.training.events import Event


@dataclass(frozen=True)
class Tried(Event):
    """The end of a trial, and the progress of the search, without the finals."""

    trial: int
    values: Mapping[str, Any]
    score: Score | None  # after its last epoch
    end: str
    run: str
    done: int  # trials that have ended
    best: Score | None
    seconds_left: float

    def __str__(self) -> str:
        score = "" if self.score is None else f"val {self.score}, "
        text = f"trial {self.trial}: {describe_values(self.values)}: {score}{self.end} ({escape(self.run)})"
        best = "" if self.best is None else f", best {self.best.format(self.best.value)}"
        left = f", {format_minutes(self.seconds_left)} left" if self.seconds_left else ""
        return f"{text}; {plural(self.done, 'trial', 'trials')} done{best}{left}"


@dataclass(frozen=True)
class Finalist:
    """Values of the search that were trained again, with other seeds.

    Attributes:
        name: ``trial 7``, or the net and recipe without searched values.
        values: The searched values by name.
        search_score: The score on ``val`` by which the search found them; ``None`` for the recipe itself.
        scores: The scores on ``val`` with the other seeds.
    """

    name: str
    values: dict[str, Any]
    search_score: float | None
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the scores with the other seeds."""
        return statistics.fmean(self.scores)


DERIVED = ("event", "best", "val", "test", "luck")
"""Keys of the JSON object of :class:`Tuned` that are not its fields."""


@dataclass(frozen=True)
class Tuned(Event):
    """The result of a tuning. In JSON, the event is called ``study``.

    Attributes:
        study: Folder of the study.
        trials: Number of trials of the search.
        metric: Name of the score.
        finalists: The values that were trained again, best first; the recipe itself is among them.
        winner: The best of them on ``val``.
        comparison: The winner compared with the recipe itself on ``test``; ``None`` without ``test``, if the net has
            searched sizes, and so no recipe without them, or if the recipe is the winner.
        test_scores: Scores of the winner on ``test``, one per seed; empty without a ``test`` split.
    """

    study: str
    trials: int
    metric: str
    finalists: tuple[Finalist, ...]
    winner: Finalist
    comparison: PairedComparison | None
    test_scores: tuple[float, ...]

    @property
    def luck(self) -> float | None:
        """How much better the winner scored in the search than with other seeds; ``None`` for the recipe itself."""
        if self.winner.search_score is None:
            return None
        luck = self.winner.search_score - self.winner.mean
        return -luck if Score(self.metric, 0.0).lower_is_better else luck

    @property
    def test_mean(self) -> float | None:
        return statistics.fmean(self.test_scores) if self.test_scores else None

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {
            "event": "study", "best": dict(self.winner.values), "val": self.winner.mean, "test": self.test_mean,
            "luck": self.luck,
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join([format_table(*self._table(), texts=2), *self._lines()])

    def _repr_html_(self) -> str:
        return card(f"Study {self.study}", table(*self._table(), texts=2), *(wrap("p", one) for one in self._lines()))

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        format_score = Score(self.metric, 0.0).format
        searched = ("" if one.search_score is None else format_score(one.search_score) for one in self.finalists)
        rows = [
            (one.name, describe_values(one.values), found, format_score(one.mean))
            for one, found in zip(self.finalists, searched, strict=True)
        ]
        return ("finalist", "values", "val, search", f"val, mean of {len(self.winner.scores)} seeds"), rows

    def _lines(self) -> list[str]:
        score, winner = Score(self.metric, 0.0), self.winner
        lines = [f"best: {winner.name}: {describe_values(winner.values)}"]
        if self.luck is None:
            lines = [f"best: {winner.name}: no searched values beat the recipe on val"]
        else:
            luck = f"{100 * self.luck:.2f} points" if score.is_fraction else f"{self.luck:.4g}"
            lines.append(f"luck in the search: {luck}, its score there minus its mean with new seeds")
        if self.test_mean is None:
            lines.append("no test split, so no score on images that no choice has seen; draw one with --test 0.2")
        else:
            mean = f"{score.format(self.test_mean)} (mean of {len(winner.scores)} seeds)"
            lines.append(f"test {score.title} of the best: {mean}")
        if self.comparison is not None:
            words = self.comparison.words.replace("A is", "the best is", 1)
            lines.append(f"compared with {self.comparison.b} on {self.comparison.split}: {words}")
        return lines


def format_minutes(seconds: float) -> str:
    """``about 2.5 min``, or seconds if they are fewer than 60."""
    return f"about {seconds:.0f} s" if seconds < 60 else f"about {seconds / 60:.{seconds < 600:d}f} min"


def describe_values(values: Mapping[str, Any]) -> str:
    """``lr 0.0312, batch_size 100``; numbers have three digits."""
    shown = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in values.values())
    return ", ".join(f"{name} {value}" for name, value in zip(values, shown, strict=True))
