"""The end of a tuning: retrain the best with other seeds, choose on ``val``, evaluate on test."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.errors import NotFiniteError, RunError
from lamina.evaluation.paired_comparison import PairedComparison
from lamina.files import read_object, write_json
from lamina.markup import card, table, wrap
from lamina.runs.course import RunEvent
from lamina.runs.folder import WINNER_FILE
from lamina.runs.run import Run
from lamina.runs.start import shorten_net_name
from lamina.studies.experiment import Experiment, format_minutes
from lamina.studies.judging import judge_runs
from lamina.studies.search import Search, describe_values, score_on_val
from lamina.studies.study import parse_event
from lamina.studies.study_events import Decision
from lamina.studies.trials import Trials, find_new, import_optuna, wait
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
        return -luck if Score(self.metric, 0.0).lower_is_better else luck

    @property
    def test_mean(self) -> float | None:
        return statistics.fmean(self.test_scores) if self.test_scores else None

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
        lines = (wrap("p", one) for one in self.summary_lines())
        return card(f"Study {self.study}", table(*self.table(), texts=2), *lines)

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The headings and rows of the table of finalists."""
        format_score = Score(self.metric, 0.0).format
        searched = (
            "" if one.search_score is None else format_score(one.search_score)
            for one in self.finalists
        )
        rows = [
            (one.name, describe_values(one.values), found, format_score(one.mean))
            for one, found in zip(self.finalists, searched, strict=True)
        ]
        return (
            "finalist",
            "values",
            "val, search",
            f"val, mean of {len(self.winner.scores)} seeds",
        ), rows

    def summary_lines(self) -> list[str]:
        """The winner, its luck, its ``test`` score and the comparison, in words."""
        score, winner = Score(self.metric, 0.0), self.winner
        lines = [f"best: {winner.name}: no searched values beat the recipe on val"]
        if self.luck is not None:
            luck = (
                f"{abs(100 * self.luck):.2f} points"
                if score.is_fraction
                else f"{abs(self.luck):.4g}"
            )
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


def rank_finalists(trials: Trials) -> list[int]:
    """The numbers of the trials that could win, best first; ``RunError`` if there are none."""
    ranked = [one.number for state in ("COMPLETE", "PRUNED") for one in trials.rank(state)]
    if not ranked:
        errors = [
            one.user_attrs["error"] for one in find_new(trials.read()) if "error" in one.user_attrs
        ]
        known = f" The last trial {errors[-1]}" if errors else ""
        raise RunError(
            "No trial has a score, so there is no result. Search other ranges, or allow more"
            f" time.{known}"
        )
    return ranked


def iter_finals(
    search: Search, trials: Trials, ranked: Sequence[int], count: int, seeds: int
) -> Generator[RunEvent, None, None]:
    """Train the best trials and the recipe itself with other seeds, and write ``final.json``."""
    metric, known = trials.settings["metric"], (yield from wait(trials.read))
    runs: dict[str, list[Run]] = {}
    found: list[Finalist] = []
    chosen = yield from _choose_finalists(
        search, trials, [known[number] for number in ranked], count
    )
    if search.base is not None:  # first, because it also wins if another is only equal
        name = ":".join(filter(None, (str(search.net), search.recipe)))
        chosen.insert(0, (Finalist(name, {}, None, ()), search.base))
    began, trained = time.perf_counter(), 0
    for one, experiment in chosen:
        runs[one.name] = []
        try:
            # the search has another
            for seed in (experiment.recipe.seed + 1 + place for place in range(seeds)):
                folder = trials.folder / name_final(one.name, seed)
                seeded = replace(experiment, recipe=replace(experiment.recipe, seed=seed))
                trained += not (folder / "report.json").exists()
                runs[one.name].append((yield from search.iter_run(folder, seeded)))
                one = replace(one, scores=(*one.scores, score_on_val(runs[one.name][-1])))
                done, score, every = (
                    sum(map(len, runs.values())),
                    Score(metric, one.scores[-1]),
                    len(chosen) * seeds,
                )
                left = (time.perf_counter() - began) / max(1, trained) * (every - done)
                more = f", {format_minutes(left)} left" if left else ""
                yield Decision(
                    "final", f"{one.name}, seed {seed}: val {score}", f"{done} of {every}{more}"
                )
            found.append(one)
        except NotFiniteError as error:
            yield Decision("warning", f"{one.name} diverged, and is left out", str(error))
    if not found:
        raise RunError("All finalists diverged, so there is no result. Search other ranges.")
    sign = 1 if Score(metric, 0.0).lower_is_better else -1
    found.sort(key=lambda one: sign * one.mean)
    write_json(trials.folder / WINNER_FILE, {"winner": found[0].name})
    best, base = found[0], next((one for one in found if one.search_score is None), None)
    rivals = {one.name: runs[one.name] for one in (best, base) if one is not None}
    tested: list[float] = []
    compared = None
    # nothing is chosen any more, so the test images may be read, once
    if search.dataset.test is not None:
        reports = {
            name: [run.evaluate(data=search.dataset) for run in each]
            for name, each in rivals.items()
        }
        tested = [one.score.value for one in reports[best.name] if one is not None]
        compared = judge_runs(rivals)[0] if len(rivals) == 2 else None
    tuned = Tuned(
        str(trials.folder),
        len(find_new(known)),
        metric,
        tuple(found),
        best,
        compared,
        tuple(tested),
    )
    write_json(trials.folder / FINAL, tuned.to_json())
    yield tuned


def _choose_finalists(
    search: Search, trials: Trials, ranked: Sequence[Any], count: int
) -> Generator[RunEvent, None, list[tuple[Finalist, Experiment]]]:
    """The best trials, without scores of other seeds; finishes those that were stopped."""
    chosen: list[tuple[Finalist, Experiment]] = []
    for one in ranked:
        if len(chosen) == count:
            break
        experiment, score = search.make(import_optuna().trial.FixedTrial(one.params)), one.value
        if one.state.name == "PRUNED":
            try:
                score = score_on_val(
                    (yield from search.iter_run(trials.folder / f"trial-{one.number}", experiment))
                )
            except NotFiniteError:
                continue
        chosen.append((Finalist(f"trial {one.number}", one.params, score, ()), experiment))
    return chosen


def read_final(path: Path) -> Tuned | None:
    """The result of a tuning that has ended."""
    file = path / FINAL
    return parse_event(Tuned, read_object(file), file) if file.exists() else None
