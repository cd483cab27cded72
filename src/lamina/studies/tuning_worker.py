"""A worker of a tuning: it trains trials until the search ends."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from lamina.errors import DataError, NetError, NotFiniteError, RecipeError, plural
from lamina.files import LockedError
from lamina.runs.course import RunEvent
from lamina.runs.loading import load_run
from lamina.studies import finals
from lamina.studies.experiment import Experiment
from lamina.studies.finals import count_trainings
from lamina.studies.search import Search, Tried, score_on_val
from lamina.studies.storage import LONGEST_PAUSE_SECONDS, TrialLostError, wait_for
from lamina.studies.study_events import Decision
from lamina.studies.trials import Progress, Trials, find_run, store_table
from lamina.targets import Score
from lamina.training.events import Epoch

FINISHED = "finished"
MOST_REPEATS = 10  # trials in a row that repeat the values of others, until the search ends
LOOK_SECONDS = 1.0  # between two looks at the trials of other workers


@dataclass(frozen=True)
class Train:
    """Take a trial and train it."""


@dataclass(frozen=True)
class Wait:
    """Wait for trials that others train: if one is lost, train it."""

    running: int


@dataclass(frozen=True)
class Stop:
    """The search has ended."""

    reason: str


Action: TypeAlias = Train | Wait | Stop


def next_action(progress: Progress, expected: float) -> Action:
    """What a worker does next, if a training is expected to take so many seconds."""
    if progress.finals is not None:
        return Stop("its finals have begun")
    if progress.select("WAITING"):  # trials that were given back
        return Train()
    end = _find_end(progress, expected)
    if end is None:
        return Train()
    if running := progress.select("RUNNING"):
        return Wait(len(running))
    return Stop(end)


def _find_end(progress: Progress, expected: float) -> str | None:
    """Why no trial begins any more; ``None`` if another one does."""
    limits = progress.limits
    last = progress.trials[-MOST_REPEATS:]
    if len(last) == MOST_REPEATS and all("repeats" in trial.user_attrs for trial in last):
        return f"{MOST_REPEATS} trials in a row had the values of earlier ones"
    if limits.trials is not None and len(progress.counted) >= limits.trials:
        return f"it has {limits.trials} trials"
    if limits.seconds is not None and _count_seconds_left(limits.seconds, progress, expected) <= 0:
        return "the rest of the time is for the finals"
    return None


def _count_seconds_left(limit: float, progress: Progress, expected: float) -> float:
    """The seconds in which a trial may begin that ends before the time of the finals."""
    training = progress.measure(expected)
    reserved = limit / 2
    if training:
        reserved = min(reserved, count_trainings(*finals.PLANS[0]) * training)
    return limit - reserved - training - progress.used_seconds


def iter_search(search: Search, trials: Trials, expected: float) -> Generator[RunEvent, None, None]:
    """Train trials until the search ends; waits for the trials of other workers."""
    is_waiting = False
    while True:
        yield from trials.recover()
        progress = yield from trials.load()
        match next_action(progress, expected):
            case Stop(reason):
                yield Decision("search", "ended", reason)
                return
            case Wait(running):
                if not is_waiting:
                    others = plural(running, "trial", "trials")
                    yield Decision(
                        "waiting",
                        f"for {others} of other processes",
                        "if one was lost, for a minute; Ctrl-C stops it",
                    )
                is_waiting = True
                time.sleep(LOOK_SECONDS)
            case Train():
                is_waiting = False
                yield from _iter_trial(search, trials)


def _iter_trial(search: Search, trials: Trials) -> Generator[RunEvent, None, None]:
    """Train one trial, or continue one that was given back."""
    try:
        trial = yield from trials.take(search.ranges)
        with trials.holding(trial):
            end, score = yield from _train(search, trials, trial)
    except TrialLostError:
        reason = "this one was silent for too long"
        yield Decision("warning", "another process continues this trial", reason)
        return
    progress = yield from trials.load()
    store_table(trials.folder, progress)
    folder = _locate(trials, trial)
    yield Tried(
        trial=find_run(trial),
        values=trial.params,
        score=score,
        end=end,
        run=str(folder) if folder.exists() else "",
        done=progress.ended,
        best=progress.find_best(),
    )


def _train(
    search: Search, trials: Trials, trial: Any
) -> Generator[RunEvent, None, tuple[str, Score | None]]:
    """Train a trial and store how it ended; returns that and its score."""
    metric = trials.settings["metric"]
    try:
        experiment = yield from wait_for(partial(search.make, trial))
        earlier = yield from trials.find_equal(trial)
        if earlier is not None:
            end = f"not trained: trial {earlier} has the same values"
            yield from trials.finish(trial, "FAIL", error=end)
            return end, None
        end = yield from _iter_until_stopped(search, trials, trial, experiment)
        if end != FINISHED:
            yield from trials.finish(trial, "PRUNED")
            return end, None
        score = score_on_val(load_run(_locate(trials, trial)))
        yield from trials.finish(trial, "COMPLETE", score)
        return end, Score(metric, score)
    except NotFiniteError as error:  # the worst score, so that the sampler avoids these values
        end = f"diverged: {error}"
        worst = Score(metric, 0.0)
        yield from trials.finish(trial, "COMPLETE", worst.bounds[worst.lower_is_better], end)
    except (NetError, RecipeError, DataError) as error:  # they do not fit each other
        end = f"failed: {error}"
        yield from trials.finish(trial, "FAIL", error=end)
    return end, None


def _iter_until_stopped(
    search: Search, trials: Trials, trial: Any, experiment: Experiment
) -> Generator[RunEvent, None, str]:
    """The events of a trial until successive halving stops it; returns how it ended."""
    epochs = trials.settings["epochs"]
    is_waiting = False
    while True:
        try:
            with closing(search.iter_run(_locate(trials, trial), experiment)) as events:
                for event in events:
                    yield event
                    if not isinstance(event, Epoch) or event.score is None:
                        continue
                    if event.score.name != trials.settings["metric"]:
                        continue
                    yield from trials.report(trial, event.epoch, event.score.value)
                    if epochs is None or 2 * event.epoch > epochs:
                        continue
                    if (yield from trials.is_worse(trial)):
                        return f"stopped after epoch {event.epoch}, not among the best third"
            return FINISHED
        except LockedError as error:
            if not is_waiting:
                what = "for the process that was silent, but has not ended"
                yield Decision("waiting", what, str(error))
            is_waiting = True
            time.sleep(LONGEST_PAUSE_SECONDS)


def _locate(trials: Trials, trial: Any) -> Path:
    """The folder of a trial's run."""
    return trials.folder / f"trial-{find_run(trial)}"
