"""Cross-validation: a run for each fold, on the images of the others, and one run on all images."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lamina.data import Dataset
from lamina.data.held_out import hold_out
from lamina.errors import RecipeError, RunError, check_type, escape, plural
from lamina.evaluation.intervals import Interval, t_quantile
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.reports import Report
from lamina.evaluation.words import list_lines
from lamina.files import check_name, write_json
from lamina.runs.course import RunEvent
from lamina.runs.folder import STUDY_FILE, WHOLE, RunFolder
from lamina.runs.loading import load_run
from lamina.runs.run import Run
from lamina.studies.choice_events import Decision, Started
from lamina.studies.experiments import Deadline
from lamina.studies.named_net import IterTrain, StartRun, remove_run
from lamina.studies.study import name_study, open_study, read_study
from lamina.training.events import Event

TrainOne: TypeAlias = Callable[[Dataset, Deadline | None, StartRun, str | None], Iterable[RunEvent]]
"""Start a run with that name on a data set, and train it before the deadline."""
LEAST_SECONDS = 5.0  # of a run under a time limit


@dataclass(frozen=True, repr=False, eq=False)
class Folds(Event):
    """The result of a cross-validation.

    Attributes:
        reports: The report on each fold, by the model that was trained on the other folds.
        outputs: The logits of these models for all images of ``train`` and ``val``, with targets,
            names and folds.
        run: The run on all images of ``train`` and ``val``, evaluated on ``test`` if there is one.
    """

    reports: tuple[Report, ...]
    outputs: Outputs
    run: Run

    @property
    def scores(self) -> list[float]:
        """The score of each fold, such as its accuracy."""
        return [report.score.value for report in self.reports]

    @property
    def mean(self) -> float:
        """The mean score of the folds."""
        return statistics.fmean(self.scores)

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the mean (:func:`fold_interval`)."""
        return fold_interval(self.scores, *self.reports[0].score.bounds)

    def to_json(self) -> dict[str, Any]:
        return {
            "event": "folds",
            "scores": self.scores,
            "mean": self.mean,
            "interval": [self.interval.low, self.interval.high],
            "metric": self.reports[0].score.name,
            "images": len(self.outputs.names),
            "run": str(self.run.path),
            "folder": str(self.run.path.parent),
        }

    def __repr__(self) -> str:
        return (
            f"Folds({len(self.reports)} folds, {self._describe_mean()}, run={str(self.run.path)!r})"
        )

    def _describe_mean(self) -> str:
        score, interval = self.reports[0].score, self.interval
        low, high = score.format(interval.low), score.format(interval.high)
        return f"mean {replace(score, value=self.mean)} (95 % interval {low} to {high})"

    def __str__(self) -> str:
        count, report = len(self.reports), self.run.report
        lines = [
            self._describe_mean(),
            (
                f"The interval is about training on {count - 1} of {count} parts of such images. It"
                " is approximate: the corrected t test of Nadeau and Bengio (2003), from the"
                " variance between folds."
            ),
            (
                f"model trained on all {len(self.outputs.names):,} images:"
                f" {escape(str(self.run.path))}"
            ),
        ]
        return "\n".join([*lines, *([] if report is None else [list_lines(report)[0]])])


def fold_interval(scores: Sequence[float], least: float = 0.0, most: float = 1.0) -> Interval:
    """The 95 % interval of the mean of k fold scores (Nadeau and Bengio's t test, 2003)."""
    # The variance between folds counts 1/k + 1/(k - 1) times, not 1/k times, because the training
    # sets overlap. The second term is the ratio of held-out images to training images.
    count = len(scores)
    mean, variance = (
        statistics.fmean(scores),
        statistics.variance(scores) * (1 / count + 1 / (count - 1)),
    )
    half_width = t_quantile(count - 1) * math.sqrt(variance)
    return Interval(max(least, mean - half_width), min(most, mean + half_width))


def check_folds(folds: int) -> None:
    check_type(folds, (int,), "folds", "a whole number", is_optional=False)
    if folds < 2:
        raise RunError(
            f"folds is {folds}; it must be at least 2. Use folds=5 (on the command line,"
            " --folds 5)."
        )


