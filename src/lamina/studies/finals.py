"""The end of a tuning: retrain the best with other seeds, choose on ``val``, evaluate on test."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.data import Dataset
from lamina.errors import NotFiniteError, RunError
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.files import read_object, write_json
from lamina.markup import card, table, wrap
from lamina.runs.folder import WINNER_FILE
from lamina.runs.run import Run
from lamina.runs.start import shorten_net_name
from lamina.studies.experiment import Decision, Events, Experiment
from lamina.studies.judging import judge_runs
from lamina.studies.search import Search, describe_values, score_on_val
from lamina.studies.study import parse_event
from lamina.studies.trials import FinalsPlan, Progress, find_run
from lamina.targets import Score
from lamina.text import format_table
from lamina.training.events import Event

FINAL = "final.json"
PLANS = ((5, 5), (4, 5), (3, 5), (2, 5), (2, 3))
"""Numbers of finalists and of seeds, from the most thorough."""


@dataclass(frozen=True)
class Finalist:
    """Values of the search that were trained again, with other seeds.

    Attributes:
        name: ``trial 7``, or the net and recipe without searched values.
        values: The searched values by name.
        search_score: The score on ``val`` by which the search found them; ``None`` for the recipe
            itself.
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


@dataclass(frozen=True)
class Tuned(Event):
    """The result of a tuning. In JSON, the event is called ``study``.

    Attributes:
        study: Folder of the study.
        trials: Number of trials of the search.
        metric: Name of the score.
        finalists: The values that were trained again, best first; the recipe itself is among them.
        winner: The best of them on ``val``.
        comparison: The winner compared with the recipe itself on ``test``; ``None`` without
            ``test``, if the net has searched sizes, and so no recipe without them, or if the recipe
            is the winner.
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
        """How much better the winner scored in the search than later; ``None`` for the recipe."""
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
            rows.append((finalist.name, values, searched, self._score.format(finalist.mean)))
        return (*heads, f"val, mean of {len(self.winner.scores)} seeds"), rows

    def summary_lines(self) -> list[str]:
        """The winner, its luck, its ``test`` score and the comparison, in words."""
        score = self._score
        winner = self.winner
        lines = [f"best: {winner.name}: no searched values beat the recipe on val"]
        if self.luck is not None:
            luck = f"{abs(self.luck):.4g}"
            if score.is_fraction:
                luck = f"{abs(100 * self.luck):.2f} points"
            how = "worse" if self.luck < 0 else "better"
            lines = [
                f"best: {winner.name}: {describe_values(winner.values)}",
                f"luck: {luck} {how} in the search than on average with new seeds",
            ]
        lines.append(f"runs of the best: {Path(self.study) / name_final(winner.name, '*')}")
        if self.test_mean is None:
            lines.append(
                "no test split, so no score on images that no choice has seen; draw one with"
                " --test 0.2"
            )
        else:
            mean = f"{score.format(self.test_mean)} (mean of {len(winner.scores)} seeds)"
            lines.append(f"test {score.title} of the best: {mean}")
        if self.comparison is not None:
            words = self.comparison.words.replace("A is", "the best is", 1)
            lines.append(f"compared with {self.comparison.b} on {self.comparison.split}: {words}")
        return lines


def name_final(finalist: str, seed: object) -> str:
    """The name of a run of the finals."""
    return f"final-{shorten_net_name(finalist)[:40]}-seed{seed}"


def plan_finals(trial_seconds: float, seconds: float | None) -> tuple[int, int]:
    """The numbers of finalists and of seeds that fit into ``seconds``."""
    fitting = (
        plan
        for plan in PLANS
        if seconds is None or count_trainings(*plan) * trial_seconds <= seconds
    )
    return next(fitting, PLANS[-1])


def count_trainings(finalists: float, seeds: int, has_base: bool = True) -> float:
    """The most trainings of the finals: ends of stopped trials, and all seeds of each finalist."""
    return finalists + (finalists + has_base) * seeds


def rank_finalists(progress: Progress) -> list[int]:
    """The numbers of the trials that could win, best first; ``RunError`` if there are none."""
    ranked = [*progress.rank("COMPLETE"), *progress.rank("PRUNED")]
    if not ranked:
        stored = [trial.user_attrs for trial in progress.counted]
        errors = [f" The last trial {values['error']}" for values in stored if "error" in values]
        last = "".join(errors[-1:])
        raise RunError(
            "No trial has a score, so there is no result. Search other ranges, or allow more"
            f" time.{last}"
        )
    return [trial.number for trial in ranked]


def iter_finals(
    search: Search, folder: Path, progress: Progress, plan: FinalsPlan
) -> Events[Tuned]:
    """Train the best trials and the recipe itself with other seeds; returns the result."""
    metric = progress.metric
    ranked = [progress.trials[number] for number in plan.ranked]
    chosen = yield from _choose_finalists(search, folder, ranked, plan.count)
    if search.base is not None:  # first, because it also wins if another is only equal
        name = ":".join(filter(None, (str(search.net), search.recipe)))
        chosen.insert(0, (Finalist(name, {}, None, ()), search.base))
    runs: dict[str, list[Run]] = {}
    finalists: list[Finalist] = []
    for finalist, experiment in chosen:
        trained: list[Run] = []
        scores: list[float] = []
        try:
            for number in range(1, plan.seeds + 1):
                seed = experiment.recipe.seed + number
                path = folder / name_final(finalist.name, seed)
                trained.append((yield from search.iter_run(path, experiment.with_seed(seed))))
                scores.append(score_on_val(trained[-1]))
                what = f"{finalist.name}, seed {seed}: val {Score(metric.name, scores[-1])}"
                yield Decision("final", what, f"{number} of {plan.seeds}")
        except NotFiniteError as error:
            yield Decision("warning", f"{finalist.name} diverged, and is left out", str(error))
            continue
        runs[finalist.name] = trained
        finalists.append(replace(finalist, scores=tuple(scores)))
    if not finalists:
        raise RunError("All finalists diverged, so there is no result. Search other ranges.")
    finalists.sort(key=lambda finalist: finalist.mean, reverse=not metric.lower_is_better)
    best = finalists[0]
    write_json(folder / WINNER_FILE, {"winner": best.name})
    tested: tuple[float, ...] = ()
    comparison = None
    # nothing is chosen any more, so the test images may be read, once
    if search.dataset.test is not None:
        tested = _test(runs[best.name], search.dataset)
        bases = [finalist.name for finalist in finalists[1:] if finalist.search_score is None]
        for base in bases:
            _test(runs[base], search.dataset)
            comparison = judge_runs({name: runs[name] for name in (best.name, base)})[0]
    return Tuned(
        study=str(folder),
        trials=len(progress.counted),
        metric=metric.name,
        finalists=tuple(finalists),
        winner=best,
        comparison=comparison,
        test_scores=tested,
    )


def _test(runs: Sequence[Run], dataset: Dataset) -> tuple[float, ...]:
    """Evaluate runs on the test images; returns their scores."""
    reports = [run.evaluate(data=dataset) for run in runs]
    return tuple(report.score.value for report in reports if report is not None)


def _choose_finalists(
    search: Search, folder: Path, ranked: Sequence[Any], count: int
) -> Events[list[tuple[Finalist, Experiment]]]:
    """The best trials, without scores of other seeds; finishes those that were stopped."""
    chosen: list[tuple[Finalist, Experiment]] = []
    for trial in ranked:
        if len(chosen) == count:
            break
        experiment = search.make(trial)
        score = trial.value
        if trial.state.name == "PRUNED":
            try:
                run = yield from search.iter_run(folder / f"trial-{find_run(trial)}", experiment)
                score = score_on_val(run)
            except NotFiniteError:
                continue
        chosen.append((Finalist(f"trial {find_run(trial)}", trial.params, score, ()), experiment))
    return chosen


def read_final(path: Path) -> Tuned | None:
    """The result of a tuning that has ended."""
    file = path / FINAL
    return parse_event(Tuned, read_object(file), file) if file.exists() else None


def write_final(path: Path, tuned: Tuned) -> None:
    """Store the result in the folder of a worker."""
    write_json(path / FINAL, tuned.to_json())
