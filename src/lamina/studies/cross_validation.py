"""Cross-validation: a run for each fold, on the images of the others, and one run on all images."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina.data import Dataset, Images
from lamina.data.held_out import hold_out
from lamina.data.load import as_dataset
from lamina.errors import RunError, check_type, escape, plural
from lamina.evaluation.intervals import Interval, sum_by_group, t_quantile
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.paired import measure_outputs
from lamina.evaluation.reports import Report
from lamina.evaluation.words import list_lines
from lamina.files import check_name
from lamina.metrics import METRICS
from lamina.runs.folder import STUDY_FILE, WHOLE, RunFolder
from lamina.runs.nets_by_name import choice_of_timm, find_net
from lamina.runs.run import Run
from lamina.runs.start import NetLike
from lamina.studies.experiment import (
    Candidate,
    Deadline,
    Decision,
    Events,
    Experiment,
    Request,
)
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
        score: The metric of all these outputs together; for a metric of one's own, the mean of the
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
        count = len(self.reports)
        images = len(self.outputs.names)
        low = self.score.format(self.interval.low)
        high = self.score.format(self.interval.high)
        lines = [
            f"out-of-fold {self.score} (95 % interval {low} to {high})",
            f"The interval is about training on {count - 1} of {count} parts of such images. It is"
            " approximate: the corrected t test of Nadeau and Bengio (2003), from the variance"
            " between folds.",
            f"model trained on all {images:,} images: {escape(str(self.run.path))}",
        ]
        report = self.run.report
        if report is not None:
            lines.append(list_lines(report)[0])
        return "\n".join(lines)


@dataclass(frozen=True)
class Choice:
    """What all runs of a cross-validation share, as it is stored."""

    net: str
    timm: TimmNet | None
    size_px: int
    recipe: Recipe
    pace: Pace
    is_open: bool
    seconds: float | None = None  # of the training on a fold


def fold_interval(score: Score, deviations: Sequence[float]) -> Interval:
    """The 95 % interval of a score on k folds (Nadeau and Bengio's t test, 2003).

    The ``deviations`` are the influences of the folds on the score: for a mean of the folds, the
    difference of each from the mean, divided by k. They add up to 0.
    """
    # The variance between folds counts 1/k + 1/(k - 1) times, not 1/k times, because the training
    # sets overlap. The second term is the ratio of held-out images to training images.
    count = len(deviations)
    variance = sum(deviation**2 for deviation in deviations) * count**2 / (count - 1)
    half_width = t_quantile(count - 1) * math.sqrt(variance * (1 / count + 1 / (count - 1)))
    least, most = score.bounds
    return Interval(max(least, score.value - half_width), min(most, score.value + half_width))


def score_folds(task: Task, reports: Sequence[Report], outputs: Outputs) -> tuple[Score, Interval]:
    """The metric of the outputs of all folds, with its interval.

    A fold may have too few images for a metric, all of them together have not. A metric of one's
    own is the mean of the folds.
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
    progress: bool = True,
) -> Folds:
    """Train and evaluate a net on each of several folds, and then train it on all images.

    The folds are parts of ``train`` and ``val``, stratified; images of a group share a fold. Each
    is predicted by a model that was trained on the others. Net, image size and recipe are chosen
    once, with the training images of the first fold. ``test`` is evaluated once, by the last model.
    Each has the same time. A call with the same ``name`` and time limit skips finished runs.

    Args:
        data: As for :func:`train`.
        net: As for :func:`train`.
        recipe: As for :func:`train`.
        parts: As for :func:`train`.
        folds: Number of folds.
        seconds: Time limit for all runs together, by default 300 without ``net``, and none with it.
        name: Name of the folder of all runs; by default date, number of folds and a number.
        runs_dir: Folder of that folder; created if necessary.
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
    check_name(name)
    request = to_request(net, recipe, seconds, parts)
    dataset = as_dataset(data)
    deadline = to_deadline(began, net, seconds)
    setup = RunSetup(Path(runs_dir), name)
    events = iter_folds(dataset, folds, request, deadline, setup)
    for event in follow(events, dataset, name, progress):
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
    first = hold_out(dataset, 1, folds)  # fails before the folder is created
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
        # a fold has fewer images than the last run, whose time is kept
        deadline = replace(deadline, runs=folds + folds / (folds - 1))
    with open_study(path, shared) as study:
        if "choice" not in study.state:  # nothing of an earlier call is kept
            study.state["used_seconds"] = 0.0
            if deadline is not None:
                study.opened = deadline.began
        yield Decision(
            "folds", f"{folds}, in {path}", "to resume, run the command again with this name"
        )
        runs: list[Run] = []
        reports: list[Report] = []
        for fold in range(1, folds + 1):
            part = first if fold == 1 else hold_out(dataset, fold, folds)
            fold_setup = setup.at(path / f"fold-{fold}")
            run = yield from _iter_one(study, part, request, deadline, fold_setup)
            report = run.report
            if report is None:
                raise RunError(
                    f"{run.path} could not be evaluated on its fold. Use fewer folds, or add"
                    " images."
                )
            runs.append(run)
            reports.append(report)
            images = plural(report.images, "image", "images")
            yield Decision(f"fold {fold}", f"{report.score} on {images}", str(run.path))
        outputs = _collect(runs)
        RunFolder(path).save_outputs([outputs])
        whole = hold_out(dataset, 0, folds)
        run = yield from _iter_one(study, whole, request, deadline, setup.at(path / WHOLE))
        score, interval = score_folds(runs[0].record.task, reports, outputs)
        yield Folds(tuple(reports), outputs, score, interval, run)


def _iter_one(
    study: OpenStudy,
    dataset: Dataset,
    request: Request,
    deadline: Deadline | None,
    setup: RunSetup,
) -> Events[Run]:
    """Train the next run of a cross-validation, or load it; the first chooses for all."""
    name = setup.path.name
    finished = study.state.get("finished", [])
    if "choice" in study.state:
        run = yield from _iter_planned(study, dataset, request, deadline, setup)
        study.save(finished=sorted({*finished, name}))
        return run
    if setup.path.exists():
        remove_run(setup.path)
    choice: dict[str, Any] = {}
    with closing(iter_training(dataset, request, deadline, setup)) as events:
        for event in events:
            if isinstance(event, Started) and event.candidate is not None:
                run = event.run
                seconds = None if deadline is None else deadline.seconds_left()
                choice = _describe_choice(event.candidate, seconds)
            # before the first step, a trial may choose another net
            if isinstance(event, Step | Epoch) and "choice" not in study.state:
                study.save(choice=choice, began={name: study.used_seconds})
            yield event
    study.save(choice=choice, finished=[name])
    return run


def _iter_planned(
    study: OpenStudy,
    dataset: Dataset,
    request: Request,
    deadline: Deadline | None,
    setup: RunSetup,
) -> Events[Run]:
    """Train a run by the stored choice in the time of a fold, the last in all that is left."""
    name = setup.path.name
    choice = parse_event(Choice, study.state["choice"], study.path / STUDY_FILE)
    candidate = _restore_choice(choice, dataset, request, setup)
    if name in study.state.get("finished", []):
        return (yield from iter_planned(candidate, None, setup, is_done=True))
    began = study.state.get("began", {})
    if name not in began:
        began |= {name: study.used_seconds}
        study.save(began=began)
    share = None
    if deadline is not None and choice.seconds is not None:
        seconds = choice.seconds
        if name == WHOLE:
            seconds = max(seconds, deadline.all_seconds - began[name])
        trained_seconds = study.used_seconds - began[name]  # before an interruption
        share = Deadline(time.perf_counter() - trained_seconds, seconds)
    return (yield from iter_planned(candidate, share, setup))


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


def _restore_choice(
    choice: Choice, dataset: Dataset, request: Request, setup: RunSetup
) -> Candidate:
    """The stored choice, for the images of another run."""
    net = request.net
    if net is None and choice.timm is not None:
        net = choice_of_timm(choice.timm)
    device = request.settings.get("device", "auto")
    if isinstance(request.recipe, Recipe):
        device = request.recipe.device
    recipe = replace(choice.recipe, device=device)
    experiment = Experiment(net or find_net(choice.net), recipe, dataset, request.parts)
    candidate = Candidate(experiment, choice.size_px, choice.pace, is_open=choice.is_open)
    return candidate.resize(setup.progress)


def _collect(runs: Sequence[Run]) -> Outputs:
    """The logits of all folds, one after another."""
    held_out = [run.outputs["test"] for run in runs]
    folds = [np.full(len(fold.names), number) for number, fold in enumerate(held_out, start=1)]
    return Outputs(
        "train",
        np.concatenate([fold.logits for fold in held_out]),
        np.concatenate([fold.targets for fold in held_out]),
        tuple(name for fold in held_out for name in fold.names),
        np.concatenate(folds),
        tuple(group for fold in held_out for group in fold.groups),
    )
