"""The search of a tuning: what is tried, and the trials of one worker."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lamina.data import Dataset
from lamina.errors import DataError, NetError, NotFiniteError, RecipeError, plural
from lamina.evaluation.paired import score_images
from lamina.files import LockedError
from lamina.nets import Net
from lamina.runs.course import RunEvent
from lamina.runs.loading import load_run
from lamina.runs.nets_by_name import NetChoice
from lamina.runs.run import Run
from lamina.studies.candidates import fit_experiment
from lamina.studies.experiment import Experiment, format_minutes
from lamina.studies.setup import RunSetup
from lamina.studies.space import (
    Range,
    Span,
    insert_sizes,
    parse_settings,
    parse_sizes,
    to_distribution,
)
from lamina.studies.study import digest_file, iter_runs, without_device
from lamina.studies.study_events import Decision
from lamina.studies.trials import (
    LONGEST_PAUSE_SECONDS,
    MOST_REPEATS,
    RepeatedError,
    TrialLostError,
    Trials,
    find_new,
    import_optuna,
    wait,
)
from lamina.targets import Score
from lamina.training.custom import describe_part
from lamina.training.events import Epoch, Event
from lamina.training.loop import Training
from lamina.training.recipe import overlay
from lamina.training.task import task_of

FINISHED, REPEATED = "finished", "not trained"


@dataclass(frozen=True)
class Search:
    """What is searched: a net and a recipe, the ranges of their values, and the images."""

    # name or layers, also with names of sizes, or a function from an Optuna trial
    net: str | Callable[[Any], Net]
    recipe: str | None  # name; ``None`` for the first of the net
    given: Mapping[str, Any]  # settings of the recipe that are not searched
    over: Mapping[str, str]  # ranges of settings
    net_over: Mapping[str, str]  # ranges of sizes
    dataset: Dataset
    choose: Callable[[Any], NetChoice]  # finds a net by name
    command: Sequence[str] = ()  # that was typed

    def check(self) -> None:
        """Raise ``LaminaError`` if there is nothing to search, or no ``val`` to compare on."""
        if not (self.over or self.net_over or callable(self.net)):
            raise RecipeError(
                "There is nothing to search. Name settings and their ranges, as in"
                " lr=1e-4..1e-1:log."
            )
        if self.dataset.val is None:
            how = "--val 0.1 (in Python, Preparation(val_fraction=0.1))"
            raise DataError(
                f"{self.dataset.name} has no val split to compare trials on. Draw one with {how}."
            )
        for others, how in (
            (self.given, "given and searched"),
            (self.net_over, "a setting and a size"),
        ):
            if twice := sorted(self.over.keys() & others.keys()):
                raise RecipeError(f"{twice[0]} is both {how}. Leave out or rename one of them.")
        if self.net_over and not isinstance(self.net, str):
            raise RecipeError(
                "net_over names sizes in layers, but net is a function. Draw the sizes in the"
                " function."
            )
        experiment, images = self.example[0], self.dataset.train
        for name in self.over:
            one = self.ranges[name]
            # which the net may not be able to use
            for value in (one.low, one.high) if isinstance(one, Span) else one:
                recipe = overlay(experiment.recipe, {**self.given, name: value})
                net = experiment.net.make(recipe.seed, images.shape, task_of(images).outputs)
                Training(net, images, recipe)

    @property
    def base(self) -> Experiment | None:
        """The experiment without searched values; ``None`` if its net depends on them."""
        return self.example[0] if isinstance(self.net, str) and not self.net_over else None

    def make(self, trial: Any) -> Experiment:
        """The experiment with the values of an Optuna trial, and with the given settings."""
        drawn = {
            name: trial._suggest(name, to_distribution(one)) for name, one in self.ranges.items()
        }
        sizes = {name: drawn.pop(name) for name in self.net_over}
        experiment = self.base or self._fit(trial, sizes)[0]
        return replace(experiment, recipe=overlay(experiment.recipe, {**self.given, **drawn}))

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """The ranges of settings and sizes, without those that a function draws from."""
        sizes = parse_sizes(self.net_over, self.net) if isinstance(self.net, str) else {}
        return {**sizes, **parse_settings(self.over)}

    @property
    def most_trials(self) -> float:
        """The number of different values that can be tried."""
        counts = (one.count if isinstance(one, Span) else len(one) for one in self.ranges.values())
        return math.inf if callable(self.net) else math.prod(counts)

    @cached_property
    def example(self) -> tuple[Experiment, list[Decision]]:
        """The experiment with the first sizes and no searched settings, and its recipe's fit."""
        optuna = import_optuna()
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        sizes = {
            name: trial._suggest(name, to_distribution(self.ranges[name])) for name in self.net_over
        }
        return self._fit(trial, sizes)

    def _fit(self, trial: Any, sizes: Mapping[str, Any]) -> tuple[Experiment, list[Decision]]:
        """An experiment without ``test``, which no trial reads."""
        net: Any = insert_sizes(self.net, sizes) if isinstance(self.net, str) else self.net(trial)
        if not isinstance(net, str | Net):
            raise NetError(
                f"The function returned {type(net).__name__}, not a Net. Return Net(…), whose first"
                " weights follow from the seed of each run."
            )
        untested = replace(self.dataset, test=None)
        experiment, decisions = fit_experiment(self.choose(net), untested, self.recipe, self.given)
        # One metric for all trials, also if class weights are searched.
        metric = experiment.recipe.find_metric(self.dataset.train.kind)
        return replace(experiment, recipe=overlay(experiment.recipe, {"metric": metric})), decisions

    def iter_run(self, folder: Path, experiment: Experiment) -> Generator[RunEvent, None, Run]:
        """Train a run of an experiment, or continue it."""
        setup = RunSetup(command=tuple(self.command))
        (run,) = yield from iter_runs(folder.parent, [(folder.name, experiment)], setup)
        return run

    def to_json(self) -> dict[str, Any]:
        """The settings of the study, from which another worker makes the same search."""
        net, example = self.example[0].net, self.example[0].recipe
        ranges = {
            "over": dict(self.over),
            "net_over": dict(self.net_over),
            "given": without_device(self.given),
        }
        data = {"data": self.dataset.source, "fingerprint": self.dataset.fingerprint}
        return {
            "net": self.net if isinstance(self.net, str) else None,
            "function": describe_part(self.net) if callable(self.net) else None,
            "file": digest_file(net),
            "recipe": self.recipe,
            **ranges,
            **data,
            "preparation": self.dataset.preparation.to_json(),
            "metric": example.metric,
            "seed": example.seed,
            "epochs": None if "epochs" in self.over else example.epochs,
        }

    def __str__(self) -> str:
        net = self.net if isinstance(self.net, str) else getattr(self.net, "__name__", "net")
        ranges = ", ".join(
            f"{name} {text}" for name, text in {**self.over, **self.net_over}.items()
        )
        return (
            f"{':'.join(filter(None, (net, self.recipe)))},"
            f" {ranges or 'values that the function draws'}"
        )


