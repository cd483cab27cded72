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
from lamina.evaluation.report import Report
from lamina.files import check_name
from lamina.markup import card, table, wrap
from lamina.metrics import METRICS
from lamina.runs.folder import REPORT_FILE, WHOLE, RunFolder
from lamina.runs.record import RunRecord
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
from lamina.studies.study import (
    CODE,
    RunSetup,
    describe_code,
    describe_net,
    describe_recipe,
    iter_planned,
    name_study,
    on_all_cores,
    open_study,
    without_device,
)
from lamina.studies.train_net import follow, iter_training, to_deadline, to_request
from lamina.targets import Score
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.events import Event
from lamina.training.recipe import Recipe
from lamina.training.task import Task


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
            lines.append(report.headline())
        return lines


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
    fold. With a time limit, the first fold has its share of the time, and all other models are
    trained for as many epochs. A call with the same ``name`` and time limit skips finished runs.

    Args:
        data: As for :func:`train`.
        net: As for :func:`train`.
        recipe: As for :func:`train`.
        parts: As for :func:`train`.
        folds: Number of folds.
        seconds: Time limit for all runs together, by default 300 without ``net``, and none with it.
        name: Name of the folder of all runs. By default, it follows from the settings, so that the
            same call continues the study; with your own functions or modules, the study is new.
        runs_dir: Folder in which lamina creates this folder; created if necessary.
        jobs: As for :func:`~lamina.studies.seeds.iter_seeds`, after the run on the first fold,
            which makes the choices.
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

    The first run chooses net, image size and recipe, for all. Before a deadline, it has its share
    of the time, and all other runs have as many epochs. ``RunError`` if the folder exists with
    another request or time limit.
    """
    hold_out(dataset, 1, folds)  # fails before the folder is created
    parts = request.parts
    settings: dict[str, Any] = {
        "folds": folds,
        "data": dataset.fingerprint,
        **describe_net(request.net),
        "recipe": describe_recipe(request.recipe),
        "given": without_device(request.settings),
        "pretrained": request.pretrained,
        "parts": parts.describe(),
        CODE: describe_code(request.net, parts, dataset.train),
        "time": None if deadline is None else deadline.all_seconds,
    }
    if deadline is not None:
        # time is reserved for the last run, which has more images than a fold
        deadline = replace(deadline, runs=folds + folds / (folds - 1))
    path = setup.runs_dir / (setup.name or name_study(setup.runs_dir, f"folds{folds}", settings))
    with open_study(path, settings), closing(Jobs(setup.jobs, folds)) as jobs:
        yield Decision(
            "folds", f"{folds}, in {path}", "to resume, run the command again with this name"
        )
        validation = Validation(path, dataset, folds, request, setup)
        first = yield from validation.iter_first(deadline)
        first = replace(first, dataset=None)  # without the copied images of the fold
        yield _describe_fold(1, first)
        runs = [first]
        others = [*range(2, folds + 1), 0]
        epochs = first.record.recipe.epochs
        share_seconds = None
        if deadline is not None:
            trained = count_epochs(first)
            epochs = trained or epochs
            share_seconds = None if trained else deadline.seconds
        makers = {
            validation.locate(fold): partial(validation.make, first.record, fold, epochs)
            for fold in others
        }
        jobs.plan(makers, setup)
        for fold in others[:-1]:
            run = yield from validation.iter_run(fold, jobs, share_seconds)
            yield _describe_fold(fold, run)
            runs.append(replace(run, dataset=None))
        outputs = join_folds([run.outputs["test"] for run in runs])
        RunFolder(path).save_outputs([outputs])
        whole = yield from validation.iter_run(0, jobs, share_seconds)
        reports = tuple(run.report for run in runs if run.report is not None)
        score, interval = score_folds(runs[0].record.task, reports, outputs)
        yield Folds(reports, outputs, score, interval, whole)


def count_epochs(run: Run) -> int:
    """The number of epochs that a run has trained; 0 if its time ended within the first."""
    checkpoint = run.folder.read_checkpoint()
    if checkpoint is None:
        return 0
    standing = checkpoint.standing
    return round(standing.steps_done / standing.steps_per_epoch)


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

    path: Path
    dataset: Dataset
    folds: int
    request: Request
    setup: RunSetup

    def locate(self, fold: int) -> Path:
        """The folder of a run."""
        return self.path / (f"fold-{fold}" if fold else WHOLE)

    def iter_first(self, deadline: Deadline | None) -> Events[Run]:
        """Train the first run, which makes the choices, or load it.

        If it was interrupted, it trains as many epochs as it had planned.
        """
        setup = self.setup.at(self.locate(1))
        if not (setup.path / "run.json").exists():
            part = hold_out(self.dataset, 1, self.folds)
            return (yield from iter_training(part, self.request, deadline, setup))
        record = RunFolder(setup.path).read_record()
        candidate = Candidate.of(self.make(record, 1, record.recipe.epochs))
        return (yield from on_all_cores(iter_planned(candidate, None, setup)))

    def iter_run(self, fold: int, jobs: Jobs, seconds: float | None) -> Events[Run]:
        """Train another run, or load it; with ``seconds``, within this time, on all cores."""
        path = self.locate(fold)
        if seconds is None or (path / REPORT_FILE).exists():
            return (yield from jobs.iter_run(path, self.setup))
        candidate = Candidate.of(jobs.makers[path]()).time()
        share = Deadline(time.perf_counter(), seconds)
        events = iter_planned(candidate, share, self.setup.at(path))
        return (yield from on_all_cores(events, has_time_limit=True))

    def make(self, record: RunRecord, fold: int, epochs: int) -> Experiment:
        """The experiment of the first run, with the images of a fold and this number of epochs."""
        net = self.request.net
        if net is None:
            net = find_net(record.net_name) if record.timm is None else choice_of_timm(record.timm)
        device = self.request.settings.get("device", "auto")
        if isinstance(self.request.recipe, Recipe):
            device = self.request.recipe.device
        recipe = replace(record.recipe, epochs=epochs, device=device)
        part = hold_out(self.dataset, fold, self.folds)
        experiment = Experiment(net, recipe, part, self.request.parts)
        candidate = Candidate(experiment, min(record.in_shape[1:]))
        return candidate.resize(self.setup.progress).experiment