def iter_folds(
    dataset: Dataset,
    folds: int,
    train_one: TrainOne,
    *,
    deadline: Deadline | None,
    settings: Mapping[str, Any],
    start: Callable[..., Run],
    train: IterTrain = Run.iter_train,
    name: str | None,
    runs_dir: Path,
) -> Generator[RunEvent, None, None]:
    """Train and evaluate a run for each fold, then one on all images; skips finished runs.

    The time that is left is divided by the number of runs that are left. ``settings`` describes
    what the runs share: an existing folder with other settings is an error.
    """
    check_folds(folds)
    check_name(name)
    part = hold_out(dataset, 1, folds)  # fails before the folder is created
    path = runs_dir / (name_study(runs_dir, f"folds{folds}") if name is None else name)
    left = folds + 1 - len(read_study(path).get("finished", ()))
    if deadline is not None and (lacking := left * LEAST_SECONDS - deadline.seconds_left()) > 0:
        raise RecipeError(
            f"The cross-validation has {plural(left, 'run', 'runs')} to train, but only"
            f" {max(0.0, deadline.seconds_left()):.1f} s are left for all of them. Increase --time"
            f" (in Python, seconds) by at least {math.ceil(lacking)} s."
        )
    with open_study(path, {"folds": folds, "data": dataset.fingerprint, **settings}) as state:
        yield Decision(
            "folds", f"{folds}, in {path}", "to resume, run the command again with this name"
        )
        runs: list[Run] = []
        for fold in range(1, folds + 1):
            part = part if fold == 1 else hold_out(dataset, fold, folds)
            share = None if deadline is None else deadline.seconds_left() / (folds + 2 - fold)
            run = yield from _iter_one(
                path / f"fold-{fold}", part, share, state, train_one, start, train
            )
            if run.report is None:
                raise RunError(
                    f"{run.path} could not be evaluated on its fold. Use fewer folds, or add"
                    " images."
                )
            runs.append(run)
            images = plural(run.report.images, "image", "images")
            yield Decision(f"fold {fold}", f"{run.report.score} on {images}", str(run.path))
        outputs = _collect(runs)
        RunFolder(path).save_outputs([outputs])
        share = None if deadline is None else deadline.seconds_left()
        run = yield from _iter_one(
            path / WHOLE, hold_out(dataset, 0, folds), share, state, train_one, start, train
        )
        yield Folds(tuple(run.report for run in runs if run.report is not None), outputs, run)


def _iter_one(
    folder: Path,
    dataset: Dataset,
    seconds: float | None,
    state: dict[str, Any],
    train_one: TrainOne,
    start: StartRun,
    train: IterTrain,
) -> Generator[RunEvent, None, Run]:
    """Load a finished run, resume it, or train it again with a time limit or your own code."""
    run = replace(load_run(folder), dataset=dataset) if folder.exists() else None
    if run is not None and folder.name in state.get("finished", ()):
        yield Started(run)
        return run
    events: Iterable[RunEvent]
    has_own_code = run is not None and (run.record.own_module or run.record.parts)
    if run is not None and seconds is None and not has_own_code:
        events = itertools.chain([Started(run)], train(run))
    else:
        if run is not None:
            remove_run(folder)
        deadline = None if seconds is None else Deadline(time.perf_counter(), seconds)
        events = train_one(dataset, deadline, partial(start, runs_dir=folder.parent), folder.name)
    for event in events:
        yield event
        if isinstance(event, Started):
            run = event.run
    assert run is not None  # noqa: S101
    state.setdefault("finished", []).append(folder.name)
    write_json(folder.parent / STUDY_FILE, state)
    return run


def _collect(runs: Sequence[Run]) -> Outputs:
    """The logits of all folds, one after another."""
    each = [run.outputs["test"] for run in runs]
    return Outputs(
        "train",
        np.concatenate([one.logits for one in each]),
        np.concatenate([one.targets for one in each]),
        tuple(name for one in each for name in one.names),
        np.concatenate([np.full(len(one.names), fold) for fold, one in enumerate(each, start=1)]),
    )