@dataclass(frozen=True)
class Tried(Event):
    """The end of a trial, and the progress of the search, without the finals."""

    trial: int
    values: Mapping[str, Any]
    score: Score | None  # after its last epoch
    end: str
    run: str  # empty if the values of an earlier trial were not trained again
    done: int  # trials that have ended
    best: Score | None
    seconds_left: float
    # of the best trials, and of those that others train
    table: tuple[Sequence[str], Sequence[Sequence[str]]]

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_json().items() if name != "table"}

    def __str__(self) -> str:
        score = "" if self.score is None else f"val {self.score}, "
        text = f"trial {self.trial}: {describe_values(self.values)}: {score}{self.end}"
        best = "" if self.best is None else f", best {self.best.format(self.best.value)}"
        left = f", {format_minutes(self.seconds_left)} left" if self.seconds_left else ""
        return f"{text}; {plural(self.done, 'trial', 'trials')} done{best}{left}"


def iter_search(
    search: Search, trials: Trials, *, is_leader: bool = False
) -> Generator[RunEvent, None, None]:
    """Train trials until the study's limits; the leader then waits for the other workers."""
    is_waiting, repeats = False, 0
    while True:
        if is_leader:
            yield from wait(trials.recover)
        stored, known = (
            (yield from wait(lambda: trials.study.user_attrs)),
            (yield from wait(trials.read)),
        )
        limits = stored.get("limits", {})  # empty while the leader starts
        states, ended = Counter(one.state.name for one in known), find_new(known)
        is_over = (
            not limits
            or repeats >= MOST_REPEATS
            or time.time() >= (limits.get("until") or math.inf)
        )
        if "finals" not in stored and (
            (limits and states["WAITING"])
            or not (is_over or len(ended) >= (limits.get("trials") or math.inf))
        ):
            try:
                yield (tried := (yield from _iter_trial(search, trials)))
                repeats, is_waiting = repeats + 1 if tried.end.startswith(REPEATED) else 0, False
                if repeats == MOST_REPEATS:
                    yield Decision(
                        "search",
                        "ended",
                        f"{MOST_REPEATS} trials in a row had the values of earlier ones",
                    )
            except TrialLostError:
                yield Decision(
                    "warning",
                    "another process continues this trial",
                    "this one was silent for too long",
                )
            except LockedError as error:  # that process sleeps; this one has given the trial back
                if not is_waiting:
                    yield Decision(
                        "waiting", "for the process that was silent, but has not ended", str(error)
                    )
                is_waiting = True
                time.sleep(LONGEST_PAUSE_SECONDS)
        elif limits and not (is_leader and states["RUNNING"]):
            return
        else:
            if not is_waiting:
                running = plural(states["RUNNING"], "trial", "trials")
                others = f"{running} of other processes" if limits else "the leader"
                yield Decision(
                    "waiting", f"for {others}", "if one was lost, for a minute; Ctrl-C stops it"
                )
            is_waiting = True
            time.sleep(1.0)


