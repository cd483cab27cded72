"""Cross-validation: a run for each fold, trained on the other folds, and one run on all images."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina.data import Dataset, Images
from lamina.data.held_out import hold_out
from lamina.data.load import as_dataset, check_learnable
from lamina.errors import RunError, check_type, escape
from lamina.evaluation.intervals import LEVEL, Interval, sum_by_group
from lamina.evaluation.outputs import Outputs, join_folds
from lamina.evaluation.paired import average_folds, measure_outputs
from lamina.evaluation.report import Report
from lamina.files import check_name
from lamina.markup import card, table, wrap
from lamina.metrics import METRICS
from lamina.runs.folder import WHOLE, RunFolder
from lamina.runs.record import Considered, RunRecord
from lamina.runs.run import Run
from lamina.runs.start import NetLike, choice_of_timm, find_net
from lamina.studies.choosing import iter_choice
from lamina.studies.experiment import (
    RESERVE,
    Candidate,
    Deadline,
    Decision,
    Events,
    Experiment,
    Request,
)
from lamina.studies.forks import Jobs, Planned, check_jobs, iter_runs
from lamina.studies.study import (
    CODE,
    RunSetup,
    describe_code,
    describe_net,
    describe_recipe,
    name_study,
    open_study,
    without_device,
)
from lamina.studies.train_net import (
    DEFAULT_SECONDS,
    follow,
    iter_named,
    to_deadline,
    to_request,
)
from lamina.targets import Score
from lamina.training.custom import NO_PARTS, Parts
from lamina.training.device import choose_device
from lamina.training.events import Event
from lamina.training.recipe import Recipe
from lamina.training.task import Task
from lamina.training.threads import iter_computing_with


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
    fold. lamina chooses net, image size, recipe and number of epochs once, with the training images
    of the first fold. With a time limit, it measures how many epochs fit. A call with the same
    ``name`` and time limit skips finished runs.

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
        jobs: As for :func:`~lamina.studies.seeds.iter_seeds`.
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

    Net, image size, recipe and number of epochs are chosen before the first run, for all.
    ``RunError`` if the folder exists with another request or time limit.
    """
    part = hold_out(dataset, 1, folds)  # fails before the folder is created
    settings = _describe(dataset, folds, request, deadline)
    path = setup.runs_dir / (setup.name or name_study(f"folds{folds}", settings))
    names = {fold: f"fold-{fold}" for fold in range(1, folds + 1)} | {0: WHOLE}
    cores = Jobs(setup.jobs, folds)
    if deadline is not None:
        deadline = share_time(deadline, folds, cores.most)
    with open_study(path, settings) as study:
        yield Decision(
            "folds", f"{folds}, in {path}", "to resume, run the command again with this name"
        )
        begun = sorted(file.parent for file in path.glob("*/run.json"))
        if begun:  # all runs have the same choices
            choice = _restore(RunFolder(begun[0]).read_record(), dataset, request)
        else:
            choosing = _iter_choice(part, request, deadline, setup)
            choice, considered = yield from iter_computing_with(cores.threads, choosing)
            choice = replace(choice, experiment=replace(choice.experiment, dataset=dataset))
            setup = replace(setup, considered=considered)
        del part  # its pixels are a copy
        seconds = None
        if deadline is not None and choice.recipe.epochs == 1:  # it may take too long
            seconds = deadline.seconds
        *planned, last = [
            Planned(path / name, partial(_draw, choice, fold, folds), seconds)
            for fold, name in names.items()
        ]
        runs = yield from iter_runs(planned, setup)
        held = [_find_run(item, runs) for item in planned]
        reports = tuple(map(_find_report, held))
        outputs = join_folds([run.outputs["test"] for run in held])
        RunFolder(path).save_outputs([outputs])  # which calibrate the last run
        runs = yield from iter_runs([last], setup)
        whole = _find_run(last, runs)
        score, interval = score_folds(held[0].record.task, reports, outputs)
        module = None if whole.record.own_module is None else choice.make()
        whole = replace(whole, module=module, parts=request.parts)
        result = Folds(reports, outputs, score, interval, whole)
        study.save(result=result.to_json())
    yield result


def _describe(
    dataset: Dataset, folds: int, request: Request, deadline: Deadline | None
) -> dict[str, Any]:
    """The settings of the study."""
    metric = request.settings.get("metric")
    if isinstance(request.recipe, Recipe):
        metric = request.recipe.metric
    return {
        "folds": folds,
        "data": dataset.fingerprint,
        **describe_net(request.net),
        "recipe": describe_recipe(request.recipe),
        "given": without_device(request.settings),
        "pretrained": request.pretrained,
        "parts": request.parts.describe(),
        CODE: describe_code(request.net, request.parts, dataset.train, metric),
        "time": None if deadline is None else deadline.all_seconds,
    }


def share_time(deadline: Deadline, folds: int, most: int) -> Deadline:
    """The deadline of one run, if the folds are trained so many at once."""
    # the last run is trained alone, and has more images
    runs = math.ceil(folds / most) + folds / (folds - 1)
    return replace(deadline, runs=RESERVE * runs)


def _iter_choice(
    dataset: Dataset, request: Request, deadline: Deadline | None, setup: RunSetup
) -> Events[tuple[Candidate, tuple[Considered, ...]]]:
    """What all folds train, chosen with the images of one."""
    choose_device(request.settings.get("device", "auto"))
    if request.net is not None:
        candidate = yield from iter_named(dataset, request, deadline)
        return candidate, ()
    check_learnable(dataset)
    limit = deadline or Deadline(time.perf_counter(), DEFAULT_SECONDS)
    candidate, considered = yield from iter_choice(dataset, request, limit, setup.progress)
    experiment = replace(candidate.experiment, parts=request.parts)
    return replace(candidate, experiment=experiment), considered


def _restore(record: RunRecord, dataset: Dataset, request: Request) -> Candidate:
    """What the run of a record trains, for all images."""
    net = request.net
    if net is None:
        net = find_net(record.net_name) if record.timm is None else choice_of_timm(record.timm)
    device = request.settings.get("device", "auto")
    if isinstance(request.recipe, Recipe):
        device = request.recipe.device
    recipe = replace(record.recipe, device=device)
    return Candidate(Experiment(net, recipe, dataset, request.parts), min(record.in_shape[1:]))


def _draw(choice: Candidate, fold: int, folds: int) -> Experiment:
    """The experiment with the images of a fold, or with all for fold 0."""
    experiment = choice.experiment
    part = hold_out(experiment.dataset, fold, folds)
    return replace(choice, experiment=replace(experiment, dataset=part)).resize().experiment


def _find_run(item: Planned, runs: Mapping[Path, Run]) -> Run:
    if item.path not in runs:
        raise RunError(
            f"{item.path} diverged, so there is no result. Use a lower learning rate, and another"
            " name."
        )
    return runs[item.path]


def _find_report(run: Run) -> Report:
    report = run.report
    if report is None:
        raise RunError(
            f"{run.path} could not be evaluated on its fold. Use fewer folds, or add images."
        )
    return report
