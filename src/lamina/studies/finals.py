"""The end of a tuning: retrain the best with other seeds, choose on ``val``, evaluate on test."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lamina.errors import NotFiniteError, RunError, plural
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.evaluation.report import describe_deviation
from lamina.markup import card, table, wrap
from lamina.runs.run import Run
from lamina.runs.start import shorten_net_name
from lamina.studies.experiment import Decision, Events, Experiment
from lamina.studies.forks import Planned, iter_runs
from lamina.studies.judging import judge_runs, measure_deviation
from lamina.studies.search import Search, score_on
from lamina.studies.trials import Trial, describe_values
from lamina.targets import Score
from lamina.text import format_table
from lamina.training.events import Event

FINALISTS = 3  # trials; the recipe without searched values is one more
SEEDS = 2  # new ones that choose the winner
TESTS = 4  # fresh seeds that test it


@dataclass(frozen=True)
class Finalist:
    """Values of the search that were trained again, with other seeds.

    Attributes:
        name: ``trial 7``, or the net and recipe without searched values.
        values: The searched values by name.
        search_score: The score on ``val`` by which the search found them; ``None`` for the recipe
            itself, and for a trial that was stopped.
        scores: The scores on ``val`` with the other seeds.
        deviation: Their standard deviation over seeds, excluding variation due to the images.
    """

    name: str
    values: dict[str, Any]
    search_score: float | None = None
    scores: tuple[float, ...] = ()
    deviation: float | None = None

    @property
    def mean(self) -> float:
        """The mean of the scores with the other seeds."""
        return statistics.fmean(self.scores)

    def complete(self, runs: Mapping[int, Run]) -> Finalist:
        """The finalist with the scores of its runs."""
        trained = list(runs.values())
        scores = tuple(score_on(run, "val") for run in trained)
        return replace(self, scores=scores, deviation=measure_deviation(trained))


@dataclass(frozen=True)
class Tuned(Event):
    """The result of a tuning. In JSON, the event is called ``study``.

    Attributes:
        study: Folder of the study.
        trials: Number of trials of the search.
        metric: Name of the score.
        finalists: The values that were trained again, best first; the recipe itself is among them.
        winner: The best of them on ``val``.
        comparison: The winner compared with the recipe itself on ``test``, with fresh seeds that
            were not used to choose; ``None`` without ``test``, if sizes of the net were searched
            (there is no recipe without them), or if the recipe is the winner.
        test_scores: Scores of the winner on ``test``, one for each fresh seed; empty without a
            ``test`` split.
        test_deviation: Their standard deviation over seeds, excluding variation due to the images.
        diverged: Number of fresh seeds with which the winner diverged.
    """

    study: str
    trials: int
    metric: str
    finalists: tuple[Finalist, ...]
    winner: Finalist
    comparison: PairedComparison | None = None
    test_scores: tuple[float, ...] = ()
    test_deviation: float | None = None
    diverged: int = 0

    @property
    def luck(self) -> float | None:
        """How much better the winner scored in the search than in the finals, if it has both."""
        if self.winner.search_score is None:
            return None
        luck = self.winner.search_score - self.winner.mean
        return -luck if self._score.lower_is_better else luck

    @property
    def test_mean(self) -> float | None:
        return statistics.fmean(self.test_scores) if self.test_scores else None

    @property
    def _score(self) -> Score:
        """The score that formats values of the metric."""
        return Score(self.metric, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Also ``best``, the winner's values, its scores ``val`` and ``test``, and ``luck``."""
        return super().to_json() | {
            "event": "study",
            "best": dict(self.winner.values),
            "val": self.winner.mean,
            "test": self.test_mean,
            "luck": self.luck,
        }

    def __str__(self) -> str:
        return "\n".join([format_table(*self.table(), texts=2), *self.summary_lines()])

    def _repr_html_(self) -> str:
        lines = (wrap("p", line) for line in self.summary_lines())
        return card(f"Study {self.study}", table(*self.table(), texts=2), *lines)

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The headings and rows of the table of finalists."""
        heads = ("finalist", "values", "val, search")
        rows = []
        for finalist in self.finalists:
            searched = ""
            if finalist.search_score is not None:
                searched = self._score.format(finalist.search_score)
            values = describe_values(finalist.values)
            mean = self._score.format(finalist.mean)
            mean += describe_deviation(self._score, finalist.deviation)
            rows.append((finalist.name, values, searched, mean))
        return (*heads, f"val, mean of {len(self.winner.scores)} seeds"), rows

    def summary_lines(self) -> list[str]:
        """The winner, its luck, its ``test`` score and the comparison, in words."""
        score = self._score
        winner = self.winner
        values = describe_values(winner.values) or "no searched values beat the recipe on val"
        lines = [f"best: {winner.name}: {values}"]
        if self.luck is not None:
            luck = f"{abs(self.luck):.4g}"
            if score.is_fraction:
                luck = f"{abs(100 * self.luck):.2f} points"
            how = "worse" if self.luck < 0 else "better"
            lines.append(f"luck: {luck} {how} in the search than on average with new seeds")
        lines.append(f"runs of the best: {Path(self.study) / name_final(winner.name, '*')}")
        if self.test_mean is None and self.diverged:
            lines.append("the best diverged with all fresh seeds, so it has no test score")
        elif self.test_mean is None:
            lines.append(
                "without a test split, there is no score on unseen images; draw one with --test 0.2"
            )
        else:
            count = plural(len(self.test_scores), "fresh seed", "fresh seeds")
            if self.diverged:
                count += f"; {self.diverged} more diverged"
            mean = f"{score.format(self.test_mean)}, mean of {count}"
            mean += describe_deviation(score, self.test_deviation)
            lines.append(f"test {score.title} of the best: {mean}")
        if self.comparison is not None:
            words = self.comparison.headline().replace("A is", "the best is", 1)
            lines.append(f"compared with {self.comparison.b} on {self.comparison.split}: {words}")
        return lines


def name_final(finalist: str, seed: object) -> str:
    """The name of a run of the finals."""
    return f"final-{shorten_net_name(finalist)[:40]}-seed{seed}"


def count_finals(search: Search, finalists: int) -> int:
    """The number of runs in the finals: to choose the winner, and to test it with the recipe."""
    has_base = search.base is not None
    has_test = search.dataset.test is not None
    return (finalists + has_base) * SEEDS + has_test * (1 + has_base) * TESTS


def iter_finals(
    search: Search, folder: Path, trials: Sequence[Trial], finalists: Sequence[int]
) -> Events[Tuned]:
    """Train the best trials and the recipe itself with other seeds; returns the result.

    Fresh seeds test the winner, because the runs that chose it would score too well.
    """
    ranked: list[Finalist] = []
    experiments: dict[str, Experiment] = {}
    if search.base is not None:  # first, so that it wins a tie
        ranked.append(Finalist(search.title, {}))
        experiments[search.title] = search.base
    by_number = {trial.trial: trial for trial in trials}
    for number in finalists:
        trial = by_number[number]
        name = f"trial {number}"
        score = None if trial.state == "pruned" else trial.score
        ranked.append(Finalist(name, dict(trial.values), score))
        experiments[name] = search.make(trial.values)
    first = search.seed + 1
    fresh = first + SEEDS
    trained = yield from _iter_seeds(search, folder, experiments, range(first, fresh))
    ranked = [
        finalist.complete(trained[finalist.name])
        for finalist in ranked
        if len(trained[finalist.name]) == SEEDS
    ]
    if not ranked:
        raise RunError("All finalists diverged, so there is no result. Search other ranges.")
    lower_is_better = Score(search.metric, 0.0).lower_is_better
    ranked.sort(key=lambda finalist: finalist.mean, reverse=not lower_is_better)
    best = ranked[0]
    count = sum(trial.is_counted for trial in trials)
    tuned = Tuned(str(folder), count, search.metric, tuple(ranked), best)
    if search.dataset.test is None:
        return tuned
    # all choices are made, so fresh runs may read the test images
    names = [best.name, *(finalist.name for finalist in ranked[1:] if not finalist.values)]
    tested = {name: replace(experiments[name], dataset=search.dataset) for name in names}
    trained = yield from _iter_seeds(search, folder, tested, range(fresh, fresh + TESTS))
    comparison = None
    shared = set.intersection(*map(set, trained.values()))
    if len(names) > 1 and len(shared) > 1:
        pairs = {name: [runs[seed] for seed in sorted(shared)] for name, runs in trained.items()}
        comparison = judge_runs(pairs)[0]
    runs = list(trained[best.name].values())
    return replace(
        tuned,
        comparison=comparison,
        test_scores=tuple(score_on(run, "test") for run in runs),
        test_deviation=measure_deviation(runs),
        diverged=TESTS - len(runs),
    )


def _iter_seeds(
    search: Search, folder: Path, experiments: Mapping[str, Experiment], seeds: range
) -> Events[dict[str, dict[int, Run]]]:
    """Train each experiment with new seeds; its runs by seed, without those that diverged."""
    trained: dict[str, dict[int, Run]] = {name: {} for name in experiments}
    places = {
        folder / name_final(name, seed): (name, seed)
        for name, seed in itertools.product(experiments, seeds)
    }
    planned = [
        Planned(path, partial(experiments[name].with_seed, seed))
        for path, (name, seed) in places.items()
    ]
    runs = yield from iter_runs(planned, search.setup)
    for path, run in runs.items():
        name, seed = places[path]
        try:
            score_on(run, "val")
        except NotFiniteError as error:
            yield Decision("warning", f"{path.name} diverged", str(error))
        else:
            trained[name][seed] = run
    return trained