def _iter_trial(search: Search, trials: Trials) -> Generator[RunEvent, None, Tried]:
    """Train one trial, or continue the run of a worker that was lost."""
    metric = trials.settings["metric"]
    score: float | None = None
    error: str | None = None
    trial = yield from wait(trials.take)
    folder = trials.folder / f"trial-{trial.number}"
    with trials.holding(trial):
        try:
            yield from wait(lambda: trials.propose(trial, search.ranges))
            experiment = yield from wait(lambda: search.make(trial))
            yield from wait(lambda: trials.check_new(trial))
            with closing(search.iter_run(folder, experiment)) as events:
                end = yield from _iter_until_stopped(events, trials, trial, metric)
            score = score_on_val(load_run(folder)) if end == FINISHED else None
            state = "PRUNED" if score is None else "COMPLETE"
        except (
            NotFiniteError
        ) as diverged:  # the worst score, so that the sampler avoids these values
            end = error = f"diverged: {diverged}"
            state = "COMPLETE"
            score = Score(metric, 0.0).bounds[Score(metric, 0.0).lower_is_better]
        except RepeatedError as repeated:
            end = error = f"{REPEATED}: {repeated}"
            state = "FAIL"
        except (
            NetError,
            RecipeError,
            DataError,
        ) as failed:  # a net, settings or a metric that do not fit the images
            end = error = f"failed: {failed}"
            state = "FAIL"
        values = yield from wait(lambda: trials.tell(trial, score, state, error))
    found = None if score is None or error is not None else Score(metric, score)
    path = str(folder) if folder.exists() else ""
    progress, leading = (
        (yield from wait(trials.find_progress)),
        (yield from wait(trials.list_leading)),
    )
    return Tried(
        trial.number, values, found, end, path, *progress, tabulate_trials(leading, metric)
    )


def _iter_until_stopped(
    events: Iterable[RunEvent], trials: Trials, trial: Any, metric: str
) -> Generator[RunEvent, None, str]:
    """The events of a trial until successive halving stops it; returns how it ended."""
    for event in events:
        yield event
        if not isinstance(event, Epoch) or event.score is None or event.score.name != metric:
            continue
        epoch, score = event.epoch, event.score.value
        # called at once
        reported = yield from wait(lambda: trials.report(trial, epoch, score))  # noqa: B023
        if (yield from wait(lambda: trials.is_worse(reported, epoch))):  # noqa: B023
            return f"stopped after epoch {epoch}, not among the best third"
    return FINISHED


def score_on_val(run: Run) -> float:
    """The score of a run's final weights on ``val``, also if ``test`` has been evaluated since."""
    score = float(score_images(run.task, run.outputs["val"]).mean())
    if not math.isfinite(score):
        raise NotFiniteError(f"The score on val is {score}.")
    return score


def describe_values(values: Mapping[str, Any]) -> str:
    """``lr 0.0312, batch_size 100``; numbers have three digits."""
    shown = (
        f"{value:.3g}" if isinstance(value, float) else str(value) for value in values.values()
    )
    return ", ".join(f"{name} {value}" for name, value in zip(values, shown, strict=True))


def tabulate_trials(
    rows: Iterable[Mapping[str, Any]], metric: str
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The headings and rows of the table of :func:`~lamina.studies.trials.list_trials`."""
    score, lines = Score(metric, 0.0), []
    for row in rows:
        known = "" if row["score"] is None else score.format(row["score"])
        took = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        state = row["error"] or row["state"].replace("pruned", "stopped")
        lines.append(
            (
                str(row["trial"]),
                describe_values(row["values"]),
                state,
                known,
                str(row["epoch"] or ""),
                took,
            )
        )
    return ("trial", "values", "state", f"val {score.title}", "epoch", "seconds"), lines
