"""Cross-validation: a run for each fold, trained on the other folds, and one run on all images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina.data import Dataset, Images
from lamina.data.held_out import hold_out
from lamina.data.load import as_dataset
from lamina.errors import RunError, check_type, escape, plural
from lamina.evaluation.intervals import LEVEL, Interval, sum_by_group
from lamina.evaluation.outputs import Outputs, join_folds
from lamina.evaluation.paired import average_folds, measure_outputs
from lamina.evaluation.reports import Report
from lamina.evaluation.words import list_lines
from lamina.files import check_name
from lamina.markup import card, table, wrap
from lamina.metrics import METRICS
from lamina.runs.folder import STUDY_FILE, WHOLE, RunFolder
from lamina.runs.run import Run
from lamina.runs.start import NetLike, choice_of_timm, find_net
from lamina.studies.experiment import (
    Candidate,
    Deadline,
    Decision,
    Events,
    Experiment,
    Request,
)
from lamina.studies.forks import Jobs, check_jobs
from lamina.studies.own_code import describe_code, digest_code
from lamina.studies.study import (
    CODE,
    OpenStudy,
    RunSetup,
    Started,
    describe_net,
    describe_recipe,
    iter_planned,
    name_study,
    on_all_cores,
    open_study,
    parse_event,
    remove_run,
    without_device,
)
from lamina.studies.train_net import follow, iter_training, to_deadline, to_request
from lamina.targets import Score
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.events import Epoch, Event, Step
from lamina.training.pretrained import TimmNet
from lamina.training.recipe import Recipe
from lamina.training.task import Task
from lamina.training.timing import Pace
from lamina.values import fields_to_json


@dataclass(frozen=True, eq=False)
class Folds(Event):
    """The result of a cross-validation.

    Attributes:
        reports: The report on each fold, by the model that was trained on the other folds.
        outputs: The logits of these models for all images of ``train`` and ``val``, with targets,
            names and folds.
        score: The metric of all these outputs together; for a custom metric, the mean over the
            folds.
        interval: Its 95 % interval (:func:`fold_interval`).
        run: The run on all images of ``train`` and ``val``, evaluated on ``test`` if there is one.
    """

    reports: tuple[Report, ...] = field(repr=False)
    outputs: Outputs = field(repr=False)
    score: Score
    interval: Interval
    run: Run

    @property
    def scores(self) -> list[float | None]:
        """The score of each fold, such as its accuracy; ``None`` where it is undefined."""
        scores = [report.score for report in self.reports]
        return [score.value if score.name == self.score.name else None for score in scores]

    def to_json(self) -> dict[str, Any]:
        """``scores`` of the folds; ``score`` of all images with ``interval`` and ``metric``."""
        return {
            "event": "folds",
            "scores": self.scores,
            "score": self.score.value,
            "interval": [self.interval.low, self.interval.high],
            "metric": self.score.name,
            "images": len(self.outputs.names),
            "run": str(self.run.path),
            "folder": str(self.run.path.parent),
        }

    def __str__(self) -> str:
        return "\n".join([self.headline(), *self.remarks()])

    def _repr_html_(self) -> str:
        rows = []
        for number, report in enumerate(self.reports, start=1):
            rows.append((f"fold {number}", str(report.score), f"{report.images:,}"))
        lines = (wrap("p", line) for line in self.remarks())
        return card(self.headline(), table(("", "score", "images"), rows), *lines)

    def headline(self) -> str:
        """The score of all folds with its interval."""
        low = self.score.format(self.interval.low)
        high = self.score.format(self.interval.high)
        return f"out-of-fold {self.score} (95 % interval {low} to {high})"

    def remarks(self) -> list[str]:
        """What the interval describes, and the score of the model trained on all images."""
        count = len(self.reports)
        images = len(self.outputs.names)
        lines = [
            f"The interval is for models trained on {count - 1} of {count} folds. It is"
            " approximate: it uses the corrected t test of Nadeau and Bengio (2003) and the"
            " variance between folds.",
            f"model trained on all {images:,} images: {escape(str(self.run.path))}",
        ]
        report = self.run.report
        if report is not None:
            lines.append(list_lines(report)[0])
        return lines


@dataclass(frozen=True)
class Choice:
    """The stored choices that all runs of a cross-validation share."""

    net: str
    timm: TimmNet | None
    size_px: int
    recipe: Recipe
    pace: Pace
    is_open: bool
    seconds: float | None = None  # to train on a fold


def fold_interval(score: Score, deviations: Sequence[float]) -> Interval:
    """The 95 % interval of a score on k folds (Nadeau and Bengio's t test, 2003).

    The ``deviations`` are the influences of the folds on the score: for a mean of the folds, the
    difference of each from the mean, divided by k. They add up to 0.
    """
    by_fold = score.value + len(deviations) * np.array(deviations)
    half_width = average_folds(by_fold).half_width(LEVEL)
    least, most = score.bounds
    return Interval(max(least, score.value - half_width), min(most, score.value + half_width))


def score_folds(task: Task, reports: Sequence[Report], outputs: Outputs) -> tuple[Score, Interval]:
    """The metric of the outputs of all folds, with its interval.

    A single fold may have too few images for a metric, even if all folds together have enough. A
    custom metric is the mean over the folds.
    """
    first = reports[0].score
    values = [report.score.value for report in reports if report.score.name == first.name]
    if first.name not in METRICS and len(values) == len(reports):
        mean = statistics.fmean(values)
        score = replace(first, value=mean)
        return score, fold_interval(score, [(value - mean) / len(values) for value in values])
    if task.score_name not in METRICS:
        task = replace(task, metric="")
    measured = measure_outputs(task, outputs)
    score = Score(task.score_name, measured.value)
    deviations = sum_by_group(measured.influences, torch.from_numpy(outputs.folds))
    return score, fold_interval(score, deviations.tolist())


def check_folds(folds: int) -> None:
    check_type(folds, (int,), "folds", "a whole number", is_optional=False)
    if folds < 2:
        raise RunError(
            f"folds is {folds}; it must be at least 2. Use folds=5 (on the command line,"
            " --folds 5)."
        )


def cross_validate(
    data: Dataset | Images | str | Path | None = None,
    net: NetLike | None = None,
    recipe: Recipe | str | None = None,
    *,
    parts: Parts = NO_PARTS,
    folds: int = 5,
    seconds: float | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    jobs: int | None = None,
    progress: bool = True,
) -> Folds:
    """Train a net on all folds but one, evaluate it on that fold, and do so for each fold.

    lamina then trains a last model on all images of ``train`` and ``val``, and evaluates it once,
    on ``test``. The folds are stratified parts of ``train`` and ``val``; images of a group share a
    fold. lamina chooses net, image size and recipe once, with the training images of the first
    fold. With a time limit, each fold has the same time, and the last model has the rest. A call
    with the same ``name`` and time limit skips finished runs.

    Args:
        data: As for :func:`train`.
        net: As for :func:`train`.
        recipe: As for :func:`train`.
        parts: As for :func:`train`.
        folds: Number of folds.
        seconds: Time limit for all runs together, by default 300 without ``net``, and none with it.
        name: Name of the folder of all runs; by default date, number of folds and a number.
        runs_dir: Folder in which lamina creates this folder; created if necessary.
        jobs: As for :func:`~lamina.studies.seeds.iter_seeds`, after the run on the first fold,
            which makes the choices; with a time limit, one run at a time.
        progress: As for :func:`train`.

    Returns:
        The reports on the folds, the score of all out-of-fold logits with its interval, these
        logits, and the run on all images.

    Warns:
        LaminaWarning: See :func:`train`.

    Raises:
        LaminaError: There are too few images or groups, the folder has other settings, or any error
            of :func:`train`.

    >>> import tempfile
    >>> import numpy as np
    >>> from lamina import Images, Recipe
    >>> x, y = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3),
    ...     dtype=np.uint8), np.arange(40) % 2
    >>> images = Images.from_arrays(x, y)
    >>> folder = tempfile.mkdtemp()
    >>> result = cross_validate(images, "mlp", Recipe(epochs=1), runs_dir=folder, progress=False)
    >>> len(result.scores), result.outputs.logits.shape
    (5, (40, 2))
    """
    began = time.perf_counter()
    check_folds(folds)
    check_jobs(jobs)
    check_name(name)
    request = to_request(net, recipe, seconds, parts)
    dataset = as_dataset(data)
    deadline = to_deadline(began, net, seconds)
    setup = RunSetup(Path(runs_dir), name, jobs=jobs)
    events = iter_folds(dataset, folds, request, deadline, setup)
    for event in follow(events, dataset, progress):
        if isinstance(event, Folds):
            result = event
    return result


def iter_folds(
    dataset: Dataset,
    folds: int,
    request: Request,
    deadline: Deadline | None,
    setup: RunSetup,
) -> Events[None]:
    """Train and evaluate a run for each fold, then one on all images; skips finished runs.

    Net, image size, recipe and time are chosen with the images of the first run, and stored for
    all; the last run has the rest of the time. ``RunError`` if the folder exists with another
    request or time limit.
    """
    hold_out(dataset, 1, folds)  # fails before the folder is created
    name = setup.name or name_study(setup.runs_dir, f"folds{folds}")
    path = setup.runs_dir / name
    parts = request.parts
    metrics = {name: digest_code(metric) for name, metric in parts.metrics.items()}
    shared: dict[str, Any] = {
        "folds": folds,
        "data": dataset.fingerprint,
        **describe_net(request.net),
        "recipe": describe_recipe(request.recipe),
        "given": without_device(request.settings),
        "pretrained": request.pretrained,
        "parts": parts.describe(),
        CODE: {**describe_code(request.net, parts), **metrics},
        "time": None,
    }
    if deadline is not None:
        shared["time"] = deadline.all_seconds
        # time is reserved for the last run, which has more images than a fold
        deadline = replace(deadline, runs=folds + folds / (folds - 1))
    with open_study(path, shared) as study:
        if "choice" not in study.state:  # nothing of an earlier call is kept
            study.state["used_seconds"] = 0.0
            if deadline is not None:
                study.opened = deadline.began
        yield Decision(
            "folds", f"{folds}, in {path}", "to resume, run the command again with this name"
        )
        validation = Validation(study, dataset, folds, request, deadline, setup)
        run = yield from validation.iter_first()
        yield _describe_fold(1, run)
        runs = [replace(run, dataset=None)]  # without the copied images of the fold
        others = [*range(2, folds + 1), 0]
        has_limit = deadline is not None
        with closing(Jobs(setup.jobs, folds, has_time_limit=has_limit)) as jobs:
            makers = {validation.locate(fold): partial(validation.make, fold) for fold in others}
            jobs.plan(makers, setup)
            for fold in others[:-1]:
                run = yield from validation.iter_run(fold, jobs)
                yield _describe_fold(fold, run)
                runs.append(replace(run, dataset=None))
            outputs = join_folds([run.outputs["test"] for run in runs])
            RunFolder(path).save_outputs([outputs])
            whole = yield from validation.iter_run(0, jobs)
        reports = tuple(run.report for run in runs if run.report is not None)
        score, interval = score_folds(runs[0].record.task, reports, outputs)
        yield Folds(reports, outputs, score, interval, whole)


def _describe_fold(fold: int, run: Run) -> Decision:
    report = run.report
    if report is None:
        raise RunError(
            f"{run.path} could not be evaluated on its fold. Use fewer folds, or add images."
        )
    images = plural(report.images, "image", "images")
    return Decision(f"fold {fold}", f"{report.score} on {images}", str(run.path))


@dataclass(frozen=True)
class Validation:
    """What the runs of a cross-validation share; fold 0 means all images."""

    study: OpenStudy
    dataset: Dataset
    folds: int
    request: Request
    deadline: Deadline | None
    setup: RunSetup

    def locate(self, fold: int) -> Path:
        """The folder of a run."""
        return self.study.path / (f"fold-{fold}" if fold else WHOLE)

    def make(self, fold: int) -> Experiment:
        """The experiment of the stored choice, with the images of a fold."""
        return self._restore(fold).experiment

    def iter_first(self) -> Events[Run]:
        """Train the first run, which makes the choices; a later call loads or continues it."""
        study = self.study
        if "choice" in study.state:
            return (yield from self._iter_timed(1))
        setup = self.setup.at(self.locate(1))
        if setup.path.exists():
            remove_run(setup.path)
        name = setup.path.name
        choice: dict[str, Any] = {}
        part = hold_out(self.dataset, 1, self.folds)
        with closing(iter_training(part, self.request, self.deadline, setup)) as events:
            for event in events:
                if isinstance(event, Started) and event.candidate is not None:
                    run = event.run
                    seconds = None
                    if self.deadline is not None:
                        seconds = self.deadline.seconds_left()
                    choice = _describe_choice(event.candidate, seconds)
                # before the first step, a trial may choose another net
                if isinstance(event, Step | Epoch) and "choice" not in study.state:
                    study.save(choice=choice, began={name: study.used_seconds})
                yield event
        study.save(choice=choice, finished=[name])
        return run

    def iter_run(self, fold: int, jobs: Jobs) -> Events[Run]:
        """Train a run by the stored choice, or load it."""
        if self.deadline is None:
            return (yield from jobs.iter_run(self.locate(fold), self.setup))
        return (yield from self._iter_timed(fold))

    def _iter_timed(self, fold: int) -> Events[Run]:
        """Train a run in the time for one fold; the last run has all the time that is left."""
        study = self.study
        setup = self.setup.at(self.locate(fold))
        name = setup.path.name
        candidate = self._restore(fold)
        finished = study.state.get("finished", [])
        if name in finished:
            return (yield from iter_planned(candidate, None, setup, is_done=True))
        began = study.state.get("began", {})
        if name not in began:
            began |= {name: study.used_seconds}
            study.save(began=began)
        seconds = self._choice.seconds
        share = None
        if self.deadline is not None and seconds is not None:
            if fold == 0:
                seconds = max(seconds, self.deadline.all_seconds - began[name])
            trained_seconds = study.used_seconds - began[name]  # before an interruption
            share = Deadline(time.perf_counter() - trained_seconds, seconds)
        events = iter_planned(candidate, share, setup)
        run = yield from on_all_cores(events, setup, has_time_limit=share is not None)
        study.save(finished=sorted({*finished, name}))
        return run

    @property
    def _choice(self) -> Choice:
        return parse_event(Choice, self.study.state["choice"], self.study.path / STUDY_FILE)

    def _restore(self, fold: int) -> Candidate:
        """The stored choice, for the images of a fold."""
        choice = self._choice
        net = self.request.net
        if net is None and choice.timm is not None:
            net = choice_of_timm(choice.timm)
        device = self.request.settings.get("device", "auto")
        if isinstance(self.request.recipe, Recipe):
            device = self.request.recipe.device
        recipe = replace(choice.recipe, device=device)
        part = hold_out(self.dataset, fold, self.folds)
        net = net or find_net(choice.net)
        experiment = Experiment(net, recipe, part, self.request.parts)
        candidate = Candidate(experiment, choice.size_px, choice.pace, is_open=choice.is_open)
        return candidate.resize(self.setup.progress)


def _describe_choice(candidate: Candidate, seconds: float | None) -> dict[str, Any]:
    origin = candidate.experiment.net.origin
    choice = Choice(
        net=candidate.net_name,
        timm=origin if isinstance(origin, TimmNet) else None,
        size_px=candidate.side_px,
        recipe=replace(candidate.recipe, device="auto"),
        pace=candidate.pace,
        is_open=candidate.is_open,
        seconds=seconds,
    )
    return fields_to_json(choice)
